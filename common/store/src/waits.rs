//! Waits without a worker, as the stores keep them: what is due to be looked at, the runs that others wait for, and what
//! is asked of people.

use crate::{DagRow, StoreResult, records::Page};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{RunPk, TaskIdx, TiPk, VersionPk},
    state::{RunState, TaskState},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A run that has ended while an instance of another waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwaitedEnd {
    pub run: RunPk,
    pub waiter: TiPk,
    /// The waiter's run; absent: it was deleted.
    pub waiting_run: Option<RunPk>,
}

/// An instance whose next look is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueWait {
    pub ti: TiPk,
    pub run: RunPk,
    /// Its wait has not begun, and counts in its pool, which has room: it has to be admitted first.
    pub admit: bool,
}

/// A run of another DAG that a sensor asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherRun {
    pub run: RunPk,
    pub version: VersionPk,
    pub state: RunState,
}

/// The run before another one, by logical date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierRun {
    pub run: RunPk,
    pub run_id: String,
    pub version: VersionPk,
    pub logical_date: DateTime<Utc>,
    pub state: RunState,
    /// Whether it has task instances.
    pub has_started: bool,
}

/// What was asked of people in one try of an `approval` task, and the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalRow {
    pub run: RunPk,
    pub ti: TiPk,
    /// Of the instance, as `map_index`; read with it, not kept here.
    pub task_id: String,
    pub map_index: i32,
    pub try_number: i32,
    pub prompt: String,
    pub options: Vec<String>,
    /// Users, and roles, that may answer.
    pub who: Vec<String>,
    /// The answer after `due_at`.
    pub default: Option<String>,
    pub created_at: DateTime<Utc>,
    pub due_at: Option<DateTime<Utc>>,
    pub answer: Option<String>,
    pub answered_by: Option<String>,
    pub answered_at: Option<DateTime<Utc>>,
}

/// Which approvals, newest first.
#[derive(Debug, Clone, Default)]
pub struct ApprovalFilter {
    pub run: Option<RunPk>,
    pub dag_id: Option<String>,
    pub ti: Option<TiPk>,
    /// Only those that have (or have not) been answered.
    pub answered: Option<bool>,
    pub limit: i64,
    pub offset: i64,
}

/// The statements of waits that take part in a transaction.
#[async_trait]
pub trait WaitTx: Send {
    /// Instances that wait and whose next look is due (`up_for_reschedule`, `deferred`, `awaiting_input`, and `none` of a node
    /// that waits for the run before, with `next_at` in the past), oldest first. Left out are those that wait for room in their
    /// pool, because waits count in it (`include_deferred`).
    async fn due_waits(&mut self, max: i64) -> StoreResult<Vec<DueWait>>;

    /// Runs that have ended while somebody waits for them, at most `max`.
    async fn awaited_ends(&mut self, max: i64) -> StoreResult<Vec<AwaitedEnd>>;

    /// Notes of a run inserted by this transaction how deep in a chain of triggers it is, and which instance waits for its
    /// end.
    async fn note_trigger(
        &mut self,
        run: RunPk,
        depth: i32,
        waiter: Option<TiPk>,
    ) -> StoreResult<()>;

    /// Nobody waits for these runs any more.
    async fn forget_waiters(&mut self, runs: &[RunPk]) -> StoreResult<()>;

    /// How deep in a chain of triggers a run is: 0 for one that no other run has made; `None` for one that does not exist.
    async fn trigger_depth(&mut self, run: RunPk) -> StoreResult<Option<i32>>;

    /// A DAG's row, not locked.
    async fn dag(&mut self, dag_id: &str) -> StoreResult<Option<DagRow>>;

    /// The newest run of each (DAG, logical date), in the order of the input.
    async fn runs_of_dates(
        &mut self,
        wanted: &[(String, DateTime<Utc>)],
    ) -> StoreResult<Vec<Option<OtherRun>>>;

    /// The run of the DAG with the last logical date before that of each run (of several the newest), in the order of the input;
    /// with `true` manual ones left out. None for a run without a date, and for the first of a backfill.
    async fn runs_before(&mut self, of: &[(RunPk, bool)]) -> StoreResult<Vec<Option<EarlierRun>>>;

    /// Runs that have not ended and whose run before, as [`WaitTx::runs_before`] finds it, may be one of these, in the
    /// order of their keys. Takes no locks.
    async fn runs_after(&mut self, of: &[(RunPk, bool)]) -> StoreResult<Vec<RunPk>>;

    /// Visible instances of tasks by state, in the order of the input.
    async fn task_states(
        &mut self,
        wanted: &[(RunPk, TaskIdx)],
    ) -> StoreResult<Vec<BTreeMap<TaskState, i64>>>;

    /// Inserts what is asked.
    async fn put_approval(&mut self, approval: &ApprovalRow) -> StoreResult<()>;

    /// What is asked of an instance in its newest try.
    async fn approval(&mut self, ti: TiPk) -> StoreResult<Option<ApprovalRow>>;

    /// Writes the answer; `false` if there is one already.
    async fn put_answer(
        &mut self,
        ti: TiPk,
        try_number: i32,
        answer: &str,
        by: &str,
        at: DateTime<Utc>,
    ) -> StoreResult<bool>;
}

/// The queries about waits that stand alone.
#[async_trait]
pub trait WaitReads: Send + Sync {
    async fn approvals(&self, filter: &ApprovalFilter) -> StoreResult<Page<ApprovalRow>>;
}
