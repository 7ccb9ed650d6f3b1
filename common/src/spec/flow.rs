//! Tasks that decide what runs after them, and tasks that prepare and clean up.

use super::Nothing;
use serde::{Deserialize, Serialize};

/// Chooses which of its direct downstreams run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchTask {
    /// A template of an id, or of a list of ids, of direct downstreams; nothing (an empty text or list, null) skips all.
    pub choose: String,
}

/// Skips what is downstream unless its condition holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShortCircuitTask {
    /// A template.
    pub condition: String,
    /// Skips everything downstream, whatever the trigger rules say; or the direct downstreams only.
    #[serde(default = "yes")]
    pub ignore_downstream_trigger_rules: bool,
}

fn yes() -> bool {
    true
}

/// What decides, within a scheduler, which of the tasks downstream run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decider<'s> {
    Branch(&'s BranchTask),
    ShortCircuit(&'s ShortCircuitTask),
    LatestOnly,
}

impl super::TaskKind {
    /// The decider that the task is, if it is one.
    pub fn decider(&self) -> Option<Decider<'_>> {
        match self {
            Self::Branch(task) => Some(Decider::Branch(task)),
            Self::ShortCircuit(task) => Some(Decider::ShortCircuit(task)),
            Self::LatestOnly(Nothing {}) => Some(Decider::LatestOnly),
            _ => None,
        }
    }
}

/// What makes a task a teardown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teardown {
    /// Ids of the setups that it was given; they stand in `depends_on` too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setups: Vec<String>,
    /// Whether its failure fails the run.
    #[serde(default)]
    pub on_failure_fail_dagrun: bool,
}
