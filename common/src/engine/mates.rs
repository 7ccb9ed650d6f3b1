//! Members of mapped groups, which wait for each other index by index.

use super::{Plan, WorkingSet, expand::Items};
use crate::{
    ids::{RunPk, TaskIdx},
    row::TiRow,
    state::TaskState,
    trigger_rule::Counters,
};
use std::collections::HashSet;

/// The members of a mapped group that a node waits for index by index: those that are split into their instances.
pub(super) struct Mates(Vec<TaskIdx>);

impl Mates {
    pub(super) fn of(ws: &WorkingSet, plan: &Plan, node: &TiRow) -> Self {
        let above = plan.mates_above(node.task_idx).iter();
        Self(
            above
                .filter(|mate| is_split(ws, node.run, **mate))
                .copied()
                .collect(),
        )
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing else is left to wait for: then the node is split like them, and each instance waits for itself.
    pub(super) fn are_all_that_is_left(&self, node: &TiRow) -> bool {
        let counters = &node.counters;
        let setups_are_there = counters.setup_success >= counters.setups;
        !self.0.is_empty()
            && setups_are_there
            && counters.done() + self.0.len() as i32 >= counters.total
    }

    /// Notes those whose instances have to be loaded, or inserted, before a node is split like them. Answers whether none is.
    pub(super) fn are_here(&self, ws: &mut WorkingSet, run: RunPk) -> bool {
        let is_new = |ws: &WorkingSet, mate: TaskIdx| {
            let mut new = ws.inserts.iter().rev();
            new.any(|row| row.run == run && row.task_idx == mate)
        };
        let missing: Vec<(RunPk, TaskIdx)> = self
            .0
            .iter()
            .filter(|mate| !ws.is_whole(run, **mate) || is_new(ws, **mate))
            .map(|mate| (run, *mate))
            .collect();
        ws.wanted.extend(&missing);
        missing.is_empty()
    }

    /// The group's items; `None`: nobody has split the group yet.
    pub(super) fn items(&self, ws: &WorkingSet, run: RunPk) -> Option<Items> {
        let instances = ws.mapped(run, *self.0.first()?).into_iter();
        let is_there =
            |row: &TiRow| row.state != TaskState::Removed && row.then != Some(TaskState::Removed);
        Some(
            instances
                .filter(is_there)
                .map(|row| (row.map_index, row.map_values.unwrap_or_default()))
                .collect(),
        )
    }

    /// Endings in a run that will be told to instances that are made, or made anew, now.
    pub(super) fn untold(&self, ws: &WorkingSet, run: RunPk) -> HashSet<(TaskIdx, i32)> {
        if self.0.is_empty() {
            return HashSet::new();
        }
        let of_run = ws.endings.iter().filter(|e| e.run == run);
        of_run.map(|e| (e.task_idx, e.map_index)).collect()
    }

    /// What an instance has counted when it is made: what its node has, and its mates of the same index that ended before.
    /// Those among `untold` are still to be told.
    pub(super) fn counters(
        &self,
        ws: &WorkingSet,
        untold: &HashSet<(TaskIdx, i32)>,
        node: &TiRow,
        map_index: i32,
    ) -> Counters {
        let mut counters = node.counters;
        for mate in &self.0 {
            let row = ws.member(node.run, *mate, map_index);
            match row.and_then(|pk| ws.ti(pk)) {
                // It has left the run with its item, and nobody waits for it.
                None => counters.count(TaskState::Removed, false),
                Some(_) if untold.contains(&(*mate, map_index)) => {}
                Some(row) => counters.count(row.state, false),
            }
        }
        counters
    }
}

/// Whether a member of a mapped group is split into instances that the members below wait for index by index.
pub(super) fn is_split(ws: &WorkingSet, run: RunPk, member: TaskIdx) -> bool {
    let row = ws.node(run, member).and_then(|node| ws.ti(node));
    row.is_some_and(|row| !row.is_visible() && !row.is_undecided())
}

/// Whether a member above a node may still be split, since the run started or anew after a clear: until then the node is not.
pub(super) fn await_split(ws: &WorkingSet, plan: &Plan, node: &TiRow) -> bool {
    plan.mates_above(node.task_idx).iter().any(|mate| {
        let row = ws.node(node.run, *mate).and_then(|mate| ws.ti(mate));
        row.is_some_and(TiRow::is_undecided)
    })
}
