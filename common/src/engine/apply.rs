//! Applies commands to a working set. What is stale (an older fence, a state that does not allow it) changes nothing.

use super::{Command, WorkingSet};
use crate::{
    callback::CallOn,
    fault,
    ids::{Dispatch, TiPk},
    limit::LimitKey,
    message::{Ending, Finished, Started},
    retry::{self, RetryIdentity},
    row::{AttemptRow, TiRow, XcomRow},
    state::TaskState,
    transition::{self, Refused},
};
use chrono::Duration;

impl WorkingSet {
    /// Applies one command. All rows that it names are loaded.
    pub fn apply(&mut self, command: &Command) {
        let applied = match command {
            Command::Started(event) => self.started(event),
            Command::Finished(event) => self.finished(event),
            Command::Requeued {
                dispatch, reason, ..
            } => self.requeued(*dispatch, reason, true),
            Command::Unclaimed {
                dispatch, reason, ..
            } => self.requeued(*dispatch, reason, false),
            Command::Forgotten {
                dispatch, reason, ..
            } => self.forgotten(*dispatch, reason),
            Command::Lost {
                dispatch, reason, ..
            } => self.lost(*dispatch, reason),
            Command::CancelledUnclaimed { dispatch, .. } => self.cancelled_unclaimed(*dispatch),
            Command::RetryDue { ti, .. } => self.retry_due(*ti),
            Command::StopRun {
                run,
                cancelled,
                reason,
            } => self.stop_run(*run, *cancelled, reason),
        };
        if applied.is_none() {
            self.stale += 1;
        }
    }

    /// The row that a dispatch still is about.
    fn current(&self, dispatch: Dispatch) -> Option<&TiRow> {
        self.ti(dispatch.ti)
            .filter(|row| row.fence == dispatch.fence || fault::misbehaves("apply-stale"))
            .filter(|row| row.state.is_dispatched())
    }

    fn started(&mut self, event: &Started) -> Option<()> {
        let before = self.current(event.dispatch)?.clone();
        self.change(before.pk, |row| transition::start(row, event))?;
        self.left_queue(&before);
        if fault::misbehaves("give-up-the-living") {
            return self.lost(event.dispatch, "given up while it runs");
        }
        if fault::misbehaves("free-at-start") {
            self.release(&before);
            self.ti_mut(before.pk)?.occupies = false;
        }
        Some(())
    }

    fn finished(&mut self, event: &Finished) -> Option<()> {
        let before = self.current(event.dispatch)?.clone();
        if before.state == TaskState::Restarting {
            return self.finished_halted(&before, event);
        }
        match event.ending {
            Ending::NotYet => self.not_yet(&before, event),
            _ => self.try_ended(&before, event),
        }
    }

    /// A try has ended: a worker's, or one that the scheduler ends without a worker.
    pub(super) fn try_ended(&mut self, before: &TiRow, event: &Finished) -> Option<()> {
        let run = self.run(before.run)?;
        let date = run.logical_date.unwrap_or(run.run_after);
        let stopped = self.stopped_by(before).map(str::to_owned);
        let may_retry = before.try_number <= before.max_tries && stopped.is_none();
        match event.ending {
            Ending::Success => self.change(before.pk, |row| transition::succeed(row, event)),
            Ending::Failed | Ending::FailedForGood if self.fails_softly(before) => {
                self.change(before.pk, |row| transition::skip(row, event))
            }
            Ending::Skipped => self.change(before.pk, |row| transition::skip(row, event)),
            Ending::RetryIn { ms } if may_retry => {
                let wait = Duration::try_milliseconds(i64::try_from(ms).unwrap_or(i64::MAX));
                let next_at =
                    self.now + wait.unwrap_or(retry::LONGEST_WAIT).min(retry::LONGEST_WAIT);
                self.change(before.pk, |row| {
                    transition::await_retry(row, event, next_at)
                })
            }
            Ending::Failed if may_retry => {
                let plan = self.plan_of(before.run)?;
                let identity = RetryIdentity {
                    dag_id: &plan.spec.dag_id,
                    task_id: &before.task_id,
                    date,
                };
                let delay = plan.task(before.task_idx).map_or(Duration::zero(), |task| {
                    retry::delay(task, before.user_failures + 1, identity)
                });
                let next_at = self.now + delay;
                self.change(before.pk, |row| {
                    transition::await_retry(row, event, next_at)
                })
            }
            Ending::Failed
            | Ending::RetryIn { .. }
            | Ending::FailedForGood
            | Ending::Cancelled
            | Ending::NotYet => self.change(before.pk, |row| transition::fail(row, event)),
        }?;
        if event.ending == Ending::Cancelled {
            let reason = event.reason.clone().or(stopped);
            if let Some(row) = self.ti_mut(before.pk) {
                row.reason = reason;
            }
        }
        // What answers a wait is kept whatever it leads to; of a worker's attempt only what succeeded.
        if event.ending == Ending::Success || !before.state.is_dispatched() {
            self.xcoms.extend(event.xcoms.iter().map(|x| XcomRow {
                run: before.run,
                ti: before.pk,
                task_idx: before.task_idx,
                map_index: before.map_index,
                key: x.key.clone(),
                fence: before.fence,
                value: x.value.clone(),
            }));
        }
        self.looked_first(before, Some(event.started_at));
        self.left_queue(before);
        self.release(before);
        let state = self.ti(before.pk)?.state;
        self.attempt_ended(before.pk, state.as_str());
        match state {
            TaskState::UpForRetry => self.call_back(before.pk, CallOn::OnRetry),
            TaskState::Skipped => self.call_back(before.pk, CallOn::OnSkipped),
            _ => {}
        }
        if state.is_finished() {
            self.instance_ended(before.pk);
        } else if self.ti(before.pk)?.next_at.is_some_and(|at| at <= self.now) {
            self.retry_due(before.pk);
        }
        Some(())
    }

    /// What a halted attempt came to stands in its history; nothing else follows from it.
    fn finished_halted(&mut self, before: &TiRow, event: &Finished) -> Option<()> {
        let ending = match event.ending {
            Ending::Success => "success",
            Ending::Skipped => "skipped",
            Ending::Failed | Ending::RetryIn { .. } | Ending::FailedForGood | Ending::Cancelled => {
                "failed"
            }
            Ending::NotYet => "requeued",
        };
        transition::record_ending(self.ti_mut(before.pk)?, event);
        let reason = event.reason.clone();
        self.halted(before, ending, reason)
    }

    fn requeued(&mut self, dispatch: Dispatch, reason: &str, ran: bool) -> Option<()> {
        let before = self.current(dispatch)?.clone();
        if before.state == TaskState::Restarting {
            return self.halted(&before, "requeued", None);
        }
        if !ran && before.state != TaskState::Queued {
            // Somebody had claimed it after all: what was found is older than its start.
            return None;
        }
        if !ran && let Some(failure) = self.waited_too_long(&before) {
            return self.finished(&failure);
        }
        if ran {
            self.attempt_ended(before.pk, "requeued");
        }
        let now = self.now;
        self.change(before.pk, |row| {
            transition::requeue(row, reason.to_owned(), ran, now)
        })?;
        self.left_queue(&before);
        self.release(&before);
        self.became_ready(before.pk);
        Some(())
    }

    /// The failure of a dispatch that no worker took within its task's `queued_timeout`.
    fn waited_too_long(&self, row: &TiRow) -> Option<Finished> {
        let task = self.plan_of(row.run)?.task(row.task_idx)?;
        let timeout = task.queued_timeout?;
        row.next_at.filter(|at| *at <= self.now)?;
        Some(Finished {
            run: row.run,
            dispatch: row.dispatch(),
            worker: String::new(),
            hostname: String::new(),
            started_at: self.now,
            ended_at: self.now,
            ending: Ending::Failed,
            exit_code: None,
            pid: None,
            reason: Some(format!(
                "no worker of queue {} took it within {timeout} (queued_timeout)",
                row.queue
            )),
            xcoms: Vec::new(),
        })
    }

    /// Whether it ran is not known, so it counts as a try, and two attempts never share a number. It costs none.
    fn forgotten(&mut self, dispatch: Dispatch, reason: &str) -> Option<()> {
        if self.current(dispatch)?.state == TaskState::Running {
            // It was heard of after all: what was found is older than its start.
            return None;
        }
        self.requeued(dispatch, reason, true)
    }

    fn lost(&mut self, dispatch: Dispatch, reason: &str) -> Option<()> {
        let before = self.current(dispatch)?.clone();
        if before.state == TaskState::Restarting {
            return self.halted(&before, "lost", Some(reason.to_owned()));
        }
        let now = self.now;
        let stopping = self.stopped_by(&before).is_some();
        self.change(before.pk, |row| {
            transition::lose(row, reason.to_owned(), stopping, now)
        })?;
        self.looked_first(&before, before.started_at);
        self.left_queue(&before);
        self.release(&before);
        self.attempt_ended(before.pk, "lost");
        if self.ti(before.pk)?.state.is_finished() {
            self.instance_ended(before.pk);
        } else {
            self.became_ready(before.pk);
        }
        Some(())
    }

    fn cancelled_unclaimed(&mut self, dispatch: Dispatch) -> Option<()> {
        let before = self.current(dispatch)?.clone();
        if before.state == TaskState::Restarting {
            // That it had started may not have been heard of before it was halted: then its number stays used.
            return self.halted(&before, "requeued", None);
        }
        let reason = self.stopped_by(&before)?.to_owned();
        let now = self.now;
        self.change(before.pk, |row| transition::cancel(row, reason, now))?;
        self.left_queue(&before);
        self.release(&before);
        self.instance_ended(before.pk);
        Some(())
    }

    pub(super) fn retry_due(&mut self, ti: TiPk) -> Option<()> {
        let now = self.now;
        let row = self.ti(ti)?;
        row.next_at.filter(|at| *at <= now)?;
        if row.state == TaskState::UpForReschedule {
            self.change(ti, |row| transition::poke(row, now))?;
            return self.became_ready(ti);
        }
        if self.is_deferred(ti) {
            return self.defer(ti);
        }
        self.change(ti, |row| transition::retry(row, now))?;
        self.became_ready(ti)
    }

    /// Changes a row by a transition; `None` when it refuses.
    pub(super) fn change(
        &mut self,
        ti: TiPk,
        transition: impl FnOnce(&mut TiRow) -> Result<(), Refused>,
    ) -> Option<()> {
        let mut changed = self.ti(ti)?.clone();
        transition(&mut changed).ok()?;
        *self.ti_mut(ti)? = changed;
        Some(())
    }

    /// An instance has become ready; in a run that is being stopped it ends instead.
    pub(super) fn became_ready(&mut self, ti: TiPk) -> Option<()> {
        let row = self.ti(ti)?;
        let (run_pk, now) = (row.run, self.now);
        match self.stopped_by(row).map(str::to_owned) {
            Some(reason) => {
                self.change(ti, |row| transition::cancel(row, reason, now))?;
                self.instance_ended(ti);
            }
            None => self.run_mut(run_pk)?.ready_tasks += 1,
        }
        Some(())
    }

    /// An instance has ended for good: its run and its downstreams have to know.
    pub(super) fn instance_ended(&mut self, ti: TiPk) -> Option<()> {
        let row = self.ti(ti)?;
        let (run_pk, task_idx, map_index, state) =
            (row.run, row.task_idx, row.map_index, row.state);
        let failed_leaf = matches!(state, TaskState::Failed | TaskState::UpstreamFailed)
            && self.plan_of(run_pk)?.is_leaf(task_idx);
        let run = self.run_mut(run_pk)?;
        run.unfinished_tasks -= 1;
        run.failed_leaves += i32::from(failed_leaf);
        self.endings.push_back(super::working_set::Ended {
            run: run_pk,
            task_idx,
            map_index,
            state,
        });
        self.tell_run_after(run_pk, task_idx);
        match state {
            TaskState::Success => self.call_back(ti, CallOn::OnSuccess),
            TaskState::Failed => self.call_back(ti, CallOn::OnFailure),
            _ => {}
        }
        if state == TaskState::Failed {
            self.fail_fast(ti);
        }
        self.may_clean_up(run_pk);
        Some(())
    }

    pub(super) fn attempt_ended(&mut self, ti: TiPk, ending: &str) -> Option<()> {
        let row = self.ti(ti)?;
        let attempt = AttemptRow {
            ti,
            try_number: row.try_number,
            attempt: row.attempt?,
            fence: row.fence,
            ending: ending.to_owned(),
            started_at: row.started_at,
            ended_at: row.ended_at.unwrap_or(self.now),
            worker: row.worker.clone(),
            hostname: row.hostname.clone(),
            pid: row.pid,
            exit_code: row.exit_code,
            reason: row.reason.clone(),
        };
        self.attempts.push(attempt);
        Some(())
    }

    /// Gives the room in its queue back once a dispatch is no longer waiting there.
    pub(super) fn left_queue(&mut self, before: &TiRow) {
        if before.state == TaskState::Queued {
            self.spend(LimitKey::queue(&before.queue), -1);
        }
    }

    /// Gives back the slots that a dispatch occupied.
    pub(super) fn release(&mut self, before: &TiRow) {
        if !before.occupies || fault::misbehaves("leak-slot") {
            return;
        }
        for (key, n) in self.slots(before) {
            self.spend(key, -n);
        }
        if let Some(run) = self.run_mut(before.run) {
            run.active_tasks -= 1;
        }
    }

    /// The limits that an instance occupies, and how much of each.
    pub(super) fn slots(&self, row: &TiRow) -> Vec<(LimitKey, i64)> {
        let mut slots = vec![(LimitKey::pool(&row.pool), i64::from(row.pool_slots))];
        let Some(plan) = self.plan_of(row.run) else {
            return slots;
        };
        if let Some(task) = plan.task(row.task_idx) {
            if task.max_active_tis_per_dag.is_some() {
                slots.push((
                    LimitKey::Task {
                        dag_id: plan.spec.dag_id.clone(),
                        task_id: row.task_id.clone(),
                    },
                    1,
                ));
            }
            if task.max_active_tis_per_dagrun.is_some() {
                slots.push((
                    LimitKey::TaskInRun {
                        run: row.run,
                        task_id: row.task_id.clone(),
                    },
                    1,
                ));
            }
        }
        slots.extend(row.shared.as_ref().map(|shared| (shared.limit_key(), 1)));
        slots
    }
}
