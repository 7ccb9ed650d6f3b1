//! Records of the store beside runs and task instances.

use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{BackfillPk, Dispatch, Fence, RunPk, TaskIdx, TiPk, VersionPk},
    limit::{LimitKey, RateLimit},
    row::{AttemptRow, OutboxRow, RunRow, RunType, TiRow, XcomRow},
    spec::DagSpec,
    state::{RunState, TaskState},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use uuid::Uuid;

mod assets;
mod backfills;
mod listing;

pub use assets::*;
pub use backfills::*;
pub use listing::*;

/// A DAG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagRow {
    pub dag_id: String,
    pub version: VersionPk,
    pub version_number: i32,
    pub is_paused: bool,
    /// Why it is paused, if not a user did it.
    pub pause_reason: Option<String>,
    /// Its file is gone; its runs are kept, none is made any more.
    pub is_stale: bool,
    pub description: Option<String>,
    pub owner: Option<String>,
    pub tags: Vec<String>,
    /// The file it came from, as the deployer named it.
    pub fileloc: String,
    /// As text, for display (`0 2 * * *`, `every 15m`); absent: only by trigger.
    pub schedule: Option<String>,
    pub max_active_runs: i32,
    pub max_active_tasks: i32,
    /// The next scheduled run; absent: none.
    pub next_run_after: Option<DateTime<Utc>>,
    pub next_logical_date: Option<DateTime<Utc>>,
    pub next_interval_start: Option<DateTime<Utc>>,
    pub next_interval_end: Option<DateTime<Utc>>,
    /// `run_after` of the newest scheduled run.
    pub last_run_after: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A version to deploy.
#[derive(Debug, Clone)]
pub struct NewDagVersion {
    pub spec: DagSpec,
    /// SHA-256 of the canonical specification, hex.
    pub spec_hash: String,
    /// The file's text.
    pub source: String,
    pub fileloc: String,
    /// Digest of the folder's files in the object store.
    pub bundle: Option<String>,
    /// As text, for display.
    pub schedule: Option<String>,
}

/// A deployed version.
#[derive(Debug, Clone)]
pub struct VersionRow {
    pub pk: VersionPk,
    pub id: Uuid,
    pub dag_id: String,
    pub version_number: i32,
    pub spec: DagSpec,
    pub spec_hash: String,
    pub source: String,
    pub bundle: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// A run to insert.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub dag_id: String,
    pub run_id: String,
    pub version: VersionPk,
    pub run_type: RunType,
    pub triggered_by: String,
    /// Of runs of type `backfill`.
    pub backfill: Option<BackfillPk>,
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    pub run_after: DateTime<Utc>,
    pub conf: Map<String, Value>,
    pub params: Map<String, Value>,
    pub note: Option<String>,
    pub max_active_tasks: i32,
    /// Milliseconds from the run's start after which it is stopped.
    pub timeout_ms: Option<i64>,
    /// The first of its deadlines that is known.
    pub next_deadline: Option<DateTime<Utc>>,
    /// The request's idempotency key and the hash of its body.
    pub idempotency: Option<(String, String)>,
}

impl NewRun {
    /// The run as it is once it was accepted under this key.
    pub fn accepted(self, pk: RunPk, queued_at: DateTime<Utc>) -> RunRow {
        RunRow {
            pk,
            dag_id: self.dag_id,
            run_id: self.run_id,
            version: self.version,
            state: RunState::Queued,
            run_type: self.run_type,
            triggered_by: self.triggered_by,
            backfill: self.backfill,
            logical_date: self.logical_date,
            data_interval_start: self.data_interval_start,
            data_interval_end: self.data_interval_end,
            run_after: self.run_after,
            queued_at,
            started_at: None,
            ended_at: None,
            conf: self.conf,
            params: self.params,
            note: self.note,
            cancelled: false,
            stop_reason: None,
            clean_up: None,
            max_active_tasks: self.max_active_tasks,
            active_tasks: 0,
            ready_tasks: 0,
            unfinished_tasks: 0,
            failed_leaves: 0,
            concurrency_key: None,
        }
    }
}

/// The key of the limit that a run shares with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunKeyNote {
    pub run: RunPk,
    pub key: String,
    /// The limit had no room for it.
    pub waits: bool,
}

/// A run that somebody asks for.
#[derive(Debug, Clone)]
pub struct Trigger {
    pub run: NewRun,
    /// Written if the run is made.
    pub audit: Option<AuditRow>,
}

/// A person's answer to an approval.
#[derive(Debug, Clone)]
pub struct Answer {
    pub run: RunPk,
    pub ti: TiPk,
    /// One of the options.
    pub option: String,
    pub by: String,
    /// Written if the answer is taken.
    pub audit: Option<AuditRow>,
}

/// What came of judging a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// A lease granted over the broker still holds.
    Holds,
    /// It is lost, and no lease was ever granted to it over the broker.
    Lost,
    /// It is lost, and had leases over the broker: that the last one is over is the word of a clock that may have stepped.
    LostAfterGrants,
}

/// A run that was deleted with all that the database had of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedRun {
    pub run: RunPk,
    pub dag_id: String,
    pub run_id: String,
}

/// A task instance to insert: a row without its key.
#[derive(Debug, Clone)]
pub struct NewTi(
    /// `pk` is ignored.
    pub TiRow,
);

/// A changed task instance, with the state and fence that the database must still show.
#[derive(Debug, Clone)]
pub struct TiWrite {
    pub row: TiRow,
    pub expected_state: TaskState,
    pub expected_fence: Fence,
}

/// What a transaction writes at its end. Empty parts are not written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Writes<'a> {
    pub tis: &'a [TiWrite],
    pub runs: &'a [RunRow],
    pub xcoms: &'a [XcomRow],
    pub attempts: &'a [AttemptRow],
    pub limits: &'a [(LimitKey, i64)],
    pub outbox: &'a [OutboxRow],
    /// Messages to delete from the outbox: the broker has confirmed them.
    pub published: &'a [Dispatch],
    /// Ask whether a run outside these waits, as [`Tx::others_wait`](crate::Tx::others_wait) does.
    pub ask_others: Option<&'a [RunPk]>,
}

/// What came of [`Writes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Task instances written; the others were fenced.
    pub tis: usize,
    /// Others wait; `false` when not asked.
    pub others_wait: bool,
}

/// What came of noting starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Starts {
    /// Attempts that were noted; the others were fenced, or noted before.
    pub written: usize,
    /// A queue that had been full has room again: somebody may wait for it.
    pub made_room: bool,
}

/// Runs of a DAG that have not ended, those of backfills left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unfinished {
    pub scheduled: i64,
    /// The scheduled ones too.
    pub all: i64,
}

/// What there is for a scheduler's loops to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ToDo {
    /// Scheduled runs are due to be made.
    pub due_dags: bool,
    /// Runs are queued whose time has come. They may still wait for their DAG.
    pub queued_runs: bool,
    /// [`Tx::runs_to_stop`](crate::Tx::runs_to_stop) would answer any.
    pub runs_to_stop: bool,
    /// Runs wait that are to take the place of the oldest (`overlap: cancel`).
    pub overlaps: bool,
    /// Assets were updated that a DAG's schedule waits for.
    pub asset_events: bool,
    /// A running run has ready instances and room in its own limit.
    pub ready: bool,
    /// [`Tx::due_retries`](crate::Tx::due_retries) would answer any.
    pub retries: bool,
    /// [`WaitTx::due_waits`](crate::WaitTx::due_waits) or [`WaitTx::awaited_ends`](crate::WaitTx::awaited_ends) would
    /// answer any.
    pub waits: bool,
    /// [`CallReads::claim_calls`](crate::CallReads::claim_calls) would take any, unless their targets are busy.
    pub callbacks: bool,
    /// [`CallTx::due_deadlines`](crate::CallTx::due_deadlines) would answer any.
    pub deadlines: bool,
    /// A dispatch is queued whose `claim_by` is over.
    pub unclaimed: bool,
    /// [`SharedLimitTx::pushing`](crate::SharedLimitTx::pushing) would answer any.
    pub pushing: bool,
    /// [`Reads::restarting`](crate::Reads::restarting) would answer any.
    pub restarting: bool,
    /// The outbox has messages older than was asked for.
    pub unpublished: bool,
}

/// Where an upstream's XCom is.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamXcom {
    pub task_idx: TaskIdx,
    pub map_index: i32,
    pub ti: TiPk,
    pub fence: Fence,
    pub key: String,
    /// Key in the object store; absent: the value is inline.
    pub object: Option<String>,
}

/// What the database knows of a worker incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    pub incarnation: String,
    pub state: WorkerState,
    /// A lease granted over the broker: until then it is not judged lost.
    pub held_until: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    Alive,
    /// Judged lost. Final: no lease is granted to it any more.
    Lost,
}

impl WorkerState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Lost => "lost",
        }
    }
}

/// A dispatch that is out, as the reconcilers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutDispatch {
    pub run: RunPk,
    pub dispatch: Dispatch,
    pub state: TaskState,
    pub epoch: i64,
    pub claim_by: Option<DateTime<Utc>>,
    pub worker: Option<String>,
}

/// What the database knows of a queue.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QueueCounts {
    pub queue: String,
    /// Ready instances that wait for a limit or for room in the queue.
    pub scheduled: i64,
    /// Dispatched, not started.
    pub queued: i64,
    pub running: i64,
    /// When the oldest instance that has not started became ready.
    pub oldest_ready_at: Option<DateTime<Utc>>,
    pub paused: bool,
    /// The rate at which its tasks may start.
    pub rate_limit: Option<RateLimit>,
    pub dead: i64,
}

/// A pool and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    pub name: String,
    /// -1: unlimited.
    pub slots: i64,
    /// Slots that dispatches hold.
    pub occupied: i64,
    pub description: Option<String>,
    /// What waits without a worker counts too.
    pub include_deferred: bool,
}

/// Instances of one pool by state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolUse {
    pub queued: i64,
    pub running: i64,
    pub scheduled: i64,
    /// Those that wait without a worker, in slots: of the pool's, if it includes them.
    pub deferred_slots: i64,
}

/// A part of the deployment that reports that it lives (schedulers).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentRow {
    pub kind: String,
    pub id: String,
    pub hostname: String,
    pub started_at: DateTime<Utc>,
    pub heartbeat_at: DateTime<Utc>,
}

/// A user who signs in with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    pub username: String,
    /// Argon2 PHC string.
    pub password_hash: String,
    pub role: String,
}

/// An API token, stored hashed.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRow {
    /// SHA-256, hex.
    pub hash: String,
    pub name: String,
    pub role: String,
    pub dag_id: Option<String>,
    pub expires_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// A DAG file that could not be imported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportErrorRow {
    pub id: i64,
    pub filename: String,
    pub error: String,
    pub at: DateTime<Utc>,
}

/// A message in the dead list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterRow {
    pub id: i64,
    pub source: String,
    pub reason: String,
    pub body: String,
    pub at: DateTime<Utc>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRow {
    pub at: DateTime<Utc>,
    pub actor: String,
    pub event: String,
    pub dag_id: Option<String>,
    pub run_id: Option<String>,
    pub task_id: Option<String>,
    pub extra: Value,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Rows that the filter matches in all.
    pub total: i64,
}

/// Which runs, newest first unless the listing has an order of its own.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub dag_id: Option<String>,
    pub states: Vec<String>,
    pub run_id: Option<String>,
    pub listing: Listing<RunField>,
    pub limit: i64,
    pub offset: i64,
}

/// Which task instances, in the order of their keys unless the listing has another. Hidden nodes are left out.
#[derive(Debug, Clone, Default)]
pub struct TiFilter {
    pub run: Option<RunPk>,
    pub dag_id: Option<String>,
    pub task_id: Option<String>,
    pub map_index: Option<i32>,
    pub states: Vec<String>,
    pub queue: Option<String>,
    pub pool: Option<String>,
    pub listing: Listing<TiField>,
    pub limit: i64,
    pub offset: i64,
}

/// Counts of a run's visible instances by state name.
pub type StateCounts = BTreeMap<String, i64>;
