//! Clear and mark: a user changes what instances have come to, and the run goes on from there.
//!
//! Counters are not wound back: those of every node that is undecided afterwards are worked out anew from how its upstreams'
//! instances stand, which the caller has counted.

use super::{Plan, WorkingSet, settle::evaluate};
use crate::{
    ids::{RunPk, TaskIdx, TiPk},
    row::TiRow,
    state::{RunState, TaskState},
    transition,
    trigger_rule::Counters,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a user wants of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To run anew.
    Clear,
    /// To have ended in `success`, `failed` or `skipped`.
    Mark(TaskState),
}

/// How many instances of each task of a run are in each state; hidden nodes and removed instances left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(pub BTreeMap<(TaskIdx, TaskState), i32>);

impl Tally {
    pub fn add(&mut self, row: &TiRow) {
        if row.is_visible() && row.state != TaskState::Removed {
            *self.0.entry((row.task_idx, row.state)).or_default() += 1;
        }
    }

    fn moved(&mut self, task: TaskIdx, from: TaskState, to: TaskState) {
        *self.0.entry((task, from)).or_default() -= 1;
        *self.0.entry((task, to)).or_default() += 1;
    }

    /// The counters of a node, as if each ending that there is had just been told to it. `is_split` says which tasks of its
    /// mapped group are split: its instances wait for those index by index.
    fn counters(&self, plan: &Plan, idx: TaskIdx, is_split: impl Fn(TaskIdx) -> bool) -> Counters {
        let mut counters = Counters::default();
        let is_mate = |up: TaskIdx| plan.share_map(idx, up) && is_split(up);
        for up in plan.graph.upstream(idx) {
            if is_mate(*up) {
                counters.total += 1;
                continue;
            }
            let is_setup = plan.counts_setups(idx) && plan.task(*up).is_some_and(|task| task.setup);
            for (state, n) in self.of_task(*up) {
                counters.total += n;
                counters.setups += if is_setup { n } else { 0 };
                counters.count_all(state, is_setup, n);
            }
        }
        let is_teardown = plan.task(idx).is_some_and(|task| task.teardown.is_some());
        for up in plan.graph.indirect_upstream(idx) {
            for (state, n) in self.of_task(*up) {
                if is_teardown {
                    counters.total += n;
                    counters.count_all(state, false, n);
                } else {
                    counters.setups += n;
                    counters.count_needed_setups(state, n);
                }
            }
        }
        counters
    }

    fn of_task(&self, idx: TaskIdx) -> impl Iterator<Item = (TaskState, i32)> + '_ {
        self.0
            .range((idx, TaskState::None)..=(idx, TaskState::AwaitingInput))
            .map(|((_, state), n)| (*state, *n))
    }
}

/// Why a run cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmendError {
    #[error("the run is being stopped ({0}): wait until it has ended")]
    BeingStopped(String),
    #[error("the run is not loaded")]
    NotLoaded,
}

/// What came of an amendment, beside the changed rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Amended {
    /// Instances that run anew: their values are of no use any more.
    pub cleared: Vec<TiPk>,
    /// Instances that are to be stopped first.
    pub halted: Vec<TiPk>,
    /// Instances that have ended as they were marked.
    pub marked: Vec<TiPk>,
}

impl WorkingSet {
    /// Clears or marks instances of a run, in the order given, and lets an ended run go on if that left it work. All nodes
    /// of the run and all targets are loaded; `tally` counts the run as it is before. Settle afterwards.
    pub fn amend(
        &mut self,
        run: RunPk,
        targets: &[(TiPk, Wish)],
        by: &str,
        tally: Tally,
    ) -> Result<Amended, AmendError> {
        let row = self.run(run).ok_or(AmendError::NotLoaded)?;
        let stopped = row.stop_reason.as_ref().or(row.clean_up.as_ref());
        if let (Some(reason), false) = (stopped, row.state.is_finished()) {
            return Err(AmendError::BeingStopped(reason.clone()));
        }
        let mut amending = Amending {
            by,
            tally,
            reopened: BTreeSet::new(),
            amended: Amended::default(),
        };
        for (ti, wish) in targets {
            match wish {
                Wish::Clear => amending.clear(self, *ti),
                Wish::Mark(state) => amending.mark(self, *ti, *state),
            };
        }
        let Amending {
            tally,
            reopened,
            amended,
            ..
        } = amending;
        for idx in reopened.into_iter().chain(self.waiting_members(&amended)) {
            self.reopen(run, idx);
        }
        if amended == Amended::default() {
            return Ok(amended);
        }
        self.go_on(run);
        self.recount(run, &tally);
        Ok(amended)
    }

    /// Members of mapped groups that were amended, or may wait for what was.
    fn waiting_members(&self, amended: &Amended) -> BTreeSet<TaskIdx> {
        let Amended {
            cleared,
            halted,
            marked,
        } = amended;
        let rows = cleared.iter().chain(halted).chain(marked);
        let tasks: BTreeSet<(RunPk, TaskIdx)> = rows
            .filter_map(|ti| self.ti(*ti))
            .map(|row| (row.run, row.task_idx))
            .collect();
        let mut members = BTreeSet::new();
        for (run, idx) in tasks {
            let Some(plan) = self.plan_of(run) else {
                continue;
            };
            let concerned = std::iter::once(idx).chain(plan.graph.listeners(idx));
            members.extend(concerned.filter(|idx| plan.is_in_group(*idx)));
        }
        members
    }

    /// The list of a mapped task is looked at again. In a mapped group all members below follow: what waits there counts anew
    /// what it waits for, and there may be other items.
    fn reopen(&mut self, run: RunPk, idx: TaskIdx) -> Option<()> {
        let plan = self.plan_of(run)?.clone();
        let mut to_reopen = vec![idx];
        while let Some(idx) = to_reopen.pop() {
            let node = self.node(run, idx)?;
            if self.ti(node)?.is_visible() || self.ti(node)?.is_undecided() {
                continue;
            }
            self.ti_mut(node)?.scheduled_at = None;
            let below = plan.graph.listeners(idx);
            to_reopen.extend(below.filter(|down| plan.share_map(idx, *down)));
        }
        Some(())
    }

    /// An ended run has work again, and waits for its start like a new one; or none, and then has ended as it stands now.
    fn go_on(&mut self, run: RunPk) -> Option<()> {
        let now = self.now;
        let row = self.run_mut(run).filter(|row| row.state.is_finished())?;
        if row.unfinished_tasks > 0 {
            requeue_run(row, now);
        } else {
            let stopped = row.stop_reason.is_some() || row.clean_up.is_some();
            row.state = match row.failed_leaves > 0 || stopped {
                true => RunState::Failed,
                false => RunState::Success,
            };
        }
        Some(())
    }

    /// Puts an ended run back into the queue of its DAG. Its instances stay as they are.
    pub fn requeue_run(&mut self, run: RunPk) -> bool {
        let now = self.now;
        match self.run_mut(run) {
            Some(row) if row.state.is_finished() => {
                requeue_run(row, now);
                true
            }
            _ => false,
        }
    }

    /// Sets the outcome of an ended run, or of one that never started.
    pub fn set_outcome(&mut self, run: RunPk, state: RunState, reason: &str) -> bool {
        let now = self.now;
        let Some(row) = self.run_mut(run).filter(|row| {
            row.state.is_finished() || (row.state == RunState::Queued && row.unfinished_tasks == 0)
        }) else {
            return false;
        };
        row.state = state;
        row.ended_at = row.ended_at.or(Some(now));
        row.cancelled = false;
        row.clean_up = None;
        row.stop_reason = (state == RunState::Failed).then(|| reason.to_owned());
        true
    }

    /// Works out the counters of all undecided nodes of a run anew, and decides them if the run is under way. All its nodes
    /// are loaded.
    pub fn recount(&mut self, run: RunPk, tally: &Tally) -> Option<()> {
        let plan = self.plan_of(run)?.clone();
        let running = self.run(run)?.state == RunState::Running;
        let undecided: Vec<TiPk> = (0..plan.spec.tasks.len() as TaskIdx)
            .filter_map(|idx| self.node(run, idx))
            .filter(|node| self.ti(*node).is_some_and(TiRow::is_undecided))
            .collect();
        for node in &undecided {
            let row = self.ti(*node)?;
            let idx = row.task_idx;
            let counters = tally.counters(&plan, idx, |up| {
                let up = self.node(run, up).and_then(|node| self.ti(node));
                up.is_some_and(|up| !up.is_visible())
            });
            if row.counters != counters {
                self.ti_mut(*node)?.counters = counters;
            }
            self.note_missing_list(run, idx, *node);
        }
        if running {
            for node in undecided {
                evaluate(self, node);
            }
        }
        Some(())
    }

    /// A task whose list will not come, because the task that makes it ended without one, is not to wait for it.
    fn note_missing_list(&mut self, run: RunPk, idx: TaskIdx, node: TiPk) -> Option<()> {
        let plan = self.plan_of(run)?.clone();
        for up in plan.graph.upstream(idx) {
            if !plan.is_list_of(idx, *up) {
                continue;
            }
            let producer = self.node(run, *up).and_then(|up| self.ti(up))?;
            let state = producer.state;
            if producer.is_visible() && state.is_finished() && state != TaskState::Success {
                self.no_list.insert(node, state);
            }
        }
        Some(())
    }

    /// The dispatch of an instance that was cleared or marked is over: it becomes what it was told.
    pub(super) fn halted(
        &mut self,
        before: &TiRow,
        ending: &str,
        reason: Option<String>,
    ) -> Option<()> {
        let (ti, now) = (before.pk, self.now);
        // Its slots are given back first: they go by the row as it was.
        self.release(before);
        if let Some(row) = self.ti_mut(ti) {
            row.ended_at = row.ended_at.or(Some(now));
            row.reason = reason.or_else(|| before.reason.clone());
        }
        self.attempt_ended(ti, ending);
        let why = before.reason.clone().unwrap_or_default();
        match before.then {
            Some(TaskState::Removed) => {
                self.change(ti, |row| transition::remove(row, now))?;
                self.run_mut(before.run)?.unfinished_tasks -= 1;
                self.restarted.push(ti);
            }
            Some(state) => {
                self.change(ti, |row| transition::mark(row, state, why, now))?;
                self.marked.insert(ti);
                self.instance_ended(ti);
            }
            None => {
                let retries = self.retries(before);
                self.change(ti, |row| transition::clear(row, retries))?;
                self.rekey(ti);
                self.restarted.push(ti);
            }
        }
        Some(())
    }

    /// An instance whose rule holds waits for its slots, or without a worker.
    pub(super) fn may_run(&mut self, ti: TiPk) -> Option<()> {
        if self.is_deferred(ti) {
            return self.defer(ti);
        }
        let now = self.now;
        self.change(ti, |row| transition::schedule(row, now))?;
        self.became_ready(ti)
    }

    pub(super) fn retries(&self, row: &TiRow) -> i32 {
        self.plan_of(row.run)
            .and_then(|plan| plan.task(row.task_idx))
            .map_or(0, |task| task.retries as i32)
    }
}

fn requeue_run(row: &mut crate::row::RunRow, now: chrono::DateTime<chrono::Utc>) {
    row.state = RunState::Queued;
    row.queued_at = now;
    row.ended_at = None;
    row.cancelled = false;
    row.clean_up = None;
    row.stop_reason = None;
}

struct Amending<'a> {
    by: &'a str,
    tally: Tally,
    /// Mapped tasks some of whose instances run anew: their lists are looked at again.
    reopened: BTreeSet<TaskIdx>,
    amended: Amended,
}

impl Amending<'_> {
    fn clear(&mut self, ws: &mut WorkingSet, ti: TiPk) -> Option<()> {
        let before = ws.ti(ti)?.clone();
        match before.state {
            TaskState::None | TaskState::Removed => return None,
            TaskState::Restarting if before.then.is_none() => return None,
            TaskState::Restarting | TaskState::Queued | TaskState::Running => {
                self.halt(ws, &before, None)?;
            }
            _ => {
                let retries = ws.retries(&before);
                if before.try_goes_on() {
                    // A sensor between two looks: its try ends here.
                    ws.attempt_ended(ti, "requeued");
                }
                ws.change(ti, |row| transition::clear(row, retries))?;
                self.left(ws, &before);
                ws.run_mut(before.run)?.unfinished_tasks += i32::from(before.state.is_finished());
                self.tally
                    .moved(before.task_idx, before.state, TaskState::None);
                self.amended.cleared.push(ti);
            }
        }
        if !before.is_node() {
            self.reopened.insert(before.task_idx);
        }
        Some(())
    }

    fn mark(&mut self, ws: &mut WorkingSet, ti: TiPk, to: TaskState) -> Option<()> {
        let before = ws.ti(ti)?.clone();
        if before.state == to || before.then == Some(to) || before.state == TaskState::Removed {
            return None;
        }
        if before.state.is_dispatched() {
            return self.halt(ws, &before, Some(to));
        }
        let (now, reason) = (ws.now, self.reason(Some(to)));
        if before.try_goes_on() {
            ws.attempt_ended(ti, to.as_str());
        }
        ws.change(ti, |row| transition::mark(row, to, reason, now))?;
        self.left(ws, &before);
        let failed_leaf = is_failed_leaf(ws, &before, to);
        let run = ws.run_mut(before.run)?;
        run.unfinished_tasks -= i32::from(!before.state.is_finished());
        run.failed_leaves += i32::from(failed_leaf);
        self.tally.moved(before.task_idx, before.state, to);
        ws.tell_run_after(before.run, before.task_idx);
        self.amended.marked.push(ti);
        Some(())
    }

    /// What the run counted of the state that an instance is taken out of.
    fn left(&mut self, ws: &mut WorkingSet, before: &TiRow) -> Option<()> {
        let failed_leaf = is_failed_leaf(ws, before, before.state);
        let run = ws.run_mut(before.run)?;
        run.ready_tasks -= i32::from(before.state == TaskState::Scheduled);
        run.failed_leaves -= i32::from(failed_leaf);
        Some(())
    }

    /// Stops a dispatch that is out.
    fn halt(&mut self, ws: &mut WorkingSet, before: &TiRow, then: Option<TaskState>) -> Option<()> {
        let reason = self.reason(then);
        if before.state == TaskState::Restarting {
            let row = ws.ti_mut(before.pk)?;
            row.then = then;
            row.reason = Some(reason);
        } else {
            ws.change(before.pk, |row| transition::halt(row, then, reason))?;
            ws.left_queue(before);
            self.tally
                .moved(before.task_idx, before.state, TaskState::Restarting);
        }
        ws.to_cancel.push(before.pk);
        self.amended.halted.push(before.pk);
        Some(())
    }

    fn reason(&self, to: Option<TaskState>) -> String {
        match to {
            Some(state) => format!("marked {state} by {}", self.by),
            None => format!("cleared by {}", self.by),
        }
    }
}

/// Whether an instance in this state counts as a failed leaf of its run.
fn is_failed_leaf(ws: &WorkingSet, row: &TiRow, state: TaskState) -> bool {
    matches!(state, TaskState::Failed | TaskState::UpstreamFailed)
        && ws
            .plan_of(row.run)
            .is_some_and(|plan| plan.is_leaf(row.task_idx))
}
