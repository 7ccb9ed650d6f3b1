//! Clears and marks, as `gristmill-store`'s transaction makes them.

use super::{Outcome, RUN, World};
use crate::{
    engine::{AmendError, Amended, Selection, Tally, Wish, is_picked},
    ids::{RunPk, TiPk},
    row::TiRow,
    state::TaskState,
};

impl World {
    /// Clears or marks what is selected, and after a mark clears what failed below it.
    pub(in crate::engine::tests) fn amend(
        &mut self,
        run: RunPk,
        selection: &Selection,
        wish: Wish,
    ) -> Result<(Amended, Outcome), AmendError> {
        self.amended = true;
        let plan = self.plans[&run].clone();
        let picked = selection.tasks(&plan);
        let rows: Vec<TiRow> = self
            .tis
            .values()
            .filter(|row| row.run == run)
            .cloned()
            .collect();
        let mut targets: Vec<(TiPk, Wish)> = rows
            .iter()
            .filter(|row| selection.picks(&picked, row))
            .map(|row| (row.pk, wish))
            .collect();
        if let Wish::Mark(_) = wish {
            let below = selection.below(&plan);
            let failed = |row: &&TiRow| {
                is_picked(&below, row)
                    && row.is_visible()
                    && matches!(row.state, TaskState::Failed | TaskState::UpstreamFailed)
            };
            targets.extend(rows.iter().filter(failed).map(|row| (row.pk, Wish::Clear)));
        }
        let tally = self.tally(run);
        let mut ws = self.working_set([run]);
        for row in rows {
            ws.add_ti(row);
        }
        let amended = ws.amend(run, &targets, "me", tally)?;
        for ti in &amended.cleared {
            let row = &self.tis[ti];
            if let Some(pulled) = self.xcoms.get_mut(&run) {
                for ((task, _), values) in &mut pulled.0 {
                    if *task == row.task_id {
                        values.remove(&row.map_index);
                    }
                }
            }
        }
        Ok((amended, self.finish(ws, &[])))
    }

    pub(super) fn tally(&self, run: RunPk) -> Tally {
        let mut tally = Tally::default();
        let rows = self.tis.values().filter(|row| row.run == run);
        rows.for_each(|row| tally.add(row));
        tally
    }

    /// Clears tasks of the one run, by name.
    pub(in crate::engine::tests) fn clear(&mut self, tasks: &[&str], downstream: bool) -> Amended {
        self.amend_named(tasks, downstream, Wish::Clear)
    }

    /// Marks tasks of the one run, by name.
    pub(in crate::engine::tests) fn mark(&mut self, tasks: &[&str], to: TaskState) -> Amended {
        self.amend_named(tasks, false, Wish::Mark(to))
    }

    fn amend_named(&mut self, tasks: &[&str], downstream: bool, wish: Wish) -> Amended {
        let spec = &self.plan(RUN).spec;
        let named = tasks
            .iter()
            .map(|id| (spec.idx(id).unwrap(), None))
            .collect();
        let selection = Selection {
            tasks: Some(named),
            downstream,
            ..Selection::default()
        };
        self.amend(RUN, &selection, wish).unwrap().0
    }
}
