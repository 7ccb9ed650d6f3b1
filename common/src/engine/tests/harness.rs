//! A store of maps, with the same steps as `gristmill-store`'s transactions, that checks every counter and limit, and the
//! work done, against the truth after each of them.

use crate::{
    callback::NewCall,
    engine::{
        Command, ComposeError, Missing, Plan, WorkingSet, close, compose, decide_again, dispatch,
        dispatch_limits, render, settle, start_run, stop_rest, take_to_render,
    },
    ids::{RunPk, TaskIdx, TiPk, UNMAPPED, VersionPk},
    limit::{LimitKey, LimitRow},
    message::{Ending, Sealed, WorkMessage},
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

mod amend;
mod commands;
mod past;
mod truth;

pub(super) use commands::*;

pub(super) const RUN: RunPk = RunPk(1);

/// What one transaction asked for beside its writes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) stale: usize,
    pub(super) to_cancel: Vec<TiPk>,
    pub(super) ended_runs: Vec<RunPk>,
    pub(super) dispatched: Vec<TiPk>,
    /// Those of the dispatched whose message could not be made: they have failed for good.
    pub(super) undeliverable: Vec<TiPk>,
    /// Whether any run was written.
    pub(super) wrote_runs: bool,
    pub(super) work: Work,
}

/// What a transaction cost.
#[derive(Debug, Default, PartialEq, Clone)]
pub(super) struct Work {
    /// Times that nodes were asked for.
    pub(super) loads: usize,
    /// Nodes that were loaded for an ending above them.
    pub(super) nodes_loaded: usize,
    pub(super) rows_written: usize,
    pub(super) edges_counted: u64,
    /// Tasks of instances that came into being as ended: mapped `empty` ones.
    born_ended: Vec<(RunPk, TaskIdx)>,
}

pub(super) struct World {
    pub(super) now: DateTime<Utc>,
    /// Without an epoch nothing is dispatched.
    pub(super) epoch: Option<i64>,
    pub(super) plans: BTreeMap<RunPk, Arc<Plan>>,
    pub(super) runs: BTreeMap<RunPk, RunRow>,
    pub(super) tis: BTreeMap<TiPk, TiRow>,
    by_task: BTreeMap<(RunPk, TaskIdx), Vec<TiPk>>,
    pub(super) limits: BTreeMap<LimitKey, LimitRow>,
    pub(super) attempts: Vec<AttemptRow>,
    ended_attempts: HashSet<(TiPk, i32)>,
    pub(super) edges_counted: u64,
    /// Times that nodes were asked for.
    pub(super) loads: usize,
    work: Work,
    /// Off for worlds that are too large to be recounted after every transaction.
    pub(super) recount: bool,
    /// Something was cleared or marked: the work of an ending is not bounded by its edges any more.
    pub(super) amended: bool,
    /// Callbacks that were called, in order.
    pub(super) calls: Vec<NewCall>,
    xcoms: BTreeMap<RunPk, Pulled>,
}

/// A task: its JSON merged over `{"task_id": …, "noop": {}}`.
pub(super) fn task(id: &str, upstreams: &[&str], more: Value) -> Value {
    let mut task = json!({"task_id": id, "depends_on": upstreams});
    if let (Value::Object(task), Value::Object(more)) = (&mut task, more) {
        let kinds = ["empty", "branch", "short_circuit", "latest_only"];
        if !kinds.iter().any(|kind| more.contains_key(*kind)) {
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

    /// A started run of a DAG of these tasks, with more keys.
    pub(super) fn started_with(tasks: Vec<Value>, more: Value) -> Self {
        let mut world = Self::new_with(tasks, more);
        world.start();
        world
    }

    /// The same, not started.
    pub(super) fn new_with(tasks: Vec<Value>, more: Value) -> Self {
        let mut dag = json!({"dag_id": "d", "tasks": tasks});
        if let (Value::Object(dag), Value::Object(more)) = (&mut dag, more) {
            dag.extend(more);
        }
        Self::of(serde_json::from_value(dag).unwrap(), 1)
    }

    /// The same, started.
    pub(super) fn started(tasks: Vec<Value>) -> Self {
        let mut world = Self::new(tasks);
        world.start();
        world
    }

    /// Queued runs of one DAG, with keys from 1.
    pub(super) fn of(spec: DagSpec, runs: usize) -> Self {
        Self::of_dags(vec![(spec, runs)])
    }

    /// Queued runs of several DAGs, with keys from 1 in this order.
    pub(super) fn of_dags(dags: Vec<(DagSpec, usize)>) -> Self {
        let mut world = Self {
            now: DateTime::UNIX_EPOCH,
            epoch: Some(1),
            plans: BTreeMap::new(),
            runs: BTreeMap::new(),
            tis: BTreeMap::new(),
            by_task: BTreeMap::new(),
            limits: BTreeMap::new(),
            attempts: Vec::new(),
            ended_attempts: HashSet::new(),
            edges_counted: 0,
            loads: 0,
            work: Work::default(),
            recount: true,
            amended: false,
            calls: Vec::new(),
            xcoms: BTreeMap::new(),
        };
        world.pool("default_pool", 128);
        for (version, (spec, runs)) in (1..).zip(dags) {
            let plan = Arc::new(Plan::new(VersionPk(version), spec, None));
            let dag_id = &plan.spec.dag_id;
            let key = LimitKey::DagRuns {
                dag_id: dag_id.clone(),
            };
            world.limit(key, i64::from(plan.spec.max_active_runs));
            for task in &plan.spec.tasks {
                world.limit(LimitKey::queue(&task.queue), 1000);
                if let Some(cap) = task.max_active_tis_per_dag {
                    let key = LimitKey::Task {
                        dag_id: dag_id.clone(),
                        task_id: task.task_id.clone(),
                    };
                    world.limit(key, i64::from(cap));
                }
            }
            for _ in 0..runs {
                world.add_run(&plan);
            }
        }
        world
    }

    fn add_run(&mut self, plan: &Arc<Plan>) {
        let pk = RunPk(self.runs.len() as i64 + 1);
        for task in &plan.spec.tasks {
            if let Some(cap) = task.max_active_tis_per_dagrun {
                let task_id = task.task_id.clone();
                self.limit(LimitKey::TaskInRun { run: pk, task_id }, i64::from(cap));
            }
        }
        let row = RunRow {
            pk,
            dag_id: plan.spec.dag_id.clone(),
            run_id: format!("r{pk}"),
            version: plan.version,
            state: RunState::Queued,
            run_type: RunType::Manual,
            triggered_by: String::new(),
            backfill: None,
            logical_date: None,
            data_interval_start: None,
            data_interval_end: None,
            run_after: self.now,
            queued_at: self.now,
            started_at: None,
            ended_at: None,
            conf: Map::new(),
            params: Map::new(),
            note: None,
            cancelled: false,
            stop_reason: None,
            clean_up: None,
            max_active_tasks: plan.spec.max_active_tasks as i32,
            active_tasks: 0,
            ready_tasks: 0,
            unfinished_tasks: 0,
            failed_leaves: 0,
            concurrency_key: None,
        };
        self.runs.insert(pk, row);
        self.plans.insert(pk, plan.clone());
    }

    fn limit(&mut self, key: LimitKey, cap: i64) {
        let row = LimitRow {
            key: key.clone(),
            cap,
            used: 0,
            paused: false,
            rate: None,
            include_deferred: false,
        };
        self.limits.insert(key, row);
    }

    pub(super) fn pool(&mut self, name: &str, cap: i64) {
        self.limit(LimitKey::pool(name), cap);
    }

    pub(super) fn ensure_queue(&mut self, name: &str) {
        self.limit(LimitKey::queue(name), 1000);
    }

    // ---- Transactions

    /// One transaction that does what it likes with some instances of a run.
    pub(super) fn with_set(
        &mut self,
        run: RunPk,
        tis: &[TiPk],
        work: impl FnOnce(&mut WorkingSet),
    ) -> Outcome {
        let mut ws = self.working_set([run]);
        for ti in tis {
            ws.add_ti(self.tis[ti].clone());
        }
        work(&mut ws);
        self.finish(ws, &[])
    }

    fn working_set(&mut self, runs: impl IntoIterator<Item = RunPk>) -> WorkingSet {
        self.work = Work::default();
        let mut ws = WorkingSet::new(self.now);
        for run in runs {
            if let Some(row) = self.runs.get(&run) {
                ws.add_run(row.clone(), self.plans[&run].clone());
            }
        }
        ws
    }

    /// Starts queued runs as each DAG's `max_active_runs` has room, and dispatches nothing.
    pub(super) fn start(&mut self) -> Outcome {
        let mut room: BTreeMap<&str, i64> = BTreeMap::new();
        let mut queued: Vec<RunPk> = Vec::new();
        for run in self
            .runs
            .values()
            .filter(|run| run.state == RunState::Queued)
        {
            let key = LimitKey::DagRuns {
                dag_id: run.dag_id.clone(),
            };
            let free = self.limits[&key].free();
            let left = room.entry(&run.dag_id).or_insert(free);
            if *left > 0 {
                *left -= 1;
                queued.push(run.pk);
            }
        }
        let mut ws = self.working_set(queued.iter().copied());
        let is_anew = |run: &&RunPk| self.runs[*run].started_at.is_some();
        let anew: Vec<RunPk> = queued.iter().filter(is_anew).copied().collect();
        for &run in &queued {
            for row in self
                .tis
                .values()
                .filter(|row| row.run == run && row.is_node())
            {
                ws.add_ti(row.clone());
            }
            for row in start_run(&mut ws, run).unwrap() {
                ws.add_ti(TiRow {
                    pk: self.insert(&row),
                    ..row
                });
            }
        }
        // Keys are known now: the rows are in the set and in the store.
        for &run in &queued {
            if anew.contains(&run) {
                ws.recount(run, &self.tally(run));
            } else {
                ws.evaluate_roots(run);
            }
        }
        self.finish(ws, &[])
    }

    fn insert(&mut self, row: &TiRow) -> TiPk {
        let pk = TiPk(self.tis.len() as i64 + 1);
        self.tis.insert(pk, TiRow { pk, ..row.clone() });
        let of_task = self.by_task.entry((row.run, row.task_idx)).or_default();
        of_task.push(pk);
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

    fn applied(&mut self, commands: &[Command]) -> WorkingSet {
        let mut ws = self.working_set(commands.iter().map(Command::run));
        for ti in commands.iter().filter_map(Command::ti) {
            if let Some(row) = self.tis.get(&ti) {
                ws.add_ti(row.clone());
            }
        }
        for command in commands {
            if let Command::StopRun { run, .. } = command {
                self.load_unfinished(&mut ws, *run);
            }
            ws.apply(command);
        }
        ws
    }

    fn load_unfinished(&self, ws: &mut WorkingSet, run: RunPk) {
        for row in self.tis.values() {
            if row.run == run && row.is_visible() && !row.state.is_finished() {
                ws.add_ti(row.clone());
            }
        }
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
        let runs: Vec<RunPk> = self.runs.keys().copied().collect();
        let mut ws = self.working_set(runs);
        for row in self.tis.values() {
            ws.add_ti(row.clone());
        }
        let order = ws.ready();
        self.finish(ws, &order)
    }

    fn finish(&mut self, mut ws: WorkingSet, candidates: &[TiPk]) -> Outcome {
        self.settle(&mut ws);
        self.insert_expanded(&mut ws);
        let candidates = if self.epoch.is_some() {
            candidates
        } else {
            &[]
        };
        let keys = dispatch_limits(&ws, candidates);
        let limits: Vec<LimitRow> = keys
            .iter()
            .filter_map(|key| self.limits.get(key).cloned())
            .collect();
        let now = self.now;
        let epoch = self.epoch.unwrap_or_default();
        let mut attempt = self.attempts.len() as u128 * 1_000_000;
        let dispatched = dispatch(&mut ws, candidates, &limits, || {
            attempt += 1;
            DispatchTerms {
                now,
                claim_by: now + Duration::minutes(5),
                epoch,
                attempt: Uuid::from_u128(attempt),
            }
        });
        let undeliverable = self.compose(&mut ws, &dispatched);
        self.settle(&mut ws);
        self.insert_expanded(&mut ws);
        self.commit(ws, dispatched, undeliverable)
    }

    /// Makes the messages; an instance whose message cannot be made fails.
    fn compose(&mut self, ws: &mut WorkingSet, dispatched: &[TiPk]) -> Vec<TiPk> {
        let mut undeliverable = Vec::new();
        for &ti in dispatched {
            let row = ws.ti(ti).unwrap().clone();
            match compose(ws, ti, &[], Sealed::default(), String::new()) {
                Ok(out) => {
                    let message: WorkMessage = serde_json::from_str(&out.body).unwrap();
                    let told = (message.dispatch, message.try_number, message.max_tries);
                    assert_eq!(told, (row.dispatch(), row.try_number, row.max_tries));
                    assert_eq!(
                        (message.map_index, message.map),
                        (row.map_index, row.map_values)
                    );
                    assert_eq!((out.dispatch, &out.queue), (message.dispatch, &row.queue));
                }
                Err(ComposeError::TooLarge { .. }) => {
                    ws.apply(&finished(&row, Ending::FailedForGood));
                    undeliverable.push(ti);
                }
                Err(other) => panic!("{other}"),
            }
        }
        undeliverable
    }

    fn settle(&mut self, ws: &mut WorkingSet) {
        loop {
            for run in ws.to_stop.keys().copied().collect::<Vec<_>>() {
                self.load_unfinished(ws, run);
                stop_rest(ws, run);
            }
            let missing = settle(ws);
            if !missing.is_empty() {
                self.loads += 1;
                let groups = |run: RunPk| !self.plans[&run].spec.mapped_groups.is_empty();
                if !ws.run_keys().into_iter().any(groups) {
                    self.work.loads += 1;
                    self.work.nodes_loaded += missing.nodes.len();
                }
                for &(run, idx) in &missing.nodes {
                    let of_task = &self.by_task[&(run, idx)];
                    let node = of_task.iter().map(|ti| &self.tis[ti]);
                    let node = node.clone().find(|row| row.is_node()).unwrap();
                    assert!(!ws.has_node(run, idx), "asked for what is there");
                    ws.add_ti(node.clone());
                    assert!(ws.has_node(run, idx));
                }
                self.load_members(ws, &missing);
                continue;
            }
            if !ws.to_stop.is_empty() {
                continue;
            }
            if ws.to_render.is_empty() && ws.to_close.is_empty() && ws.to_look_back.is_empty() {
                return;
            }
            self.look_back(ws);
            self.keep_xcoms(ws);
            for (node, state, reason) in std::mem::take(&mut ws.to_close) {
                self.load_mapped(ws, node);
                close(ws, node, state, reason);
            }
            for node in take_to_render(ws) {
                if ws.ti(node).unwrap().expanded_len.is_some() {
                    self.load_mapped(ws, node);
                }
                let run = ws.ti(node).unwrap().run;
                let mut xcoms = self.xcoms.get(&run).cloned().unwrap_or_default();
                // A mapped task that left no value gives the empty list.
                for task in self.plans[&run]
                    .spec
                    .tasks
                    .iter()
                    .filter(|task| task.mapping().is_some())
                {
                    let key = (task.task_id.clone(), "return_value".to_owned());
                    xcoms.0.entry(key).or_default();
                }
                render(ws, node, Arc::new(xcoms));
            }
        }
    }

    fn load_mapped(&self, ws: &mut WorkingSet, node: TiPk) {
        let node = ws.ti(node).unwrap();
        for ti in &self.by_task[&(node.run, node.task_idx)] {
            ws.add_ti(self.tis[ti].clone());
        }
    }

    fn load_members(&mut self, ws: &mut WorkingSet, missing: &Missing) {
        if missing.instances.is_empty() && missing.tasks.is_empty() {
            return;
        }
        self.insert_expanded(ws);
        let single = missing.instances.iter();
        let single = single.map(|(run, idx, index)| ((*run, *idx), Some(*index)));
        let whole = missing.tasks.iter().map(|task| (*task, None));
        for ((run, idx), index) in single.chain(whole) {
            if ws.is_whole(run, idx) {
                continue;
            }
            for ti in self.by_task.get(&(run, idx)).into_iter().flatten() {
                let row = &self.tis[ti];
                if !row.is_node() && index.is_none_or(|index| index == row.map_index) {
                    ws.add_ti(row.clone());
                }
            }
        }
        ws.loaded(missing);
    }

    fn keep_xcoms(&mut self, ws: &mut WorkingSet) {
        for x in std::mem::take(&mut ws.xcoms) {
            let task_id = self.plans[&x.run].task(x.task_idx).unwrap().task_id.clone();
            if let XcomValue::Inline(value) = x.value {
                let of_run = &mut self.xcoms.entry(x.run).or_default().0;
                let of_task = of_run.entry((task_id, x.key)).or_default();
                let before = of_task.insert(x.map_index, value);
                assert!(before.is_none(), "only one attempt's XComs are accepted");
            }
        }
    }

    fn insert_expanded(&mut self, ws: &mut WorkingSet) {
        for row in std::mem::take(&mut ws.inserts) {
            if row.state.is_finished() {
                self.work.born_ended.push((row.run, row.task_idx));
            }
            let pk = self.insert(&row);
            ws.add_ti(TiRow { pk, ..row });
        }
    }

    fn commit(
        &mut self,
        mut ws: WorkingSet,
        dispatched: Vec<TiPk>,
        undeliverable: Vec<TiPk>,
    ) -> Outcome {
        self.keep_xcoms(&mut ws);
        self.work.edges_counted = ws.edges_counted;
        if !self.amended {
            self.check_work(&ws);
        }
        for change in ws.changes() {
            let row = self.tis.get_mut(&change.row.pk).unwrap();
            assert_eq!(
                (row.state, row.fence),
                (change.expected_state, change.expected_fence)
            );
            assert!(change.row.fence >= row.fence, "fences only rise");
            *row = change.row;
            self.work.rows_written += 1;
        }
        let changed_runs = ws.changed_runs();
        let wrote_runs = !changed_runs.is_empty();
        for run in changed_runs {
            self.runs.insert(run.pk, run);
        }
        for attempt in &ws.attempts {
            let is_news = self.ended_attempts.insert((attempt.ti, attempt.try_number));
            assert!(is_news, "an attempt ends once: {attempt:?}");
            self.attempts.push(attempt.clone());
        }
        for (key, n) in ws.spent.iter().filter(|(_, n)| **n != 0) {
            let limit = self.limits.get_mut(key).unwrap();
            limit.used += n;
            assert!(limit.used >= 0, "{key:?} by {n}");
            assert!(*n < 0 || limit.used <= limit.cap, "{limit:?} by {n}");
        }
        self.calls.append(&mut ws.calls);
        self.edges_counted += ws.edges_counted;
        if self.recount {
            self.check();
        }
        self.check_room(&dispatched);
        Outcome {
            stale: ws.stale,
            to_cancel: ws.to_cancel,
            ended_runs: ws.ended_runs,
            dispatched,
            undeliverable,
            wrote_runs,
            work: self.work.clone(),
        }
    }

    // ---- Looking

    pub(super) fn plan(&self, run: RunPk) -> &Plan {
        &self.plans[&run]
    }

    /// Visible instances of a task: its node, or what it was expanded into.
    pub(super) fn instances(&self, run: RunPk, idx: TaskIdx) -> Vec<&TiRow> {
        let of_task = self.by_task.get(&(run, idx));
        let rows = of_task.into_iter().flatten().map(|ti| &self.tis[ti]);
        rows.filter(|row| row.is_visible() && row.state != TaskState::Removed)
            .collect()
    }

    /// Visible instances in one of these states, of all runs.
    pub(super) fn in_state(&self, states: &[TaskState]) -> Vec<&TiRow> {
        let visible = self.tis.values().filter(|row| row.is_visible());
        visible.filter(|row| states.contains(&row.state)).collect()
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
        (0..self.plan(RUN).spec.tasks.len() as TaskIdx)
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

    /// What an unmapped task left under a key.
    pub(super) fn xcom(&self, task_id: &str, key: &str) -> Option<Value> {
        let of_run = self.xcoms.get(&RUN)?;
        of_run.pull(task_id, key, Some(UNMAPPED)).unwrap()
    }

    /// Puts an ended task back to `none`, as a clear does.
    pub(super) fn put_back(&mut self, task_id: &str) {
        let pk = self.ti(task_id).pk;
        let row = self.tis.get_mut(&pk).unwrap();
        if row.state == TaskState::Scheduled {
            self.runs.get_mut(&RUN).unwrap().ready_tasks -= 1;
        }
        if row.state.is_finished() {
            self.runs.get_mut(&RUN).unwrap().unfinished_tasks += 1;
        }
        (row.state, row.ended_at, row.reason) = (TaskState::None, None, None);
        row.scheduled_at = None;
    }

    /// Decides it anew, by its upstreams' earlier decisions and its rule.
    pub(super) fn decide_again(&mut self, task_id: &str, decisions: &[Value]) {
        let row = self.ti(task_id).clone();
        let mut ws = self.working_set([row.run]);
        ws.add_ti(row.clone());
        decide_again(&mut ws, row.pk, decisions);
        self.recount = false;
        self.finish(ws, &[]);
        self.recount = true;
    }

    pub(super) fn begin(&mut self, task_id: &str) -> Outcome {
        self.dispatch();
        let row = self.ti(task_id).clone();
        self.apply(&[started(&row)])
    }
}

/// Accepted XComs of a run, by task and key, then by `map_index`.
#[derive(Debug, Clone, Default)]
struct Pulled(HashMap<(String, String), BTreeMap<i32, Value>>);

impl XComSource for Pulled {
    /// A mapped task's is the list of its instances' that there are.
    fn pull(&self, task_id: &str, key: &str, at: Option<i32>) -> Result<Option<Value>, String> {
        let values = self.0.get(&(task_id.to_owned(), key.to_owned()));
        Ok(values.and_then(|values| match at {
            Some(index) => values.get(&index).cloned(),
            None if values.contains_key(&UNMAPPED) => values.get(&UNMAPPED).cloned(),
            None => Some(values.values().cloned().collect()),
        }))
    }
}
