//! The run before, as `gristmill-store`'s transaction looks at it.

use super::World;
use crate::{
    engine::{Past, RunBefore, WorkingSet},
    ids::{RunPk, TiPk},
    row::{RunRow, TiRow},
    state::TaskState,
};
use std::collections::BTreeMap;

impl World {
    pub(super) fn look_back(&self, ws: &mut WorkingSet) {
        for node in ws.take_to_look_back() {
            let row = ws.ti(node).unwrap();
            let past = match self.run_before(row.run) {
                Some(before) => self.past_of(row, ws.run(before.pk).unwrap_or(before)),
                None => Past::Good,
            };
            ws.looked_back(node, past);
        }
    }

    fn run_before(&self, run: RunPk) -> Option<&RunRow> {
        let date = self.runs[&run].logical_date?;
        let earlier = self
            .runs
            .values()
            .filter(|other| other.logical_date.is_some_and(|other| other < date));
        earlier.max_by_key(|other| other.logical_date)
    }

    fn past_of(&self, row: &TiRow, before: &RunRow) -> Past {
        let plan = self.plan(row.run);
        let states = |task_idx: &i32| {
            let mut states = BTreeMap::new();
            let rows = self.tis.values();
            for row in rows.filter(|row| row.run == before.pk && row.task_idx == *task_idx) {
                if row.is_visible() {
                    *states.entry(row.state).or_default() += 1;
                }
            }
            (plan.task(*task_idx).unwrap().task_id.as_str(), states)
        };
        let tasks: Vec<(&str, BTreeMap<TaskState, i64>)> =
            plan.past_of(row.task_idx).iter().map(states).collect();
        let before = RunBefore {
            run_id: before.run_id.clone(),
            has_started: before.started_at.is_some(),
            has_ended: before.state.is_finished(),
        };
        Past::of(&before, &tasks)
    }

    /// Those that wait for the run before look again.
    pub(in crate::engine::tests) fn look_again(&mut self, run: RunPk) {
        let waiting: Vec<TiPk> = self
            .tis
            .values()
            .filter(|row| row.run == run && row.waits_for_past())
            .map(|row| row.pk)
            .collect();
        self.with_set(run, &waiting, |ws| {
            for node in &waiting {
                ws.look_back_again(*node);
            }
        });
    }
}
