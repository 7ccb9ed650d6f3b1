//! Callbacks that are called, and deadlines: as the stores keep them.
//!
//! A call is written in the transaction that decides the event. Schedulers deliver it: who takes a call has it until a time
//! (`next_at`), after which another takes it. So it is delivered at least once, and a crash costs a second delivery at most.

use crate::{StoreResult, records::Page};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{
    callback::{CallOn, NewCall, Webhook},
    ids::RunPk,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{fmt, str::FromStr, time::Duration};

/// So long after it was called a delivery is tried; then it is given up.
pub const GIVE_UP_AFTER: TimeDelta = TimeDelta::hours(24);

/// How far a call has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    Pending,
    Delivered,
    /// Given up.
    Failed,
}

impl CallState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for CallState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for CallState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| {
                format!("{text:?} is no state of a callback: pending, delivered, failed")
            })
    }
}

/// A call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallRow {
    pub id: i64,
    pub run: RunPk,
    pub dag_id: String,
    pub run_id: String,
    /// Absent: of the run itself.
    pub task_id: Option<String>,
    pub map_index: i32,
    pub try_number: i32,
    pub event: CallOn,
    /// Which of the event's callbacks.
    pub position: i32,
    pub state: CallState,
    pub target: String,
    /// Absent: it could not be made.
    pub webhook: Option<Webhook>,
    pub body: Value,
    /// Deliveries that were begun.
    pub attempts: i32,
    pub created_at: DateTime<Utc>,
    pub next_at: Option<DateTime<Utc>>,
    pub give_up_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// Why the last delivery failed.
    pub error: Option<String>,
    /// The status of the last answer.
    pub status: Option<i32>,
}

/// What came of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: i64,
    /// As it was when it was taken: if another has taken it since, this is of no account.
    pub attempts: i32,
    /// `Delivered`; `Failed`: given up; `Pending`: tried again at `next_at`.
    pub state: CallState,
    pub next_at: Option<DateTime<Utc>>,
    pub error: Option<String>,
    pub status: Option<i32>,
}

/// Which calls, newest first.
#[derive(Debug, Clone, Default)]
pub struct CallFilter {
    pub id: Option<i64>,
    pub dag_id: Option<String>,
    pub run: Option<RunPk>,
    pub state: Option<CallState>,
    pub limit: i64,
    pub offset: i64,
}

/// Which calls to take.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// At most so many in all.
    pub max: i64,
    /// And of one target.
    pub of_one_target: i64,
    /// Targets that have enough under way.
    pub busy: &'a [String],
    /// For how long.
    pub lease: Duration,
}

/// A deadline that a run, or a task of it, has missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissedDeadline {
    pub run: RunPk,
    /// Absent: the run's own.
    pub task_id: Option<String>,
    /// Which of the deadlines.
    pub position: i32,
    pub due_at: DateTime<Utc>,
    pub missed_at: DateTime<Utc>,
}

/// The statements of callbacks and deadlines that take part in a transaction.
#[async_trait]
pub trait CallTx: Send {
    /// Writes calls: due at once, or given up if they could not be made.
    async fn put_calls(&mut self, calls: &[NewCall]) -> StoreResult<()>;

    /// Runs with a deadline that has come, the earliest first.
    async fn due_deadlines(&mut self, max: i64) -> StoreResult<Vec<RunPk>>;

    /// Sets the next deadline of runs.
    async fn set_next_deadlines(
        &mut self,
        next: &[(RunPk, Option<DateTime<Utc>>)],
    ) -> StoreResult<()>;

    /// Notes a deadline as missed; `false` if it was noted before.
    async fn put_missed(&mut self, missed: &MissedDeadline) -> StoreResult<bool>;

    /// The average time that the DAG's last ten successful runs took, from start to end.
    async fn average_runtime(&mut self, dag_id: &str) -> StoreResult<Option<TimeDelta>>;
}

/// What is asked and written of callbacks alone.
#[async_trait]
pub trait CallReads: Send + Sync {
    /// Takes calls that are due: each is the caller's until its `next_at`.
    async fn claim_calls(&self, claim: &Claim<'_>) -> StoreResult<Vec<CallRow>>;

    /// Writes what came of deliveries.
    async fn delivered(&self, deliveries: &[Delivery]) -> StoreResult<()>;

    async fn calls(&self, filter: &CallFilter) -> StoreResult<Page<CallRow>>;

    /// Has a call delivered again that has ended, or at once one that waits; `false` if it could not be made, or is not there.
    async fn retry_call(&self, id: i64) -> StoreResult<bool>;

    /// The deadlines that a run has missed.
    async fn missed_deadlines(&self, run: RunPk) -> StoreResult<Vec<MissedDeadline>>;
}
