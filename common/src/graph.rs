//! The dependency graph of one DAG version, as the scheduler reads it: who is directly upstream and downstream of whom,
//! by position. Built once per version; every query on the hot path is an index into a slice.

use crate::{
    ids::TaskIdx,
    spec::{DagSpec, WeightRule},
};
use std::collections::HashMap;

mod algo;
mod setups;

pub use algo::{find_cycle, topological_order};

/// Direct edges both ways, roots, leaves and effective priorities of a DAG's tasks.
#[derive(Debug, Clone)]
pub struct Graph {
    upstream: Adjacency,
    downstream: Adjacency,
    /// From a setup to the tasks that need it without depending on it, from a task between a setup and its teardown to that
    /// teardown; empty in DAGs without setups.
    indirect_downstream: Adjacency,
    indirect_upstream: Adjacency,
    roots: Vec<TaskIdx>,
    leaves: Vec<TaskIdx>,
    priorities: Vec<i32>,
}

impl Graph {
    /// The graph of a specification. A dependency on a task that does not exist is left out (the parser lets none pass).
    pub fn of(spec: &DagSpec) -> Self {
        let position: HashMap<&str, TaskIdx> = (0..)
            .zip(&spec.tasks)
            .map(|(i, t)| (t.task_id.as_str(), i))
            .collect();
        let mut edges: Vec<(TaskIdx, TaskIdx)> = Vec::new();
        for (to, task) in (0..).zip(&spec.tasks) {
            edges.extend(
                task.depends_on
                    .iter()
                    .filter_map(|up| position.get(up.as_str()))
                    .map(|from| (*from, to)),
            );
        }
        edges.sort_unstable();
        edges.dedup();
        let n = spec.tasks.len();
        let downstream = Adjacency::new(n, edges.iter().copied());
        let upstream = Adjacency::new(n, edges.iter().map(|(from, to)| (*to, *from)));
        let without = |adjacency: &Adjacency| {
            (0..)
                .take(n)
                .filter(|i| adjacency.of(*i).is_empty())
                .collect()
        };
        let mut graph = Self {
            roots: without(&upstream),
            leaves: without(&downstream),
            upstream,
            downstream,
            indirect_downstream: Adjacency::NONE,
            indirect_upstream: Adjacency::NONE,
            priorities: Vec::new(),
        };
        let indirect = graph.indirect_edges(spec);
        if !indirect.is_empty() {
            graph.indirect_downstream = Adjacency::new(n, indirect.iter().copied());
            graph.indirect_upstream =
                Adjacency::new(n, indirect.iter().map(|(from, to)| (*to, *from)));
        }
        graph.priorities = graph.effective_priorities(spec);
        graph
    }

    /// Number of tasks.
    pub fn len(&self) -> usize {
        self.priorities.len()
    }

    pub fn is_empty(&self) -> bool {
        self.priorities.is_empty()
    }

    /// Direct upstreams of a task, ascending; none for a position that does not exist.
    pub fn upstream(&self, task: TaskIdx) -> &[TaskIdx] {
        self.upstream.of(task)
    }

    /// Direct downstreams of a task, ascending; none for a position that does not exist.
    pub fn downstream(&self, task: TaskIdx) -> &[TaskIdx] {
        self.downstream.of(task)
    }

    /// Tasks that hear of a task's ending without depending on it directly, ascending: because it is a setup that they need,
    /// or because they are the teardowns that wait for all that their setups were made for.
    pub fn indirect_downstream(&self, task: TaskIdx) -> &[TaskIdx] {
        self.indirect_downstream.of(task)
    }

    /// Tasks whose endings a task hears of without depending on them directly: the setups that it needs or, of a teardown,
    /// the tasks between its setups and itself. Ascending.
    pub fn indirect_upstream(&self, task: TaskIdx) -> &[TaskIdx] {
        self.indirect_upstream.of(task)
    }

    /// All tasks that hear of a task's ending.
    pub fn listeners(&self, task: TaskIdx) -> impl Iterator<Item = TaskIdx> + '_ {
        let direct = self.downstream(task).iter();
        direct.chain(self.indirect_downstream(task)).copied()
    }

    /// Tasks without upstreams, ascending.
    pub fn roots(&self) -> &[TaskIdx] {
        &self.roots
    }

    /// Tasks without downstreams, ascending: their endings decide the run's.
    pub fn leaves(&self) -> &[TaskIdx] {
        &self.leaves
    }

    /// A task's priority by its `weight_rule`; 1 for a position that does not exist.
    pub fn priority(&self, task: TaskIdx) -> i32 {
        usize::try_from(task)
            .ok()
            .and_then(|i| self.priorities.get(i))
            .copied()
            .unwrap_or(1)
    }

    /// Whether `task` has `upstream` among its direct or indirect upstreams.
    pub fn depends_on(&self, task: TaskIdx, upstream: TaskIdx) -> bool {
        // Positions are topological: nothing upstream of `task` stands behind it.
        upstream < task && self.all_upstream(task).binary_search(&upstream).is_ok()
    }

    /// Direct and indirect upstreams, ascending.
    pub fn all_upstream(&self, task: TaskIdx) -> Vec<TaskIdx> {
        self.upstream.reachable(task)
    }

    /// Direct and indirect downstreams, ascending.
    pub fn all_downstream(&self, task: TaskIdx) -> Vec<TaskIdx> {
        self.downstream.reachable(task)
    }

    fn effective_priorities(&self, spec: &DagSpec) -> Vec<i32> {
        let weights: Vec<i64> = spec
            .tasks
            .iter()
            .map(|t| i64::from(t.priority_weight))
            .collect();
        let uses = |rule| spec.tasks.iter().any(|t| t.weight_rule == rule);
        let sums = |needed: bool, adjacency: &Adjacency| {
            if needed {
                adjacency.sums(&weights)
            } else {
                Vec::new()
            }
        };
        let downstream = sums(uses(WeightRule::Downstream), &self.downstream);
        let upstream = sums(uses(WeightRule::Upstream), &self.upstream);
        let weight = |(i, task): (usize, &crate::spec::TaskSpec)| {
            let total = match task.weight_rule {
                WeightRule::Downstream => downstream[i],
                WeightRule::Upstream => upstream[i],
                WeightRule::Absolute => weights[i],
            };
            total.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
        };
        spec.tasks.iter().enumerate().map(weight).collect()
    }
}

/// Lists of task positions, packed: the list of task `i` is `items[bounds[i]..bounds[i + 1]]`.
#[derive(Debug, Clone)]
struct Adjacency {
    bounds: Vec<u32>,
    items: Vec<TaskIdx>,
}

impl Adjacency {
    const NONE: Self = Self {
        bounds: Vec::new(),
        items: Vec::new(),
    };

    fn new(n: usize, edges: impl Iterator<Item = (TaskIdx, TaskIdx)>) -> Self {
        let mut edges: Vec<_> = edges.collect();
        edges.sort_unstable();
        let mut bounds = vec![0; n + 1];
        for (from, _) in &edges {
            bounds[*from as usize + 1] += 1;
        }
        for i in 0..n {
            bounds[i + 1] += bounds[i];
        }
        Self {
            bounds,
            items: edges.into_iter().map(|(_, to)| to).collect(),
        }
    }

    fn of(&self, task: TaskIdx) -> &[TaskIdx] {
        let Some(i) = usize::try_from(task)
            .ok()
            .filter(|i| i + 1 < self.bounds.len())
        else {
            return &[];
        };
        &self.items[self.bounds[i] as usize..self.bounds[i + 1] as usize]
    }

    /// Everything that can be reached from a task, itself excluded, ascending.
    fn reachable(&self, task: TaskIdx) -> Vec<TaskIdx> {
        let mut seen = vec![false; self.bounds.len()];
        let mut stack = vec![task];
        let mut found = Vec::new();
        while let Some(at) = stack.pop() {
            for next in self.of(at) {
                if !std::mem::replace(&mut seen[*next as usize], true) {
                    found.push(*next);
                    stack.push(*next);
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// For each task its own weight plus that of everything reachable from it, each counted once.
    fn sums(&self, weights: &[i64]) -> Vec<i64> {
        let sum = |i: usize| {
            let task = TaskIdx::try_from(i).unwrap_or(TaskIdx::MAX);
            let direct = self.of(task);
            // Most tasks of wide DAGs have no further relatives: skip the search.
            if direct.iter().all(|next| self.of(*next).is_empty()) {
                return direct
                    .iter()
                    .map(|next| weights[*next as usize])
                    .sum::<i64>()
                    + weights[i];
            }
            self.reachable(task)
                .iter()
                .map(|next| weights[*next as usize])
                .sum::<i64>()
                + weights[i]
        };
        (0..weights.len()).map(sum).collect()
    }
}

#[cfg(test)]
mod tests;
