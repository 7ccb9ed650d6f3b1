//! Which instances of a run a clear or a mark is about.

use super::Plan;
use crate::{ids::TaskIdx, row::TiRow, state::TaskState};
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
        let mut picked: BTreeMap<TaskIdx, Picked> = BTreeMap::new();
        for (idx, map_index) in named {
            let of_task = picked.entry(*idx).or_insert_with(|| Some(BTreeSet::new()));
            match (map_index, of_task.as_mut()) {
                (Some(index), Some(indexes)) => drop(indexes.insert(*index)),
                _ => *of_task = None,
            }
        }
        for (idx, _) in named {
            let mut relatives = Vec::new();
            if self.upstream {
                relatives.extend(plan.graph.all_upstream(*idx));
            }
            if self.downstream {
                relatives.extend(plan.graph.all_downstream(*idx));
            }
            picked.extend(relatives.into_iter().map(|relative| (relative, None)));
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
            && picked.get(&row.task_idx).is_some_and(|of_task| {
                of_task
                    .as_ref()
                    .is_none_or(|indexes| indexes.contains(&row.map_index))
            })
    }

    /// Tasks below those that it is about, and not among them.
    pub fn below(&self, plan: &Plan) -> BTreeSet<TaskIdx> {
        let picked = self.tasks(plan);
        picked
            .keys()
            .flat_map(|idx| plan.graph.all_downstream(*idx))
            .filter(|idx| !picked.contains_key(idx))
            .collect()
    }
}
