//! What a check found.

use gristmill_common::invariant::Invariant;
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// Of each invariant at most so many breaches are kept; the others are counted.
const KEPT: usize = 100;

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    pub invariant: Invariant,
    /// Names the run, task instance and attempt, and the values that were seen.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// How much was looked at: a check of nothing finds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub accepted_runs: usize,
    pub runs: usize,
    pub task_instances: usize,
    /// Records of ended attempts in the database.
    pub attempts: usize,
    /// Attempts that wrote into the ledger.
    pub live_attempts: usize,
    /// Of those: without an end, so they were killed.
    pub killed_attempts: usize,
    /// Records of the ledger that were torn by a kill.
    pub torn_records: usize,
    /// Limits over which the intervals of attempts were swept.
    pub limits: usize,
    /// Of each limit with a cap: the most that was used of it for certain, `kind name` to (most, cap).
    pub fullest: BTreeMap<String, (i64, i64)>,
    /// Queues that were looked at.
    pub queues: usize,
}

/// The outcome of [`super::check`].
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Sorted by invariant; of each the first hundred.
    pub breaches: Vec<Breach>,
    /// Breaches by invariant, all of them.
    pub totals: BTreeMap<Invariant, usize>,
    pub counted: Counted,
    /// Invariants that could not be checked for want of evidence, and why.
    pub unchecked: BTreeMap<Invariant, String>,
}

impl Verdict {
    /// Whether everything that was checked holds.
    pub fn holds(&self) -> bool {
        self.totals.is_empty()
    }

    /// Whether this invariant was breached.
    pub fn breached(&self, invariant: Invariant) -> bool {
        self.totals.contains_key(&invariant)
    }

    pub(super) fn breach(&mut self, invariant: Invariant, what: impl Into<String>) {
        let total = self.totals.entry(invariant).or_default();
        *total += 1;
        if *total <= KEPT {
            let at = self
                .breaches
                .partition_point(|breach| breach.invariant <= invariant);
            let what = what.into();
            self.breaches.insert(at, Breach { invariant, what });
        }
    }
}

/// For a terminal: the breaches, or that there are none, and how much was checked.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for invariant in Invariant::ALL {
            let outcome = match (self.totals.get(&invariant), self.unchecked.get(&invariant)) {
                (Some(n), _) => format!("BREACHED {n} times"),
                (None, Some(why)) => format!("not checked: {why}"),
                (None, None) => "holds".to_owned(),
            };
            writeln!(
                f,
                "{:<17} {outcome} ({})",
                invariant.name(),
                invariant.statement()
            )?;
            for breach in self
                .breaches
                .iter()
                .filter(|breach| breach.invariant == invariant)
            {
                writeln!(f, "    {}", breach.what)?;
            }
        }
        let counted = &self.counted;
        write!(
            f,
            "checked {} runs ({} accepted by the client), {} task instances, {} ended attempts, {} of them seen alive \
             ({} killed), {} limits, {} queues",
            counted.runs,
            counted.accepted_runs,
            counted.task_instances,
            counted.attempts,
            counted.live_attempts,
            counted.killed_attempts,
            counted.limits,
            counted.queues,
        )
    }
}
