//! A DAG version, prepared for scheduling.

use crate::{
    graph::Graph,
    ids::{TaskIdx, VersionPk},
    spec::{DagSpec, Mapping, TaskKind, TaskSpec},
    template::{
        Refs, mapping_references, pulled_as_it_is, running_references, scheduling_references,
    },
    trigger_rule::{Counters, TriggerRule},
};
use std::collections::BTreeSet;

fn lists_of(spec: &DagSpec, graph: &Graph, idx: TaskIdx, task: &TaskSpec) -> Vec<TaskIdx> {
    let templates = spec
        .mapping(task)
        .into_iter()
        .flat_map(|mapping| mapping.templates());
    let pulled = templates.filter_map(pulled_as_it_is);
    let upstream = graph.upstream(idx);
    pulled
        .filter_map(|task_id| spec.idx(&task_id))
        .filter(|up| upstream.contains(up))
        .collect()
}

/// The tasks of the run before that a task waits for: itself, if it depends on its past, and with `wait_for_downstream` its direct
/// downstreams. Of a `data` task, whose plan is what waits, the whole of it.
fn past_of(spec: &DagSpec, graph: &Graph, idx: TaskIdx, task: &TaskSpec) -> Vec<TaskIdx> {
    if !task.looks_back() {
        return Vec::new();
    }
    let mut past = vec![idx];
    if let (TaskKind::Data(_), Some((id, _))) = (&task.kind, task.task_id.rsplit_once('.')) {
        let phases = ["part", "commit"].map(|phase| spec.idx(&format!("{id}.{phase}")));
        past.extend(phases.into_iter().flatten());
    }
    if task.wait_for_downstream {
        let last = past.last().copied().unwrap_or(idx);
        past.extend(graph.downstream(last));
    }
    past
}

/// The tasks that decide their run's outcome. As in Airflow: of a DAG of nothing but teardowns, its leaves.
fn deciding(spec: &DagSpec, graph: &Graph) -> Vec<bool> {
    let counts = |idx: TaskIdx| {
        let teardown = spec.task(idx).and_then(|task| task.teardown.as_ref());
        teardown.is_none_or(|teardown| teardown.on_failure_fail_dagrun)
    };
    let decides =
        |idx: TaskIdx| counts(idx) && !graph.downstream(idx).iter().any(|down| counts(*down));
    let mut deciding: Vec<bool> = (0..).take(spec.tasks.len()).map(decides).collect();
    if !deciding.contains(&true) {
        for leaf in graph.leaves() {
            deciding[*leaf as usize] = true;
        }
    }
    deciding
}

/// A version's specification with what is derived from it once: its graph and what its templates refer to.
#[derive(Debug)]
pub struct Plan {
    pub version: VersionPk,
    pub spec: DagSpec,
    pub graph: Graph,
    pub bundle: Option<String>,
    refs: Vec<Refs>,
    expand_refs: Vec<Refs>,
    /// Of each mapped task the upstreams whose values are its lists.
    lists_of: Vec<Vec<TaskIdx>>,
    mates: Vec<Vec<TaskIdx>>,
    leaf: Vec<bool>,
    /// Of each task those whose instances of the run before it waits for.
    past: Vec<Vec<TaskIdx>>,
    /// The tasks that some `past` names.
    looked_back_at: BTreeSet<TaskIdx>,
    to_send: Vec<TaskSpec>,
}

impl Plan {
    pub fn new(version: VersionPk, spec: DagSpec, bundle: Option<String>) -> Self {
        let graph = Graph::of(&spec);
        let refs = spec.tasks.iter().map(running_references).collect();
        let scheduling = |task: &TaskSpec| {
            let mut refs = scheduling_references(task);
            if let (Some(mapping), None) = (spec.mapping(task), task.mapping()) {
                refs.merge(mapping_references(mapping));
            }
            refs
        };
        let expand_refs = spec.tasks.iter().map(scheduling).collect();
        let mates = (0..).zip(&spec.tasks).map(|(idx, task)| {
            let above = graph
                .upstream(idx)
                .iter()
                .chain(graph.indirect_upstream(idx));
            let shares = |up: &&TaskIdx| spec.task(**up).is_some_and(|up| up.shares_map(task));
            above.filter(shares).copied().collect()
        });
        let mates = mates.collect();
        let without_lists = |task: &TaskSpec| TaskSpec {
            expand: None,
            expand_zip: None,
            expand_kwargs: None,
            map_index_template: None,
            deadlines: Vec::new(),
            on_success: Vec::new(),
            on_failure: Vec::new(),
            on_retry: Vec::new(),
            on_skipped: Vec::new(),
            ..task.clone()
        };
        let to_send = spec.tasks.iter().map(without_lists).collect();
        let leaf = deciding(&spec, &graph);
        let lists_of = (0..)
            .zip(&spec.tasks)
            .map(|(idx, task)| lists_of(&spec, &graph, idx, task))
            .collect();
        let past: Vec<Vec<TaskIdx>> = (0..)
            .zip(&spec.tasks)
            .map(|(idx, task)| past_of(&spec, &graph, idx, task))
            .collect();
        let looked_back_at = past.iter().flatten().copied().collect();
        Self {
            version,
            spec,
            graph,
            bundle,
            refs,
            expand_refs,
            lists_of,
            mates,
            leaf,
            past,
            looked_back_at,
            to_send,
        }
    }

    /// The task at a position; `None` for a position that is not of this version.
    pub fn task(&self, idx: TaskIdx) -> Option<&TaskSpec> {
        self.spec.task(idx)
    }

    /// The task as its instances' messages carry it: without the lists that it is mapped over, which would fill each one.
    pub fn task_to_send(&self, idx: TaskIdx) -> Option<&TaskSpec> {
        usize::try_from(idx).ok().and_then(|i| self.to_send.get(i))
    }

    /// What the templates refer to that a worker renders.
    pub fn refs(&self, idx: TaskIdx) -> Option<&Refs> {
        usize::try_from(idx).ok().and_then(|i| self.refs.get(i))
    }

    /// What the lists refer to that the task is mapped over.
    pub fn expand_refs(&self, idx: TaskIdx) -> Option<&Refs> {
        usize::try_from(idx)
            .ok()
            .and_then(|i| self.expand_refs.get(i))
    }

    /// How the task is mapped, by itself or with its group.
    pub fn mapping(&self, idx: TaskIdx) -> Option<Mapping<'_>> {
        self.spec.mapping(self.task(idx)?)
    }

    /// Tasks whose endings the task hears of and that are in the same mapped group: of each its instances wait for the one
    /// with their own index.
    pub fn mates_above(&self, idx: TaskIdx) -> &[TaskIdx] {
        let mates = usize::try_from(idx).ok().and_then(|i| self.mates.get(i));
        mates.map_or(&[], Vec::as_slice)
    }

    /// Whether a task is in a mapped group.
    pub fn is_in_group(&self, idx: TaskIdx) -> bool {
        self.task(idx)
            .is_some_and(|task| task.mapped_group.is_some())
    }

    /// Whether two tasks are in the same mapped group.
    pub fn share_map(&self, one: TaskIdx, other: TaskIdx) -> bool {
        let pair = self.task(one).zip(self.task(other));
        pair.is_some_and(|(one, other)| one.shares_map(other))
    }

    /// Whether its failure fails the run: no task depends on it, teardowns aside; and it is no teardown itself, unless it has
    /// `on_failure_fail_dagrun`.
    pub fn is_leaf(&self, idx: TaskIdx) -> bool {
        usize::try_from(idx)
            .ok()
            .and_then(|i| self.leaf.get(i))
            .copied()
            .unwrap_or(false)
    }

    /// The tasks whose instances of the run before a task waits for (`depends_on_past`); itself among them.
    pub fn past_of(&self, idx: TaskIdx) -> &[TaskIdx] {
        let past = usize::try_from(idx).ok().and_then(|i| self.past.get(i));
        past.map_or(&[], Vec::as_slice)
    }

    /// Whether the run after may wait for instances of this task.
    pub fn is_looked_back_at(&self, idx: TaskIdx) -> bool {
        self.looked_back_at.contains(&idx)
    }

    /// The tasks that depend on their past.
    pub fn looking_back(&self) -> impl Iterator<Item = TaskIdx> + '_ {
        (0..)
            .zip(&self.past)
            .filter_map(|(idx, past)| (!past.is_empty()).then_some(idx))
    }

    /// The counters of a task none of whose upstreams has ended.
    pub fn fresh_counters(&self, idx: TaskIdx) -> Counters {
        let direct = self.graph.upstream(idx);
        let indirect = self.graph.indirect_upstream(idx);
        let mut counters = Counters {
            total: direct.len() as i32,
            ..Counters::default()
        };
        match self.task(idx) {
            Some(task) if task.teardown.is_some() => counters.total += indirect.len() as i32,
            _ => counters.setups = indirect.len() as i32,
        }
        if self.counts_setups(idx) {
            let is_setup = |up: &&TaskIdx| self.task(**up).is_some_and(|task| task.setup);
            counters.setups = direct.iter().filter(is_setup).count() as i32;
        }
        counters
    }

    /// Whether a task's rule looks at which of its direct upstreams are setups.
    pub fn counts_setups(&self, idx: TaskIdx) -> bool {
        self.task(idx)
            .is_some_and(|task| task.trigger_rule == TriggerRule::AllDoneSetupSuccess)
    }

    /// Whether these counters skip the task because a setup was skipped that it needs.
    pub fn needs_skipped_setup(&self, idx: TaskIdx, counters: &Counters) -> bool {
        counters.setup_skipped > 0 && !self.counts_setups(idx)
    }

    /// The direct downstreams of a task that a name stands for: a task's id, or a group's, whole or as it is called from the
    /// group of `by` or one around that.
    pub fn downstreams_named(&self, idx: TaskIdx, by: &str, name: &str) -> Vec<TaskIdx> {
        let downstream = self.graph.downstream(idx).iter().copied();
        let downstream: Vec<(TaskIdx, &str)> = downstream
            .filter_map(|down| Some((down, self.task(down)?.task_id.as_str())))
            .collect();
        let named = |full: &str| -> Vec<TaskIdx> {
            let is_it = |id: &str| {
                id.strip_prefix(full)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            downstream
                .iter()
                .filter(|(_, id)| is_it(id))
                .map(|(down, _)| *down)
                .collect()
        };
        let mut scope = by;
        while let Some((outer, _)) = scope.rsplit_once('.') {
            let found = named(&format!("{outer}.{name}"));
            if !found.is_empty() {
                return found;
            }
            scope = outer;
        }
        named(name)
    }

    /// Whether a task is mapped over a list that is an upstream's value, as it is.
    pub fn is_list_of(&self, idx: TaskIdx, upstream: TaskIdx) -> bool {
        let lists = usize::try_from(idx).ok().and_then(|i| self.lists_of.get(i));
        lists.is_some_and(|lists| lists.contains(&upstream))
    }

    /// Whether any task is a teardown.
    pub fn has_teardowns(&self) -> bool {
        self.spec.tasks.iter().any(|task| task.teardown.is_some())
    }

    /// Tasks whose XComs `refs` of the task at `idx` may pull.
    pub fn pulled_tasks(&self, idx: TaskIdx, refs: &Refs) -> Vec<TaskIdx> {
        if refs.dynamic_pull {
            return self.graph.all_upstream(idx);
        }
        let mut tasks: Vec<TaskIdx> = refs
            .xcom_pulls
            .iter()
            .filter_map(|(task, _)| self.spec.idx(task))
            .collect();
        tasks.dedup();
        tasks
    }
}
