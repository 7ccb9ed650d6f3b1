//! A DAG version, prepared for scheduling.

use crate::{
    graph::Graph,
    ids::{TaskIdx, VersionPk},
    spec::{DagSpec, TaskSpec},
    template::{Refs, running_references, scheduling_references},
};

/// A version's specification with what is derived from it once: its graph and what its templates refer to.
#[derive(Debug)]
pub struct Plan {
    pub version: VersionPk,
    pub spec: DagSpec,
    pub graph: Graph,
    pub bundle: Option<String>,
    refs: Vec<Refs>,
    expand_refs: Vec<Refs>,
    leaf: Vec<bool>,
    to_send: Vec<TaskSpec>,
}

impl Plan {
    pub fn new(version: VersionPk, spec: DagSpec, bundle: Option<String>) -> Self {
        let graph = Graph::of(&spec);
        let refs = spec.tasks.iter().map(running_references).collect();
        let expand_refs = spec.tasks.iter().map(scheduling_references).collect();
        let without_lists = |task: &TaskSpec| TaskSpec {
            expand: None,
            ..task.clone()
        };
        let to_send = spec.tasks.iter().map(without_lists).collect();
        let mut leaf = vec![false; spec.tasks.len()];
        for &idx in graph.leaves() {
            leaf[idx as usize] = true;
        }
        Self {
            version,
            spec,
            graph,
            bundle,
            refs,
            expand_refs,
            leaf,
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

    /// Whether no task depends on it: leaves decide a run's outcome.
    pub fn is_leaf(&self, idx: TaskIdx) -> bool {
        usize::try_from(idx)
            .ok()
            .and_then(|i| self.leaf.get(i))
            .copied()
            .unwrap_or(false)
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
