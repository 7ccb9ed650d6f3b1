//! `depends_on_past` and `wait_for_downstream`: a task runs once its instances in the run before have succeeded or were
//! skipped (with the latter: those of its direct downstreams too).
//!
//! The run before is the DAG's latest of an earlier logical date. The instances that are asked about are of another run, which
//! no lock of this one covers: so the node waits in `none` with a time of its next look, and an ending in the run before has
//! the runs after it looked at, under their locks, once it is committed. What a crash loses of that the next look finds.

use super::WorkingSet;
use crate::{
    ids::{RunPk, TaskIdx, TiPk},
    state::TaskState,
};
use chrono::Duration;
use std::collections::BTreeMap;

/// How often a node looks back that nothing wakes.
const LOOK_EVERY: Duration = Duration::seconds(30);

/// The run before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBefore {
    pub run_id: String,
    /// Whether it has task instances.
    pub has_started: bool,
    pub has_ended: bool,
}

/// Whether an instance that is in this state lets the one of the next run go.
fn is_good_past(state: TaskState) -> bool {
    // What was removed is of no list any more.
    matches!(
        state,
        TaskState::Success | TaskState::Skipped | TaskState::Removed
    )
}

/// What is known of the past of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Past {
    /// Nothing stands in its way.
    Good,
    /// It waits, and for what.
    Waits(String),
}

impl Past {
    /// What the run before says of a task there, whose name and instances by state are given together with those of all
    /// others that it asks about; a task that the run before does not have asks for nothing.
    pub fn of(before: &RunBefore, tasks: &[(&str, BTreeMap<TaskState, i64>)]) -> Self {
        let run_id = &before.run_id;
        if !before.has_started {
            // What never starts is skipped as a whole.
            return match before.has_ended {
                true => Self::Good,
                false => Self::Waits(format!("the run before it, {run_id}, has not started")),
            };
        }
        let bad: Vec<String> = tasks
            .iter()
            .filter_map(|(task_id, states)| {
                let states: Vec<String> = states
                    .iter()
                    .filter(|(state, n)| **n > 0 && !is_good_past(**state))
                    .map(|(state, n)| named(*state, *n))
                    .collect();
                (!states.is_empty()).then(|| format!("{task_id} ({})", states.join(", ")))
            })
            .collect();
        if bad.is_empty() {
            return Self::Good;
        }
        let stuck = tasks.iter().any(|(_, states)| {
            let is_bad_end = |state: &TaskState| state.is_finished() && !is_good_past(*state);
            states.iter().any(|(state, n)| *n > 0 && is_bad_end(state))
        });
        let advice = match stuck {
            true => "; clear it there, or mark it success or skipped",
            false => "",
        };
        Self::Waits(format!(
            "in the run before, {run_id}, has to succeed or be skipped: {}{advice}",
            bad.join(", ")
        ))
    }
}

fn named(state: TaskState, n: i64) -> String {
    let state = match state {
        TaskState::None => "not started".to_owned(),
        state => state.to_string(),
    };
    match n {
        1 => state,
        n => format!("{n} {state}"),
    }
}

impl WorkingSet {
    /// Whether a node, whose rule holds, has to look at the run before first.
    pub(super) fn has_to_look_back(&self, node: TiPk) -> bool {
        let asks = |row: &crate::row::TiRow| {
            let plan = self.plan_of(row.run)?;
            Some(!plan.past_of(row.task_idx).is_empty())
        };
        !self.past_is_good.contains(&node) && self.ti(node).and_then(asks).unwrap_or(false)
    }

    /// Takes the nodes that have to look at the run before: [`WorkingSet::looked_back`] tells them what is there.
    pub fn take_to_look_back(&mut self) -> Vec<TiPk> {
        std::mem::take(&mut self.to_look_back)
    }

    /// What the run before says of a node: it goes on, or waits. Settle afterwards.
    pub fn looked_back(&mut self, node: TiPk, past: Past) -> Option<()> {
        let next = self.now + LOOK_EVERY;
        // It may have been skipped on the way.
        self.ti(node)
            .filter(|row| row.state == TaskState::None && row.is_undecided())?;
        let row = self.ti_mut(node)?;
        match past {
            Past::Good => {
                row.next_at = None;
                row.reason = None;
                self.past_is_good.insert(node);
                super::settle::evaluate(self, node)
            }
            Past::Waits(why) => {
                row.next_at = Some(next);
                row.reason = Some(why);
                Some(())
            }
        }
    }

    /// A node that waits for the run before is to look again.
    pub fn look_back_again(&mut self, node: TiPk) -> Option<()> {
        self.ti(node).filter(|row| row.waits_for_past())?;
        super::settle::evaluate(self, node)
    }

    /// An instance has come to something that the run after may wait for.
    pub(super) fn tell_run_after(&mut self, run: RunPk, task_idx: TaskIdx) {
        if self
            .plan_of(run)
            .is_some_and(|plan| plan.is_looked_back_at(task_idx))
        {
            self.followed.insert(run);
        }
    }
}
