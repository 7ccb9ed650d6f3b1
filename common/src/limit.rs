//! Limits as rows: each has a cap and what is used of it, and is spent by `used + n <= cap`.

mod rate;

pub use rate::{NotARate, QueueRate, RateLimit};

use crate::ids::{BackfillPk, RunPk};
use serde::{Deserialize, Serialize};

/// Names one limit. The order is the order in which limits are locked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LimitKey {
    /// `max_active_runs` of a backfill; counts its runs in state `running`.
    Backfill { id: BackfillPk },
    /// `concurrency` of a DAG's runs with one key; counts those in state `running`.
    RunKey { dag_id: String, key: String },
    /// `max_active_runs` of a DAG; counts runs in state `running` that are not of a backfill.
    DagRuns { dag_id: String },
    /// Task instances of the whole deployment that hold slots. Its row exists only where such a limit is set, and `used` is
    /// not kept in it: with the row locked, the runs' own counts are added up. So who sets no limit pays for none.
    Parallelism,
    /// Slots of a pool; counts `pool_slots` of the task instances that occupy it.
    Pool { name: String },
    /// Dispatches of one queue that are out and not started.
    Queue { name: String },
    /// `max_active_tis_per_dag` of a task.
    Task { dag_id: String, task_id: String },
    /// `max_active_tis_per_dagrun` of a task in one run.
    TaskInRun { run: RunPk, task_id: String },
    /// `concurrency` of task instances with one key, whatever DAG they are of. Its row has no cap: each instance brings the
    /// limit that its task says.
    TaskKey { key: String },
}

impl LimitKey {
    pub fn pool(name: &str) -> Self {
        Self::Pool {
            name: name.to_owned(),
        }
    }

    pub fn queue(name: &str) -> Self {
        Self::Queue {
            name: name.to_owned(),
        }
    }

    /// The row's primary key: `(kind, name)`. Sorted by it, keys are in lock order.
    pub fn columns(&self) -> (&'static str, String) {
        match self {
            Self::Backfill { id } => ("backfill", id.to_string()),
            Self::RunKey { dag_id, key } => ("dag_run_key", format!("{dag_id}/{key}")),
            Self::DagRuns { dag_id } => ("dag_runs", dag_id.clone()),
            Self::Parallelism => ("parallelism", "all".to_owned()),
            Self::Pool { name } => ("pool", name.clone()),
            Self::Queue { name } => ("queue", name.clone()),
            Self::Task { dag_id, task_id } => ("task", format!("{dag_id}/{task_id}")),
            Self::TaskInRun { run, task_id } => ("task_in_run", format!("{run}/{task_id}")),
            Self::TaskKey { key } => ("task_key", key.clone()),
        }
    }
}

/// A limit and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRow {
    pub key: LimitKey,
    /// -1: unlimited.
    pub cap: i64,
    pub used: i64,
    /// Only queues are paused: nothing new is dispatched to them.
    pub paused: bool,
    /// Only queues have a rate.
    pub rate: Option<QueueRate>,
    /// Only of pools: what waits without a worker counts too. That is not in `used`: it is added up where it matters.
    pub include_deferred: bool,
}

impl LimitRow {
    /// What may still be spent.
    pub fn free(&self) -> i64 {
        if self.paused {
            return 0;
        }
        let tokens = self.rate.map_or(i64::MAX, |rate| rate.tokens);
        self.room().min(tokens)
    }

    /// The same, whatever pauses and rates say.
    pub fn room(&self) -> i64 {
        if self.cap < 0 {
            i64::MAX
        } else {
            (self.cap - self.used).max(0)
        }
    }
}
