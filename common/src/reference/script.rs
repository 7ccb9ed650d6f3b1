//! What the tasks themselves do: the part of a run's course that the DAG does not say.

use super::Decision;
use crate::ids::TaskIdx;

/// How an attempt ends when nothing interrupts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Tried again while retries remain.
    Failed,
    FailedForGood,
    Skipped,
}

/// What a mapped task's template gives to map over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Length(usize),
    /// It gives no list, or cannot be rendered.
    None,
    /// It gives nothing at all (null).
    Missing,
}

/// What the infrastructure did to an attempt, instead of letting it end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// Its worker was lost. The third such attempt in a row fails the instance; only an attempt that ends by itself
    /// breaks the row.
    Lost,
    /// It was given back or forgotten, and runs anew.
    Requeued,
}

/// What is known of the attempts of one instance that the infrastructure ended. They count as tries and cost no retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupted {
    /// Exactly these tries (1 is the first) were; tries that were not made do not matter.
    Tries(Vec<(i32, Interruption)>),
    /// Up to so many were, whichever and however.
    AtMost(i32),
}

impl Interrupted {
    /// None was.
    pub const NEVER: Self = Self::Tries(Vec::new());
}

/// Whether a run was stopped, by a user or by `dagrun_timeout`. A stop that came after the run's end is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Never,
    /// At an unknown moment before its end: its row has a `stop_reason`.
    AtSomeMoment,
}

/// Says of every attempt how it ends.
pub trait Script {
    /// How this try ends when nothing interrupts it. `map_index` is [`UNMAPPED`](crate::ids::UNMAPPED) for a task that is
    /// not mapped; `try_number` is 1 for the first and counts interrupted tries, as `GRISTMILL_TRY_NUMBER` does.
    fn outcome(&self, task: TaskIdx, map_index: i32, try_number: i32) -> Outcome;

    /// What the template of a mapped task's `variable` gives (empty: of its `expand_kwargs`); literal lists are not asked for. Several answers where the
    /// order of events decides: a rule such as `one_success` may hold before the list's producer has ended.
    fn lists(&self, task: TaskIdx, variable: &str) -> Vec<List>;

    /// What a branch, short circuit or `latest_only` may come to; empty: not known.
    fn decisions(&self, task: TaskIdx) -> Vec<Decision> {
        let _ = task;
        Vec::new()
    }

    /// What is known of the instance's interrupted attempts.
    fn interrupted(&self, task: TaskIdx, map_index: i32) -> Interrupted {
        let _ = (task, map_index);
        Interrupted::NEVER
    }
}
