//! Stops runs: by a user, by `dagrun_timeout`, by `fail_fast`.
//!
//! What has not started is skipped, what is out is cancelled at its worker. A cancel and `fail_fast` leave the teardowns
//! alone: first everything else ends (`stop_reason` and `clean_up` are set), then the teardowns run as their rules say (only
//! `clean_up` is left), and the run fails when they have ended. A second cancel, and `dagrun_timeout`, stop the teardowns too.

use super::WorkingSet;
use crate::{
    ids::{RunPk, TiPk},
    row::TiRow,
    state::{RunState, TaskState},
    transition,
};

impl WorkingSet {
    /// A user, or time, ends a run. All its unfinished instances are loaded.
    pub(super) fn stop_run(&mut self, pk: RunPk, cancelled: bool, reason: &str) -> Option<()> {
        let now = self.now;
        let has_teardowns = self.plan_of(pk)?.has_teardowns();
        let run = self.run(pk).filter(|run| !run.state.is_finished())?;
        // A run is asked to stop again and again until it has: only what is new is written, since every write of a run
        // that is being stopped wakes all schedulers.
        if run.stop_reason.is_none() {
            let spares = cancelled && has_teardowns && run.clean_up.is_none();
            let reason = run.clean_up.clone().unwrap_or_else(|| reason.to_owned());
            let run = self.run_mut(pk)?;
            run.cancelled |= cancelled;
            run.clean_up = spares.then(|| reason.clone());
            run.stop_reason = Some(reason);
        } else if cancelled && !run.cancelled {
            self.run_mut(pk)?.cancelled = true;
        }
        if self.run(pk)?.state == RunState::Queued {
            let run = self.run_mut(pk)?;
            run.state = RunState::Failed;
            run.ended_at = Some(now);
            run.clean_up = None;
            // One that was queued anew has instances, none of which is out.
            let is_anew = run.unfinished_tasks > 0;
            self.ended_runs.push(pk);
            if !is_anew {
                return Some(());
            }
        }
        self.stop_instances(pk, true)
    }

    /// An instance has failed: in a DAG with `fail_fast` that stops the run.
    pub(super) fn fail_fast(&mut self, ti: TiPk) -> Option<()> {
        let row = self.ti(ti)?;
        let (pk, failed) = (row.run, name(row));
        let plan = self.plan_of(pk)?;
        let (fail_fast, has_teardowns) = (plan.spec.fail_fast, plan.has_teardowns());
        let run = self.run(pk)?;
        if !fail_fast || run.stop_reason.is_some() || run.clean_up.is_some() {
            return None;
        }
        let reason = format!("{failed} failed, and the DAG has fail_fast");
        let run = self.run_mut(pk)?;
        run.clean_up = has_teardowns.then(|| reason.clone());
        run.stop_reason = Some(reason);
        self.to_stop.insert(pk, true);
        Some(())
    }

    /// Notes that of a run whose teardowns go on another instance has ended: it may have been the last of the others.
    pub(super) fn may_clean_up(&mut self, pk: RunPk) -> Option<()> {
        let run = self.run(pk)?;
        if run.stop_reason.is_some() && run.clean_up.is_some() {
            self.to_stop.entry(pk).or_insert(false);
        }
        Some(())
    }

    /// Why an instance is not to go on; `None` if it may, as teardowns of a run may that only they are left of.
    pub(super) fn stopped_by(&self, row: &TiRow) -> Option<&str> {
        let run = self.run(row.run)?;
        let reason = run.stop_reason.as_deref()?;
        (!(run.clean_up.is_some() && self.is_teardown(row))).then_some(reason)
    }

    fn is_teardown(&self, row: &TiRow) -> bool {
        let task = self
            .plan_of(row.run)
            .and_then(|plan| plan.task(row.task_idx));
        task.is_some_and(|task| task.teardown.is_some())
    }

    /// Ends what may not go on; `kill`: asks for the end of what is out. All unfinished instances are loaded, or about to be
    /// inserted.
    fn stop_instances(&mut self, pk: RunPk, kill: bool) -> Option<()> {
        let now = self.now;
        let mut goes_on = false;
        for ti in self.unfinished_in(pk) {
            let row = self.ti(ti)?;
            let Some(reason) = self.stopped_by(row).map(str::to_owned) else {
                continue;
            };
            if row.state.is_dispatched() {
                goes_on = true;
                if kill {
                    self.to_cancel.push(ti);
                }
                continue;
            }
            let was_ready = row.state == TaskState::Scheduled;
            self.to_render.retain(|node| *node != ti);
            self.to_look_back.retain(|node| *node != ti);
            self.change(ti, |row| transition::cancel(row, reason, now))?;
            if was_ready {
                self.run_mut(pk)?.ready_tasks -= 1;
            }
            self.instance_ended(ti);
        }
        self.stop_inserts(pk);
        if !goes_on && self.run(pk)?.clean_up.is_some() {
            self.run_mut(pk)?.stop_reason = None;
        }
        // What ended in here has been looked at.
        self.to_stop.remove(&pk);
        Some(())
    }

    /// Instances that this transaction made, and that are not written yet.
    fn stop_inserts(&mut self, pk: RunPk) -> Option<()> {
        let now = self.now;
        let mut inserts = std::mem::take(&mut self.inserts);
        for row in inserts
            .iter_mut()
            .filter(|row| row.run == pk)
            .filter(|row| matches!(row.state, TaskState::Scheduled | TaskState::None))
        {
            let was_ready = row.state == TaskState::Scheduled;
            let Some(reason) = self.stopped_by(row).map(str::to_owned) else {
                continue;
            };
            if transition::cancel(row, reason, now).is_ok() {
                let run = self.run_mut(pk)?;
                run.ready_tasks -= i32::from(was_ready);
                run.unfinished_tasks -= 1;
                self.endings.push_back(super::working_set::Ended {
                    run: pk,
                    task_idx: row.task_idx,
                    map_index: row.map_index,
                    state: row.state,
                });
            }
        }
        self.inserts = inserts;
        Some(())
    }
}

/// Goes on with a run that [`WorkingSet::to_stop`] named, whose unfinished instances are loaded by now. Settle afterwards.
pub fn stop_rest(ws: &mut WorkingSet, run: RunPk) -> Option<()> {
    let fresh = ws.to_stop.remove(&run)?;
    ws.stop_instances(run, fresh)
}

fn name(row: &TiRow) -> String {
    match row.map_index {
        crate::ids::UNMAPPED => row.task_id.clone(),
        index => format!("{}[{index}]", row.task_id),
    }
}
