//! Which instances of a run a clear or a mark is about.

use super::Plan;
use crate::{graph::Graph, ids::TaskIdx, row::TiRow, state::TaskState};
use std::collections::{BTreeMap, BTreeSet};

/// Names instances of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Tasks by position, with a map index only that instance of it. Absent: all tasks.
    pub tasks: Option<Vec<(TaskIdx, Option<i32>)>>,
    /// And all tasks that they depend on, however indirectly.
    pub upstream: bool,
    /// And all tasks that depend on them.
    pub downstream: bool,
    /// And the setups that they need, with their teardowns.
    pub scope: bool,
    /// Only instances in one of these states; empty: in any.
    pub states: Vec<TaskState>,
}

/// What a task needs around it: the setups that it depends on, directly or not, and their teardowns.
fn scope(plan: &Plan, idx: TaskIdx) -> Vec<TaskIdx> {
    let is_teardown = |idx: TaskIdx| plan.task(idx).is_some_and(|task| task.teardown.is_some());
    let is_setup = |idx: TaskIdx| plan.task(idx).is_some_and(|task| task.setup);
    if is_setup(idx) || is_teardown(idx) {
        return Vec::new();
    }
    let upstream = plan.graph.upstream(idx).iter();
    let mut around: Vec<TaskIdx> = upstream
        .chain(plan.graph.indirect_upstream(idx))
        .copied()
        .filter(|up| is_setup(*up))
        .collect();
    let teardowns: Vec<TaskIdx> = around
        .iter()
        .flat_map(|setup| plan.graph.downstream(*setup))
        .copied()
        .filter(|down| is_teardown(*down))
        .collect();
    around.extend(teardowns);
    around
}

/// The selected instances of one task: all of them, or these map indexes.
pub type Picked = Option<BTreeSet<i32>>;

impl Selection {
    /// The tasks that it is about.
    pub fn tasks(&self, plan: &Plan) -> BTreeMap<TaskIdx, Picked> {
        let Some(named) = &self.tasks else {
            return (0..plan.spec.tasks.len() as TaskIdx)
                .map(|idx| (idx, None))
                .collect();
        };
        let mut picked = BTreeMap::new();
        for (idx, map_index) in named {
            add(&mut picked, *idx, *map_index);
            if self.upstream {
                spread(plan, (*idx, *map_index), Graph::upstream, &mut picked);
            }
            if self.downstream {
                spread(plan, (*idx, *map_index), Graph::downstream, &mut picked);
            }
        }
        if self.scope {
            let scopes: Vec<TaskIdx> = picked.keys().flat_map(|idx| scope(plan, *idx)).collect();
            picked.extend(scopes.into_iter().map(|idx| (idx, None)));
        }
        picked
    }

    /// Whether it is about this instance of one of its tasks.
    pub fn picks(&self, picked: &BTreeMap<TaskIdx, Picked>, row: &TiRow) -> bool {
        row.is_visible()
            && row.state != TaskState::Removed
            && (self.states.is_empty() || self.states.contains(&row.state))
            && is_picked(picked, row)
    }

    /// What is below that which it is about, and not among it.
    pub fn below(&self, plan: &Plan) -> BTreeMap<TaskIdx, Picked> {
        let picked = self.tasks(plan);
        let mut below = BTreeMap::new();
        for (idx, indexes) in &picked {
            match indexes {
                None => spread(plan, (*idx, None), Graph::downstream, &mut below),
                Some(indexes) => {
                    for index in indexes {
                        spread(plan, (*idx, Some(*index)), Graph::downstream, &mut below);
                    }
                }
            }
        }
        below.retain(|idx, _| !picked.contains_key(idx));
        below
    }
}

/// Adds one instance of a task, or all.
fn add(picked: &mut BTreeMap<TaskIdx, Picked>, idx: TaskIdx, map_index: Option<i32>) -> bool {
    let of_task = picked.entry(idx).or_insert_with(|| Some(BTreeSet::new()));
    match (map_index, of_task.as_mut()) {
        (Some(index), Some(indexes)) => indexes.insert(index),
        (Some(_), None) => false,
        (None, None) => false,
        (None, Some(_)) => {
            *of_task = None;
            true
        }
    }
}

/// Adds all that an instance, or a whole task, leads to by way of `next`. Within a mapped group one instance leads to those of
/// its own index, and from there to whole tasks.
fn spread(
    plan: &Plan,
    from: (TaskIdx, Option<i32>),
    next: impl Fn(&Graph, TaskIdx) -> &[TaskIdx],
    picked: &mut BTreeMap<TaskIdx, Picked>,
) {
    let mut ways = vec![from];
    while let Some((idx, map_index)) = ways.pop() {
        for relative in next(&plan.graph, idx) {
            let index = map_index.filter(|_| plan.share_map(idx, *relative));
            if add(picked, *relative, index) {
                ways.push((*relative, index));
            }
        }
    }
}

/// Whether a row is one of those picked.
pub fn is_picked(picked: &BTreeMap<TaskIdx, Picked>, row: &TiRow) -> bool {
    picked.get(&row.task_idx).is_some_and(|of_task| {
        of_task
            .as_ref()
            .is_none_or(|indexes| indexes.contains(&row.map_index))
    })
}
