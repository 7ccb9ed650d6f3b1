//! A store of maps, with the same steps as `gristmill-store`'s transactions, that checks every counter and limit against
//! the truth after each of them.

use crate::{
    engine::{
        Command, Plan, WorkingSet, dispatch, dispatch_limits, expand, expansion_values, settle,
        start_run,
    },
    ids::{Dispatch, Fence, RunPk, TaskIdx, TiPk, UNMAPPED, VersionPk},
    limit::{LimitKey, LimitRow},
    message::{Ending, Finished, Started, XcomOut},
    row::{AttemptRow, RunRow, RunType, TiRow, XcomValue},
    spec::DagSpec,
    state::{RunState, TaskState},
    template::XComSource,
    transition::DispatchTerms,
};
use chrono::{DateTime, Duration, Utc};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use uuid::Uuid;

pub(super) const RUN: RunPk = RunPk(1);

/// What one transaction asked for beside its writes.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) stale: usize,
    pub(super) to_cancel: Vec<TiPk>,
    pub(super) ended_runs: Vec<RunPk>,
    pub(super) dispatched: Vec<TiPk>,
    /// Whether any run was written.
    pub(super) wrote_runs: bool,
}

pub(super) struct World {
    pub(super) now: DateTime<Utc>,
    pub(super) plan: Arc<Plan>,
    pub(super) runs: BTreeMap<RunPk, RunRow>,
    pub(super) tis: BTreeMap<TiPk, TiRow>,
    pub(super) limits: BTreeMap<LimitKey, LimitRow>,
    pub(super) attempts: Vec<AttemptRow>,
    pub(super) edges_counted: u64,
    /// Times that nodes were asked for.
    pub(super) loads: usize,
    xcoms: HashMap<(String, String), Value>,
}

/// A task: its JSON merged over `{"task_id": …, "noop": {}}`.
pub(super) fn task(id: &str, upstreams: &[&str], more: Value) -> Value {
    let mut task = json!({"task_id": id, "depends_on": upstreams});
    if let (Value::Object(task), Value::Object(more)) = (&mut task, more) {
        if !more.contains_key("empty") {
            task.insert("noop".into(), json!({}));
        }
        task.extend(more);
    }
    task
}

impl World {
    /// One queued run of a DAG of these tasks.
    pub(super) fn new(tasks: Vec<Value>) -> Self {
        let spec: DagSpec = serde_json::from_value(json!({"dag_id": "d", "tasks": tasks})).unwrap();
        Self::of(spec, 1)
    }

    /// The same, started.
    pub(super) fn started(tasks: Vec<Value>) -> Self {
        let mut world = Self::new(tasks);
        world.start();
        world
    }

    pub(super) fn of(spec: DagSpec, runs: i64) -> Self {
        let mut limits = BTreeMap::new();
        let mut limit = |key: LimitKey, cap: i64| {
            let row = LimitRow {
                key: key.clone(),
                cap,
                used: 0,
                paused: false,
            };
            limits.insert(key, row);
        };
        limit(
            LimitKey::DagRuns {
                dag_id: spec.dag_id.clone(),
            },
            i64::from(spec.max_active_runs),
        );
        limit(LimitKey::pool("default_pool"), 128);
        for task in &spec.tasks {
            limit(LimitKey::queue(&task.queue), 1000);
            if let Some(cap) = task.max_active_tis_per_dag {
                let key = LimitKey::Task {
                    dag_id: spec.dag_id.clone(),
                    task_id: task.task_id.clone(),
                };
                limit(key, i64::from(cap));
            }
            if let Some(cap) = task.max_active_tis_per_dagrun {
                for run in 1..=runs {
                    let key = LimitKey::TaskInRun {
                        run: RunPk(run),
                        task_id: task.task_id.clone(),
                    };
                    limit(key, i64::from(cap));
                }
            }
        }
        let now = DateTime::UNIX_EPOCH;
        let row = |pk| RunRow {
            pk: RunPk(pk),
            dag_id: spec.dag_id.clone(),
            run_id: format!("r{pk}"),
            version: VersionPk(1),
            state: RunState::Queued,
            run_type: RunType::Manual,
            triggered_by: String::new(),
            logical_date: None,
            data_interval_start: None,
            data_interval_end: None,
            run_after: now,
            queued_at: now,
            started_at: None,
            ended_at: None,
            conf: Map::new(),
            params: Map::new(),
            note: None,
            cancelled: false,
            stop_reason: None,
            max_active_tasks: spec.max_active_tasks as i32,
            active_tasks: 0,
            ready_tasks: 0,
            unfinished_tasks: 0,
            failed_leaves: 0,
        };
        Self {
            now,
            runs: (1..=runs).map(|pk| (RunPk(pk), row(pk))).collect(),
            tis: BTreeMap::new(),
            limits,
            attempts: Vec::new(),
            edges_counted: 0,
            loads: 0,
            xcoms: HashMap::new(),
            plan: Arc::new(Plan::new(VersionPk(1), spec, None)),
        }
    }

    pub(super) fn pool(&mut self, name: &str, cap: i64) {
        let key = LimitKey::pool(name);
        let row = LimitRow {
            key: key.clone(),
            cap,
            used: 0,
            paused: false,
        };
        self.limits.insert(key, row);
    }

    fn working_set(&self, runs: impl IntoIterator<Item = RunPk>) -> WorkingSet {
        let mut ws = WorkingSet::new(self.now);
        for run in runs {
            if let Some(row) = self.runs.get(&run) {
                ws.add_run(row.clone(), self.plan.clone());
            }
        }
        ws
    }

    /// Starts queued runs as `max_active_runs` has room, and dispatches nothing.
    pub(super) fn start(&mut self) -> Outcome {
        let key = LimitKey::DagRuns {
            dag_id: self.plan.spec.dag_id.clone(),
        };
        let room = self.limits[&key].free();
        let queued: Vec<RunPk> = self
            .runs
            .values()
            .filter(|run| run.state == RunState::Queued)
            .map(|run| run.pk)
            .take(usize::try_from(room).unwrap())
            .collect();
        let mut ws = self.working_set(queued.iter().copied());
        for &run in &queued {
            for row in start_run(&mut ws, run).unwrap() {
                ws.add_ti(TiRow {
                    pk: self.insert(&row),
                    ..row
                });
            }
        }
        // Keys are known now: the rows are in the set and in the store.
        for &run in &queued {
            ws.evaluate_roots(run);
        }
        self.finish(ws, &[])
    }

    fn insert(&mut self, row: &TiRow) -> TiPk {
        let pk = TiPk(self.tis.len() as i64 + 1);
        self.tis.insert(pk, TiRow { pk, ..row.clone() });
        pk
    }

    /// One transaction of commands, without dispatching.
    pub(super) fn apply(&mut self, commands: &[Command]) -> Outcome {
        let ws = self.applied(commands);
        self.finish(ws, &[])
    }

    /// The same, dispatching what it makes ready.
    pub(super) fn apply_and_dispatch(&mut self, commands: &[Command]) -> Outcome {
        let mut ws = self.applied(commands);
        self.settle(&mut ws);
        self.insert_expanded(&mut ws);
        let ready = ws.ready();
        self.finish(ws, &ready)
    }

    fn applied(&self, commands: &[Command]) -> WorkingSet {
        let mut ws = self.working_set(commands.iter().map(Command::run));
        for ti in commands.iter().filter_map(Command::ti) {
            if let Some(row) = self.tis.get(&ti) {
                ws.add_ti(row.clone());
            }
        }
        for command in commands {
            if let Command::StopRun { run, .. } = command {
                for row in self.tis.values() {
                    if row.run == *run && row.is_visible() && !row.state.is_finished() {
                        ws.add_ti(row.clone());
                    }
                }
            }
            ws.apply(command);
        }
        ws
    }

    /// One transaction that dispatches what is ready, in this order.
    pub(super) fn dispatch_in(&mut self, order: &[TiPk]) -> Outcome {
        let runs: HashSet<RunPk> = order.iter().map(|ti| self.tis[ti].run).collect();
        let mut ws = self.working_set(runs);
        for ti in order {
            ws.add_ti(self.tis[ti].clone());
        }
        self.finish(ws, order)
    }

    /// Dispatches what is ready, best first.
    pub(super) fn dispatch(&mut self) -> Outcome {
        let mut ws = self.working_set(self.runs.keys().copied());
        for row in self.tis.values() {
            ws.add_ti(row.clone());
        }
        let order = ws.ready();
        self.finish(ws, &order)
    }

    fn finish(&mut self, mut ws: WorkingSet, candidates: &[TiPk]) -> Outcome {
        self.settle(&mut ws);
        self.insert_expanded(&mut ws);
        let keys = dispatch_limits(&ws, candidates);
        let limits: Vec<LimitRow> = keys
            .iter()
            .filter_map(|key| self.limits.get(key).cloned())
            .collect();
        let now = self.now;
        let dispatched = dispatch(&mut ws, candidates, &limits, || DispatchTerms {
            now,
            claim_by: now + Duration::minutes(5),
            epoch: 1,
            attempt: Uuid::now_v7(),
        });
        self.commit(ws, dispatched)
    }

    fn settle(&mut self, ws: &mut WorkingSet) {
        loop {
            let missing = settle(ws);
            if !missing.is_empty() {
                self.loads += 1;
                for (run, idx) in missing {
                    let node = self
                        .tis
                        .values()
                        .find(|row| row.run == run && row.task_idx == idx && row.is_node());
                    ws.add_ti(node.unwrap().clone());
                    assert!(ws.has_node(run, idx));
                }
                continue;
            }
            if ws.to_expand.is_empty() {
                return;
            }
            self.keep_xcoms(ws);
            for node in std::mem::take(&mut ws.to_expand) {
                let values = expansion_values(ws, node, Arc::new(Pulled(self.xcoms.clone())));
                expand(ws, node, values);
            }
        }
    }

    fn keep_xcoms(&mut self, ws: &mut WorkingSet) {
        for x in std::mem::take(&mut ws.xcoms) {
            let task_id = self.plan.task(x.task_idx).unwrap().task_id.clone();
            if let XcomValue::Inline(value) = x.value {
                self.xcoms.insert((task_id, x.key), value);
            }
        }
    }

    fn insert_expanded(&mut self, ws: &mut WorkingSet) {
        for row in std::mem::take(&mut ws.inserts) {
            let pk = self.insert(&row);
            ws.add_ti(TiRow { pk, ..row });
        }
    }

    fn commit(&mut self, mut ws: WorkingSet, dispatched: Vec<TiPk>) -> Outcome {
        self.keep_xcoms(&mut ws);
        for change in ws.changes() {
            let row = self.tis.get_mut(&change.row.pk).unwrap();
            assert_eq!(
                (row.state, row.fence),
                (change.expected_state, change.expected_fence)
            );
            assert!(change.row.fence >= row.fence, "fences only rise");
            *row = change.row;
        }
        let changed_runs = ws.changed_runs();
        let wrote_runs = !changed_runs.is_empty();
        for run in changed_runs {
            self.runs.insert(run.pk, run);
        }
        for attempt in &ws.attempts {
            let twice = self
                .attempts
                .iter()
                .any(|a| (a.ti, a.try_number) == (attempt.ti, attempt.try_number));
            assert!(!twice, "an attempt ends once: {attempt:?}");
            self.attempts.push(attempt.clone());
        }
        for (key, n) in ws.spent.iter().filter(|(_, n)| **n != 0) {
            let limit = self.limits.get_mut(key).unwrap();
            limit.used += n;
            assert!(limit.used >= 0, "{key:?} by {n}");
            assert!(*n < 0 || limit.used <= limit.cap, "{limit:?} by {n}");
        }
        self.edges_counted += ws.edges_counted;
        self.check();
        Outcome {
            stale: ws.stale,
            to_cancel: ws.to_cancel,
            ended_runs: ws.ended_runs,
            dispatched,
            wrote_runs,
        }
    }

    /// Recomputes everything that is counted.
    fn check(&self) {
        let mut used: BTreeMap<LimitKey, i64> = BTreeMap::new();
        for run in self.runs.values() {
            let rows: Vec<&TiRow> = self.tis.values().filter(|row| row.run == run.pk).collect();
            let count = |test: &dyn Fn(&TiRow) -> bool| {
                rows.iter()
                    .filter(|row| row.is_visible() && test(row))
                    .count() as i32
            };
            if run.state == RunState::Running {
                let key = LimitKey::DagRuns {
                    dag_id: run.dag_id.clone(),
                };
                *used.entry(key).or_default() += 1;
            }
            let bad =
                |row: &TiRow| matches!(row.state, TaskState::Failed | TaskState::UpstreamFailed);
            assert_eq!(
                run.unfinished_tasks,
                count(&|row| !row.state.is_finished()),
                "unfinished"
            );
            assert_eq!(
                run.ready_tasks,
                count(&|row| row.state == TaskState::Scheduled),
                "ready"
            );
            assert_eq!(run.active_tasks, count(&|row| row.occupies), "active");
            assert_eq!(
                run.failed_leaves,
                count(&|row| bad(row) && self.plan.is_leaf(row.task_idx)),
                "failed leaves"
            );
            assert!(run.active_tasks <= run.max_active_tasks);
            assert_eq!(
                run.state == RunState::Running,
                run.unfinished_tasks > 0,
                "{:?}",
                run.state
            );
            for row in rows {
                self.check_row(row);
                for (key, n) in self.slots(row) {
                    *used.entry(key).or_default() += n;
                }
            }
        }
        for limit in self.limits.values() {
            assert_eq!(
                limit.used,
                used.remove(&limit.key).unwrap_or(0),
                "{:?}",
                limit.key
            );
        }
        assert!(used.is_empty(), "limits without a row are used: {used:?}");
        assert!(self.edges_counted <= self.edges_at_most());
    }

    fn check_row(&self, row: &TiRow) {
        assert_eq!(row.occupies, row.state.is_dispatched(), "{row:?}");
        assert_eq!(row.state == TaskState::UpForRetry, row.next_at.is_some());
        assert!(
            !row.state.is_finished() || row.ended_at.is_some(),
            "{row:?}"
        );
        if row.state != TaskState::None || !row.is_visible() {
            return;
        }
        // The counters of a node that still waits are exact.
        let upstreams: Vec<&TiRow> = self
            .plan
            .graph
            .upstream(row.task_idx)
            .iter()
            .flat_map(|up| self.instances(row.run, *up))
            .collect();
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

    fn slots(&self, row: &TiRow) -> Vec<(LimitKey, i64)> {
        let mut slots = Vec::new();
        if row.state == TaskState::Queued {
            slots.push((LimitKey::queue(&row.queue), 1));
        }
        if row.occupies {
            let task = self.plan.task(row.task_idx).unwrap();
            slots.push((LimitKey::pool(&row.pool), i64::from(row.pool_slots)));
            let (dag_id, task_id) = (self.plan.spec.dag_id.clone(), row.task_id.clone());
            if task.max_active_tis_per_dagrun.is_some() {
                let task_id = task_id.clone();
                slots.push((
                    LimitKey::TaskInRun {
                        run: row.run,
                        task_id,
                    },
                    1,
                ));
            }
            if task.max_active_tis_per_dag.is_some() {
                slots.push((LimitKey::Task { dag_id, task_id }, 1));
            }
        }
        slots
    }

    /// Every instance's ending crosses each of its task's edges once.
    fn edges_at_most(&self) -> u64 {
        self.tis
            .values()
            .filter(|row| row.is_visible())
            .map(|row| self.plan.graph.downstream(row.task_idx).len() as u64)
            .sum()
    }

    // ---- Looking

    /// Visible instances of a task: its node, or what it was expanded into.
    pub(super) fn instances(&self, run: RunPk, idx: TaskIdx) -> Vec<&TiRow> {
        self.tis
            .values()
            .filter(|row| row.run == run && row.task_idx == idx && row.is_visible())
            .collect()
    }

    pub(super) fn find(&self, task_id: &str, map_index: i32) -> &TiRow {
        self.tis
            .values()
            .find(|row| row.run == RUN && row.task_id == task_id && row.map_index == map_index)
            .unwrap()
    }

    pub(super) fn ti(&self, task_id: &str) -> &TiRow {
        self.find(task_id, UNMAPPED)
    }

    pub(super) fn state(&self, task_id: &str) -> TaskState {
        self.ti(task_id).state
    }

    /// The states of all visible instances, in the order of tasks.
    pub(super) fn states(&self) -> Vec<&'static str> {
        (0..self.plan.spec.tasks.len() as TaskIdx)
            .flat_map(|idx| self.instances(RUN, idx))
            .map(|row| row.state.as_str())
            .collect()
    }

    pub(super) fn run(&self) -> &RunRow {
        &self.runs[&RUN]
    }

    pub(super) fn used(&self, key: &LimitKey) -> i64 {
        self.limits[key].used
    }

    // ---- Acting on one task by its name

    /// Dispatches everything, then ends this task.
    pub(super) fn end(&mut self, task_id: &str, ending: Ending) -> Outcome {
        self.end_at(task_id, UNMAPPED, ending)
    }

    pub(super) fn end_at(&mut self, task_id: &str, map_index: i32, ending: Ending) -> Outcome {
        self.dispatch();
        let row = self.find(task_id, map_index).clone();
        assert!(row.state.is_dispatched(), "{task_id} is {}", row.state);
        self.apply(&[finished(&row, ending)])
    }

    pub(super) fn begin(&mut self, task_id: &str) -> Outcome {
        self.dispatch();
        let row = self.ti(task_id).clone();
        self.apply(&[started(&row)])
    }
}

pub(super) fn started(row: &TiRow) -> Command {
    Command::Started(Started {
        run: row.run,
        dispatch: row.dispatch(),
        worker: "w".into(),
        hostname: "h".into(),
        pid: Some(1),
        at: DateTime::UNIX_EPOCH,
    })
}

pub(super) fn finished(row: &TiRow, ending: Ending) -> Command {
    finished_with(row, ending, Vec::new())
}

pub(super) fn finished_with(row: &TiRow, ending: Ending, xcoms: Vec<XcomOut>) -> Command {
    Command::Finished(Box::new(Finished {
        run: row.run,
        dispatch: row.dispatch(),
        worker: "w".into(),
        hostname: "h".into(),
        started_at: DateTime::UNIX_EPOCH,
        ended_at: DateTime::UNIX_EPOCH,
        ending,
        exit_code: None,
        pid: None,
        reason: None,
        xcoms,
    }))
}

pub(super) fn lost(row: &TiRow) -> Command {
    Command::Lost {
        run: row.run,
        dispatch: row.dispatch(),
        reason: "gone".into(),
    }
}

pub(super) fn requeued(row: &TiRow) -> Command {
    Command::Requeued {
        run: row.run,
        dispatch: row.dispatch(),
        reason: "drained".into(),
    }
}

pub(super) fn unclaimed(row: &TiRow) -> Command {
    Command::Unclaimed {
        run: row.run,
        dispatch: row.dispatch(),
        reason: "late".into(),
    }
}

pub(super) fn forgotten(row: &TiRow) -> Command {
    Command::Forgotten {
        run: row.run,
        dispatch: row.dispatch(),
        reason: "Redis was emptied".into(),
    }
}

pub(super) fn stop(reason: &str, cancelled: bool) -> Command {
    Command::StopRun {
        run: RUN,
        cancelled,
        reason: reason.into(),
    }
}

/// The dispatch before this row's.
pub(super) fn older(row: &TiRow) -> TiRow {
    TiRow {
        fence: Fence(row.fence.0 - 1),
        ..row.clone()
    }
}

pub(super) fn cancelled_unclaimed(run: RunPk, dispatch: Dispatch) -> Command {
    Command::CancelledUnclaimed { run, dispatch }
}

#[derive(Debug)]
struct Pulled(HashMap<(String, String), Value>);

impl XComSource for Pulled {
    fn pull(&self, task_id: &str, key: &str, _: Option<i32>) -> Result<Option<Value>, String> {
        Ok(self.0.get(&(task_id.to_owned(), key.to_owned())).cloned())
    }
}
