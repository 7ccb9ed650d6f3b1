//! The rows that one transaction works on, and what it decided about them.

use super::{Missing, Plan};
use crate::{
    callback::NewCall,
    ids::{Fence, RunPk, TaskIdx, TiPk, VersionPk},
    limit::LimitKey,
    row::{AttemptRow, RunRow, TiRow, XcomRow},
    state::TaskState,
};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// A task instance whose row changed, with the state and fence that the database must still show.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub row: TiRow,
    pub expected_state: TaskState,
    pub expected_fence: Fence,
}

#[derive(Debug)]
struct TrackedTi {
    row: TiRow,
    state: TaskState,
    fence: Fence,
    dirty: bool,
}

#[derive(Debug)]
struct TrackedRun {
    row: RunRow,
    dirty: bool,
}

/// An instance's ending that its downstreams have not been told of yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub run: RunPk,
    pub task_idx: TaskIdx,
    pub map_index: i32,
    pub state: TaskState,
}

/// A task that a decider skips.
#[derive(Debug, Clone)]
pub(super) struct Skip {
    pub run: RunPk,
    pub task_idx: TaskIdx,
    pub reason: String,
}

/// The rows loaded by a transaction, changed in memory until it writes them.
#[derive(Debug)]
pub struct WorkingSet {
    pub now: DateTime<Utc>,
    plans: HashMap<VersionPk, Arc<Plan>>,
    runs: BTreeMap<RunPk, TrackedRun>,
    tis: BTreeMap<TiPk, TrackedTi>,
    nodes: HashMap<(RunPk, TaskIdx), TiPk>,
    /// Instances of members of mapped groups.
    members: HashMap<(RunPk, TaskIdx, i32), TiPk>,
    /// Instances of such members that were looked for, and are not there.
    absent: HashSet<(RunPk, TaskIdx, i32)>,
    /// Such members all of whose instances are here, or are made here.
    whole: HashSet<(RunPk, TaskIdx)>,
    /// Members whose instances have to be here before another one is split like them.
    pub(super) wanted: Vec<(RunPk, TaskIdx)>,
    /// Nodes that wait for those.
    pub(super) again: Vec<TiPk>,
    pub(super) endings: VecDeque<Ended>,
    /// Downstream totals to raise: (run, mapped task, by how much).
    pub(super) widened: VecDeque<(RunPk, TaskIdx, i32)>,
    /// Tasks to skip, whatever their own rules say.
    pub(super) skips: VecDeque<Skip>,
    /// Nodes whose list will never be there: how its producer ended.
    pub(super) no_list: HashMap<TiPk, TaskState>,
    /// Nodes that may run and wait for what a scheduler renders: lists of mapped tasks, and what deciders decide by.
    pub to_render: Vec<TiPk>,
    /// Nodes that may run once the run before is looked at (`depends_on_past`).
    pub to_look_back: Vec<TiPk>,
    /// Those for which it was, and nothing stands in their way.
    pub(super) past_is_good: HashSet<TiPk>,
    /// Runs in which something ended that the runs after them may wait for.
    pub followed: BTreeSet<RunPk>,
    /// Nodes of tasks that were expanded before and cannot run any more, with what their waiting instances end in and why.
    pub to_close: Vec<(TiPk, TaskState, Option<String>)>,
    /// Instances whose halted dispatch is over, and that wait anew or are removed.
    pub(super) restarted: Vec<TiPk>,
    /// Instances that another expansion gave another queue or other map values.
    pub remade: HashSet<TiPk>,
    /// Rows of expanded instances to insert; their `pk` means nothing yet.
    pub inserts: Vec<TiRow>,
    pub attempts: Vec<AttemptRow>,
    pub xcoms: Vec<XcomRow>,
    /// Callbacks that are called.
    pub calls: Vec<NewCall>,
    /// Instances that a user marked while they were out: nobody is called for them.
    pub(super) marked: HashSet<TiPk>,
    /// What is spent (positive) and given back (negative) of each limit.
    pub spent: BTreeMap<LimitKey, i64>,
    /// Runs to go on stopping with [`stop_rest`](super::stop_rest), once their unfinished instances are loaded. True: what is
    /// out has to be told.
    pub to_stop: BTreeMap<RunPk, bool>,
    /// Dispatches of stopped runs that a worker may hold: they are to be cancelled there.
    pub to_cancel: Vec<TiPk>,
    /// Runs that ended.
    pub ended_runs: Vec<RunPk>,
    /// Instances were deferred: the scheduler's first look at them is due.
    pub waits_begun: bool,
    /// The updates of assets that made a run, where they are known: for templates.
    pub asset_events: HashMap<RunPk, Map<String, Value>>,
    /// Commands that came too late: their dispatch is over.
    pub stale: usize,
    /// Endings counted into a downstream's counters: the work done, for the tests of its bound.
    pub edges_counted: u64,
}

impl WorkingSet {
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            now,
            plans: HashMap::new(),
            runs: BTreeMap::new(),
            tis: BTreeMap::new(),
            nodes: HashMap::new(),
            members: HashMap::new(),
            absent: HashSet::new(),
            whole: HashSet::new(),
            wanted: Vec::new(),
            again: Vec::new(),
            endings: VecDeque::new(),
            widened: VecDeque::new(),
            skips: VecDeque::new(),
            no_list: HashMap::new(),
            to_render: Vec::new(),
            to_look_back: Vec::new(),
            past_is_good: HashSet::new(),
            followed: BTreeSet::new(),
            to_close: Vec::new(),
            restarted: Vec::new(),
            remade: HashSet::new(),
            inserts: Vec::new(),
            attempts: Vec::new(),
            xcoms: Vec::new(),
            calls: Vec::new(),
            marked: HashSet::new(),
            spent: BTreeMap::new(),
            to_stop: BTreeMap::new(),
            to_cancel: Vec::new(),
            ended_runs: Vec::new(),
            waits_begun: false,
            asset_events: HashMap::new(),
            stale: 0,
            edges_counted: 0,
        }
    }

    /// What templates see as `triggering_asset_events`.
    pub(super) fn events_of(&self, run: RunPk) -> Map<String, Value> {
        self.asset_events.get(&run).cloned().unwrap_or_default()
    }

    pub fn add_run(&mut self, row: RunRow, plan: Arc<Plan>) {
        self.plans.insert(plan.version, plan);
        self.runs.insert(row.pk, TrackedRun { row, dirty: false });
    }

    /// Adds a loaded row; one that is there already stays as it is.
    pub fn add_ti(&mut self, row: TiRow) {
        if row.is_node() {
            self.nodes.insert((row.run, row.task_idx), row.pk);
        } else if self.is_member(row.run, row.task_idx) {
            let key = (row.run, row.task_idx, row.map_index);
            self.members.insert(key, row.pk);
        }
        let (state, fence) = (row.state, row.fence);
        self.tis.entry(row.pk).or_insert(TrackedTi {
            row,
            state,
            fence,
            dirty: false,
        });
    }

    fn is_member(&self, run: RunPk, task_idx: TaskIdx) -> bool {
        let task = self.plan_of(run).and_then(|plan| plan.task(task_idx));
        task.is_some_and(|task| task.mapped_group.is_some())
    }

    /// What was asked for has been loaded, as far as it is there.
    pub fn loaded(&mut self, missing: &Missing) {
        for key in &missing.instances {
            if !self.members.contains_key(key) {
                self.absent.insert(*key);
            }
        }
        self.whole.extend(&missing.tasks);
    }

    /// All instances of a mapped group's member are here, or made here.
    pub fn is_whole(&self, run: RunPk, task_idx: TaskIdx) -> bool {
        self.whole.contains(&(run, task_idx))
    }

    pub(super) fn made_whole(&mut self, run: RunPk, task_idx: TaskIdx) {
        self.whole.insert((run, task_idx));
    }

    /// The instance of a mapped group's member, if it is here.
    pub(super) fn member(&self, run: RunPk, task_idx: TaskIdx, map_index: i32) -> Option<TiPk> {
        self.members.get(&(run, task_idx, map_index)).copied()
    }

    /// Whether it is known that there is such an instance, or that there is none.
    pub(super) fn knows_member(&self, run: RunPk, task_idx: TaskIdx, map_index: i32) -> bool {
        let key = (run, task_idx, map_index);
        self.members.contains_key(&key) || self.absent.contains(&key)
    }

    pub fn has_node(&self, run: RunPk, task_idx: TaskIdx) -> bool {
        self.nodes.contains_key(&(run, task_idx))
    }

    pub fn ti(&self, ti: TiPk) -> Option<&TiRow> {
        self.tis.get(&ti).map(|t| &t.row)
    }

    pub fn run(&self, run: RunPk) -> Option<&RunRow> {
        self.runs.get(&run).map(|r| &r.row)
    }

    pub fn run_keys(&self) -> Vec<RunPk> {
        self.runs.keys().copied().collect()
    }

    pub fn plan_of(&self, run: RunPk) -> Option<&Arc<Plan>> {
        self.run(run).and_then(|r| self.plans.get(&r.version))
    }

    /// All instances of this set.
    pub fn ti_keys(&self) -> Vec<TiPk> {
        self.tis.keys().copied().collect()
    }

    /// Pool and slots of each instance of this set that waits without a worker, if that has begun.
    pub fn waiting_slots(&self) -> Vec<(String, i64)> {
        self.tis
            .values()
            .map(|t| &t.row)
            .filter(|row| row.state.is_waiting() && row.try_goes_on())
            .map(|row| (row.pool.clone(), i64::from(row.pool_slots)))
            .collect()
    }

    /// Ready instances in this set, best first: by priority, then age.
    pub fn ready(&self) -> Vec<TiPk> {
        let mut ready: Vec<&TiRow> = self
            .tis
            .values()
            .map(|t| &t.row)
            .filter(|row| row.state == TaskState::Scheduled)
            .collect();
        ready.sort_by_key(|row| {
            (
                std::cmp::Reverse(row.priority_weight),
                row.scheduled_at,
                row.pk,
            )
        });
        ready.iter().map(|row| row.pk).collect()
    }

    /// Instances of a run in this set that have not ended.
    pub(super) fn unfinished_in(&self, run: RunPk) -> Vec<TiPk> {
        self.tis
            .values()
            .filter(|t| t.row.run == run && t.row.is_visible() && !t.row.state.is_finished())
            .map(|t| t.row.pk)
            .collect()
    }

    /// Mapped instances of a task in this set, by map index.
    pub(super) fn mapped(&self, run: RunPk, task_idx: TaskIdx) -> Vec<TiRow> {
        let mut rows: Vec<TiRow> = self
            .tis
            .values()
            .map(|t| &t.row)
            .filter(|row| row.run == run && row.task_idx == task_idx && !row.is_node())
            .cloned()
            .collect();
        rows.sort_by_key(|row| row.map_index);
        rows
    }

    pub(super) fn node(&self, run: RunPk, task_idx: TaskIdx) -> Option<TiPk> {
        self.nodes.get(&(run, task_idx)).copied()
    }

    pub(super) fn ti_mut(&mut self, ti: TiPk) -> Option<&mut TiRow> {
        self.tis.get_mut(&ti).map(|t| {
            t.dirty = true;
            &mut t.row
        })
    }

    /// A run whose note is to be written.
    pub fn run_for_writing(&mut self, run: RunPk) -> Option<&mut RunRow> {
        self.run_mut(run)
    }

    pub(super) fn run_mut(&mut self, run: RunPk) -> Option<&mut RunRow> {
        self.runs.get_mut(&run).map(|r| {
            r.dirty = true;
            &mut r.row
        })
    }

    pub(super) fn spend(&mut self, key: LimitKey, n: i64) {
        *self.spent.entry(key).or_default() += n;
    }

    /// The changed instances, for writing.
    pub fn changes(&self) -> Vec<Change> {
        self.tis
            .values()
            .filter(|t| t.dirty)
            .map(|t| Change {
                row: t.row.clone(),
                expected_state: t.state,
                expected_fence: t.fence,
            })
            .collect()
    }

    /// The changed runs, for writing.
    pub fn changed_runs(&self) -> Vec<RunRow> {
        self.runs
            .values()
            .filter(|r| r.dirty)
            .map(|r| r.row.clone())
            .collect()
    }
}
