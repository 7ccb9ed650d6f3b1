//! Recomputes everything that the engine counts.

use super::World;
use crate::{
    engine::WorkingSet,
    ids::{RunPk, TaskIdx, TiPk},
    limit::LimitKey,
    row::{RunRow, TiRow},
    state::{RunState, TaskState},
    trigger_rule::TriggerRule,
};
use std::collections::{BTreeMap, BTreeSet};

/// Instances that stand in some way, as their run's counters count them.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    unfinished: i32,
    ready: i32,
    active: i32,
    failed_leaves: i32,
}

impl World {
    /// An ending crosses each of its task's edges once, and nothing else is counted; what is loaded for it is what lies
    /// directly below. Neither depends on how large the run is, or how wide the task below.
    pub(super) fn check_work(&self, ws: &WorkingSet) {
        let mut ended = self.work.born_ended.clone();
        let mut widened = Vec::new();
        for change in ws.changes() {
            let task = (change.row.run, change.row.task_idx);
            if change.row.state.is_finished() && !change.expected_state.is_finished() {
                ended.push(task);
            }
            let before = &self.tis[&change.row.pk];
            let is_decided = before.state != TaskState::None || before.expanded_len.is_some();
            let only_counted = TiRow {
                counters: before.counters,
                ..change.row.clone()
            } == *before;
            assert!(!(is_decided && only_counted), "written in vain: {before:?}");
            if before.expanded_len.is_none() && change.row.expanded_len.is_some() {
                widened.push(task);
            }
        }
        let edges = |(run, idx): &(RunPk, TaskIdx)| self.plan(*run).graph.listeners(*idx).count();
        let crossed: usize = ended.iter().map(edges).sum();
        assert_eq!(ws.edges_counted, crossed as u64, "by {ended:?}");
        let touched: BTreeSet<_> = ended.iter().chain(&widened).collect();
        let below: usize = touched.iter().map(|task| edges(task)).sum();
        let loaded = self.work.nodes_loaded;
        // A short circuit skips what is far below it.
        let below = below + ended.len();
        assert!(loaded <= below, "{loaded} nodes loaded for {touched:?}");
        let loads = self.work.loads;
        assert!(loads <= 2 * touched.len(), "{loads} loads for {touched:?}");
    }

    /// Whatever else went on in the transaction: of what it dispatched, every limit holds.
    pub(super) fn check_room(&self, dispatched: &[TiPk]) {
        for row in dispatched.iter().map(|ti| &self.tis[ti]) {
            for (key, _) in self.slots(row) {
                let limit = &self.limits[&key];
                assert!(limit.used <= limit.cap, "{limit:?} by {row:?}");
            }
        }
    }

    /// Everything that is counted, against what it counts.
    pub(in crate::engine::tests) fn check(&self) {
        let mut used: BTreeMap<LimitKey, i64> = BTreeMap::new();
        let mut counted: BTreeMap<RunPk, Counted> = BTreeMap::new();
        for row in self.tis.values() {
            self.check_row(row);
            for (key, n) in self.slots(row) {
                *used.entry(key).or_default() += n;
            }
            if !row.is_visible() || row.state == TaskState::Removed {
                continue;
            }
            let bad = matches!(row.state, TaskState::Failed | TaskState::UpstreamFailed);
            let is_leaf = self.decides_outcome(row);
            let of_run = counted.entry(row.run).or_default();
            of_run.unfinished += i32::from(!row.state.is_finished());
            of_run.ready += i32::from(row.state == TaskState::Scheduled);
            of_run.active += i32::from(row.occupies);
            of_run.failed_leaves += i32::from(bad && is_leaf);
        }
        for run in self.runs.values() {
            self.check_run(run, &counted.remove(&run.pk).unwrap_or_default());
            if run.state == RunState::Running {
                *used.entry(run.limit()).or_default() += 1;
            }
        }
        for limit in self.limits.values() {
            let truth = used.remove(&limit.key).unwrap_or(0);
            assert_eq!(limit.used, truth, "{:?}", limit.key);
        }
        assert!(used.is_empty(), "limits without a row are used: {used:?}");
    }

    fn check_run(&self, run: &RunRow, truth: &Counted) {
        let counters = Counted {
            unfinished: run.unfinished_tasks,
            ready: run.ready_tasks,
            active: run.active_tasks,
            failed_leaves: run.failed_leaves,
        };
        assert_eq!(counters, *truth, "run {}", run.pk);
        assert!(run.active_tasks <= run.max_active_tasks);
        match run.state {
            RunState::Running => assert!(truth.unfinished > 0, "{run:?}"),
            // One that was queued anew has what it has to do.
            RunState::Queued => assert!(truth.unfinished == 0 || self.amended, "{run:?}"),
            _ => assert_eq!(truth.unfinished, 0, "{run:?}"),
        }
        assert_eq!(run.state.is_finished(), run.ended_at.is_some(), "{run:?}");
        let stopped = run.stop_reason.is_some() || run.clean_up.is_some();
        let fails = truth.failed_leaves > 0 || stopped;
        assert_eq!(
            run.state == RunState::Failed,
            run.state.is_finished() && fails,
            "{run:?}"
        );
        assert!(!run.cancelled || stopped);
        if run.stop_reason.is_some() && run.clean_up.is_none() {
            // What is not out has ended.
            assert_eq!(truth.unfinished, truth.active, "{run:?}");
        }
    }

    /// What a row in a mapped group hears of another member: its own index, or the node, which has not ended once it is split.
    fn mate(&self, row: &TiRow, of: TaskIdx) -> Vec<&TiRow> {
        let rows = self.by_task[&(row.run, of)].iter().map(|ti| &self.tis[ti]);
        let own = rows.clone().find(|mate| mate.map_index == row.map_index);
        own.or_else(|| rows.clone().find(|mate| mate.is_node()))
            .into_iter()
            .collect()
    }

    fn check_row(&self, row: &TiRow) {
        assert_eq!(row.occupies, row.state.is_dispatched(), "{row:?}");
        assert_eq!(row.claim_by.is_some(), row.state.is_dispatched(), "{row:?}");
        match row.state {
            TaskState::UpForRetry | TaskState::UpForReschedule => assert!(row.next_at.is_some()),
            // Something else may wake them.
            TaskState::Deferred | TaskState::AwaitingInput => {}
            _ if self.gives_up(row) => {}
            TaskState::None if row.next_at.is_some() => {
                assert!(row.is_undecided(), "{row:?}");
                assert!(!self.plan(row.run).past_of(row.task_idx).is_empty());
            }
            _ => assert_eq!(row.next_at, None, "{row:?}"),
        }
        assert_eq!(row.fence.0 > 0, row.attempt.is_some(), "{row:?}");
        assert!(i64::from(row.try_number) <= row.fence.0, "{row:?}");
        assert!(row.try_number <= row.max_tries + 1, "{row:?}");
        assert!(
            !row.state.is_finished() || row.ended_at.is_some(),
            "{row:?}"
        );
        if row.state == TaskState::Queued {
            // Nothing is left of the attempt before.
            let left = (row.started_at, row.ended_at, row.exit_code, &row.reason);
            assert_eq!(left, (None, None, None, &None), "{row:?}");
        }
        let has_worker = (
            row.worker.is_some(),
            row.hostname.is_some(),
            row.pid.is_some(),
        );
        match row.state {
            TaskState::Queued => assert_eq!(has_worker, (false, false, false), "{row:?}"),
            TaskState::Running => assert_eq!(has_worker, (true, true, true), "{row:?}"),
            _ => {}
        }
        assert!(row.state != TaskState::Running || row.started_at.is_some());
        assert!(row.then.is_none() || row.state == TaskState::Restarting);
        if row.expanded_len.is_some() {
            let mapped = self.by_task[&(row.run, row.task_idx)].len() as i32 - 1;
            let of_task = self.instances(row.run, row.task_idx);
            let there = of_task.iter().filter(|row| !row.is_node()).count() as i32;
            assert_eq!(row.expanded_len, Some(there), "of {mapped}: {row:?}");
        }
        let plan = self.plan(row.run);
        let is_split = |row: &TiRow| {
            let mut rows = self.by_task[&(row.run, row.task_idx)].iter();
            let node = rows.find(|ti| self.tis[ti].is_node()).unwrap();
            !self.tis[node].is_undecided()
        };
        let waits_by_itself = !row.is_node()
            && row.state == TaskState::None
            && plan.is_in_group(row.task_idx)
            && is_split(row);
        if !row.is_undecided() && !waits_by_itself {
            return;
        }
        // The counters of what still waits are exact.
        let instances = |tasks: &[TaskIdx]| -> Vec<&TiRow> {
            let heard = |up: &TaskIdx| match plan.share_map(row.task_idx, *up) {
                true => self.mate(row, *up),
                false => self.instances(row.run, *up),
            };
            tasks.iter().flat_map(heard).collect()
        };
        let mut upstreams = instances(plan.graph.upstream(row.task_idx));
        let indirect = instances(plan.graph.indirect_upstream(row.task_idx));
        let task = plan.task(row.task_idx).unwrap();
        let is_setup = |up: &&&TiRow| plan.task(up.task_idx).unwrap().setup;
        let setups: Vec<&TiRow> = match task.trigger_rule {
            TriggerRule::AllDoneSetupSuccess => {
                upstreams.iter().filter(is_setup).copied().collect()
            }
            _ => indirect.clone(),
        };
        if task.teardown.is_some() {
            upstreams.extend(indirect);
        }
        let of_setups = |state| setups.iter().filter(|up| up.state == state).count() as i32;
        let of_row = (
            row.counters.setups,
            row.counters.setup_success,
            row.counters.setup_skipped,
        );
        let truth = (
            setups.len() as i32,
            of_setups(TaskState::Success),
            of_setups(TaskState::Skipped),
        );
        assert_eq!(of_row, truth, "setups of {row:?}");
        let count = |state| upstreams.iter().filter(|up| up.state == state).count() as i32;
        assert_eq!(row.counters.total, upstreams.len() as i32);
        assert_eq!(row.counters.success, count(TaskState::Success));
        assert_eq!(row.counters.failed, count(TaskState::Failed));
        assert_eq!(
            row.counters.upstream_failed,
            count(TaskState::UpstreamFailed)
        );
        assert_eq!(row.counters.skipped, count(TaskState::Skipped));
    }

    /// Whether its task has a time after which it is given up if no worker takes it.
    fn gives_up(&self, row: &TiRow) -> bool {
        let task = self.plan(row.run).task(row.task_idx);
        task.is_some_and(|task| task.queued_timeout.is_some())
    }

    /// Whether the row's failure fails its run: nothing depends on its task but teardowns whose failure does not, and it is
    /// none of these.
    fn decides_outcome(&self, row: &TiRow) -> bool {
        let plan = self.plan(row.run);
        let counts = |idx: TaskIdx| {
            let teardown = plan.task(idx).unwrap().teardown.as_ref();
            teardown.is_none_or(|teardown| teardown.on_failure_fail_dagrun)
        };
        let below = |idx: TaskIdx| plan.graph.downstream(idx);
        let decides = |idx: TaskIdx| counts(idx) && !below(idx).iter().any(|down| counts(*down));
        let all = || 0..plan.spec.tasks.len() as TaskIdx;
        match all().any(decides) {
            true => decides(row.task_idx),
            false => below(row.task_idx).is_empty(),
        }
    }

    /// What a row holds of each limit.
    fn slots(&self, row: &TiRow) -> Vec<(LimitKey, i64)> {
        let mut slots = Vec::new();
        if row.state == TaskState::Queued {
            slots.push((LimitKey::queue(&row.queue), 1));
        }
        if row.occupies {
            slots.extend(self.wants(row));
        }
        slots
    }

    /// What a row holds of each limit from its dispatch to its end, its queue's room aside.
    fn wants(&self, row: &TiRow) -> Vec<(LimitKey, i64)> {
        let spec = &self.plan(row.run).spec;
        let task = spec.task(row.task_idx).unwrap();
        let task_id = || row.task_id.clone();
        let mut slots = vec![(LimitKey::pool(&row.pool), i64::from(row.pool_slots))];
        if task.max_active_tis_per_dagrun.is_some() {
            let (run, task_id) = (row.run, task_id());
            slots.push((LimitKey::TaskInRun { run, task_id }, 1));
        }
        if task.max_active_tis_per_dag.is_some() {
            let (dag_id, task_id) = (spec.dag_id.clone(), task_id());
            slots.push((LimitKey::Task { dag_id, task_id }, 1));
        }
        slots
    }

    /// Whether every limit has room for a ready instance.
    pub(in crate::engine::tests) fn fits(&self, row: &TiRow) -> bool {
        let run = &self.runs[&row.run];
        let mut wants = self.wants(row);
        wants.push((LimitKey::queue(&row.queue), 1));
        run.active_tasks < run.max_active_tasks
            && wants.iter().all(|(key, n)| {
                let limit = self.limits.get(key);
                limit.is_some_and(|limit| !limit.paused && limit.used + n <= limit.cap)
            })
    }
}
