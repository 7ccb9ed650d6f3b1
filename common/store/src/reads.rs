//! Queries, and small writes that stand alone. Each is one statement or one short transaction; none takes part in the way
//! of a task.

use crate::{LimitKey, LimitRow, StoreResult, records::*};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{BackfillPk, Dispatch, RunPk, TaskIdx, TiPk, VersionPk},
    limit::RateLimit,
    row::{AttemptRow, OutboxRow, RunRow, TiRow, XcomRow},
};
use std::time::Duration;
use uuid::Uuid;

/// What every backend answers without the engine.
#[async_trait]
pub trait Reads:
    crate::Annotations + crate::CallReads + crate::DataReads + crate::WaitReads + Send + Sync
{
    // ---- The database itself

    /// Applies pending migrations; safe from many processes at once (a database lock).
    async fn migrate(&self) -> StoreResult<()>;

    /// `Schema` unless the schema is this build's.
    async fn check_schema(&self) -> StoreResult<()>;

    /// Asks the database for its time: proves that it is there.
    async fn ping(&self) -> StoreResult<DateTime<Utc>>;

    /// The database's clock, estimated without asking (offset to this machine's measured by [`Reads::ping`]).
    fn now(&self) -> DateTime<Utc>;

    /// How many times runs were accepted or ended so far, as far as this process has heard: a cursor for
    /// [`Reads::run_changed`]. Read it before looking at what a change may have changed.
    fn run_changes(&self) -> u64;

    /// Waits until runs were accepted or ended after `seen` was read, or until the time is over (Postgres: LISTEN on a
    /// connection of its own, `runs` channel; SQLite: an in-process notify). May wake without cause.
    async fn run_changed(&self, seen: u64, at_most: Duration);

    // ---- DAGs

    async fn dag(&self, dag_id: &str) -> StoreResult<Option<DagRow>>;
    /// By dag id; `pattern` is a substring of the id; stale ones only when asked for.
    async fn dags(
        &self,
        pattern: Option<&str>,
        include_stale: bool,
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<DagRow>>;
    async fn version(&self, version: VersionPk) -> StoreResult<Option<VersionRow>>;
    /// Newest first.
    async fn versions(
        &self,
        dag_id: &str,
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<VersionRow>>;
    async fn set_paused(&self, dag_id: &str, paused: bool) -> StoreResult<DagRow>;
    /// Deletes a DAG with its versions and ended runs; `Refused` while it has unfinished runs.
    async fn delete_dag(&self, dag_id: &str) -> StoreResult<()>;
    /// Marks DAGs stale whose `fileloc` starts with `prefix` and whose id is not in `keep`. Returns how many changed.
    async fn mark_stale(&self, prefix: &str, keep: &[String]) -> StoreResult<u64>;
    /// Replaces the import errors of files whose name starts with `prefix`.
    async fn put_import_errors(&self, prefix: &str, errors: &[(String, String)])
    -> StoreResult<()>;
    async fn import_errors(&self) -> StoreResult<Vec<ImportErrorRow>>;

    // ---- Runs and task instances

    async fn run(&self, dag_id: &str, run_id: &str) -> StoreResult<Option<RunRow>>;
    async fn run_by_pk(&self, run: RunPk) -> StoreResult<Option<RunRow>> {
        Ok(self.runs_by_pk(&[run]).await?.pop())
    }
    /// Those of these runs that exist, in no order.
    async fn runs_by_pk(&self, runs: &[RunPk]) -> StoreResult<Vec<RunRow>>;
    async fn runs(&self, filter: &RunFilter) -> StoreResult<Page<RunRow>>;
    /// Deletes an ended run with all that belongs to it; `Refused` while it is not ended.
    async fn delete_run(&self, run: RunPk) -> StoreResult<()>;
    async fn task_instances(&self, filter: &TiFilter) -> StoreResult<Page<TiRow>>;
    async fn task_instance(
        &self,
        run: RunPk,
        task_id: &str,
        map_index: i32,
    ) -> StoreResult<Option<TiRow>>;
    async fn state_counts(&self, run: RunPk) -> StoreResult<StateCounts>;
    /// Attempts of an instance, oldest first: ended ones; the one that is out is in the instance's row.
    async fn attempts(&self, ti: TiPk) -> StoreResult<Vec<AttemptRow>>;
    /// XComs of one instance, or (without one) of all instances of a run.
    async fn xcoms(
        &self,
        run: RunPk,
        ti: Option<TiPk>,
        key: Option<&str>,
    ) -> StoreResult<Vec<XcomRow>>;
    /// XComs of a task of a run under a key, by map index.
    async fn xcoms_of_task(
        &self,
        run: RunPk,
        task: TaskIdx,
        key: &str,
    ) -> StoreResult<Vec<XcomRow>>;

    // ---- Limits and queues

    async fn limits(&self, keys: &[LimitKey]) -> StoreResult<Vec<LimitRow>>;
    async fn pools(&self) -> StoreResult<Vec<PoolRow>>;
    async fn pool_use(&self, name: &str) -> StoreResult<PoolUse>;
    /// Inserts or changes a pool; a lower cap than is used holds from then on, nothing is killed.
    async fn put_pool(
        &self,
        name: &str,
        slots: i64,
        description: Option<&str>,
        include_deferred: bool,
    ) -> StoreResult<PoolRow>;
    /// `Refused` for `default_pool` and for a pool that is occupied.
    async fn delete_pool(&self, name: &str) -> StoreResult<()>;
    /// Every queue that has a limit row or instances that have not ended.
    async fn queue_counts(&self) -> StoreResult<Vec<QueueCounts>>;
    async fn set_queue_paused(&self, queue: &str, paused: bool) -> StoreResult<()>;
    /// Sets or lifts (`None`) the rate at which tasks of a queue are dispatched. Its bucket is full then.
    async fn set_queue_rate(&self, queue: &str, rate: Option<RateLimit>) -> StoreResult<()>;
    /// Task instances of the whole deployment that may hold slots at one time (`None`: no such limit), and how many do.
    async fn parallelism(&self) -> StoreResult<(Option<i64>, i64)>;
    /// Sets or lifts that limit. A lower one than is used holds from then on, nothing is killed.
    async fn set_parallelism(&self, cap: Option<i64>) -> StoreResult<()>;
    /// Sets the publish cap of queues: `max(1000, 2 × slots)`.
    async fn set_queue_caps(&self, caps: &[(String, i64)]) -> StoreResult<()>;
    /// Names of all queues known.
    async fn queues(&self) -> StoreResult<Vec<String>>;

    // ---- Reconcilers

    /// What there is to do, in one look that opens no transaction; `outbox_age`: messages younger than this are left to
    /// the scheduler that wrote them.
    async fn to_do(&self, outbox_age: Duration) -> StoreResult<ToDo>;
    /// Messages written more than `age` ago and not deleted, oldest first.
    async fn unpublished(&self, age: Duration, max: i64) -> StoreResult<Vec<OutboxRow>>;
    async fn outbox_oldest_age(&self) -> StoreResult<Option<Duration>>;
    /// `delete_outbox` as a transaction of its own. It may be lost in a crash of the database: the messages are then
    /// published once more, and refused by their fences.
    async fn confirm_published(&self, confirmed: &[Dispatch]) -> StoreResult<()>;
    /// Dispatches in `queued` whose `claim_by` is over by more than `margin`, oldest first; and those that were halted before
    /// their start was heard of.
    async fn unclaimed(&self, margin: Duration, max: i64) -> StoreResult<Vec<OutDispatch>>;
    /// Makes a bounced dispatch due for the search for its holder: sets `claim_by` to now, if it is still queued with this fence.
    async fn expire_claim(&self, bounced: &[Dispatch]) -> StoreResult<()>;
    /// Dispatches that are out (`queued`, `running` or `restarting`): those that this incarnation started, or all (None).
    async fn out_dispatches(&self, worker: Option<&str>) -> StoreResult<Vec<OutDispatch>>;
    /// Every dispatch that is out in this run.
    async fn out_in_run(&self, run: RunPk) -> StoreResult<Vec<OutDispatch>>;
    /// Dispatches that are being stopped because their instance was cleared or marked.
    async fn restarting(&self, max: i64) -> StoreResult<Vec<OutDispatch>>;
    /// Incarnations that started something that is still out.
    async fn busy_workers(&self) -> StoreResult<Vec<WorkerRow>>;
    /// Whether any worker that was not judged lost has held a lease over the broker within this time until now.
    async fn leased_over_broker(&self, within: Duration) -> StoreResult<bool>;
    /// How many shards have applied the barrier.
    async fn barrier_applied(&self, barrier: Uuid) -> StoreResult<u16>;

    // ---- Backfills and assets

    async fn backfill(&self, id: BackfillPk) -> StoreResult<Option<BackfillRow>>;
    async fn backfills(&self, filter: &BackfillFilter) -> StoreResult<Page<BackfillRow>>;
    /// By name; `pattern` is a substring of the name or URI; with `dag_ids` only those that one of these DAGs uses.
    async fn assets(
        &self,
        pattern: Option<&str>,
        dag_ids: &[String],
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<AssetRow>>;
    async fn asset(&self, id: i64) -> StoreResult<Option<AssetRow>>;
    async fn asset_events(&self, filter: &AssetEventFilter) -> StoreResult<Page<AssetEventRow>>;
    /// What waits for runs of this DAG, or for those of all; of this asset, or of all.
    async fn queued_asset_events(
        &self,
        dag_id: Option<&str>,
        asset_id: Option<i64>,
    ) -> StoreResult<Vec<WaitingAsset>>;
    /// Forgets the same; answers how many events.
    async fn delete_queued_asset_events(
        &self,
        dag_id: Option<&str>,
        asset_id: Option<i64>,
    ) -> StoreResult<u64>;

    // ---- Parts, users, secrets, audit

    async fn heartbeat(&self, kind: &str, id: &str, hostname: &str) -> StoreResult<()>;
    async fn components(&self) -> StoreResult<Vec<ComponentRow>>;
    async fn user(&self, username: &str) -> StoreResult<Option<UserRow>>;
    async fn users(&self) -> StoreResult<Vec<UserRow>>;
    /// Inserts (false: or leaves as it is; true: or replaces) a user. Returns whether anything was written.
    async fn put_user(&self, user: &UserRow, replace: bool) -> StoreResult<bool>;
    async fn token(&self, hash: &str) -> StoreResult<Option<TokenRow>>;
    async fn tokens(&self) -> StoreResult<Vec<TokenRow>>;
    async fn put_token(&self, token: &TokenRow) -> StoreResult<()>;
    async fn delete_token(&self, name: &str) -> StoreResult<bool>;
    /// `kind` is `connection` or `variable`; `sealed` is ciphertext in base64; `meta` is what may be shown.
    async fn put_secret(
        &self,
        kind: &str,
        name: &str,
        sealed: &str,
        meta: &serde_json::Value,
    ) -> StoreResult<()>;
    async fn secret(
        &self,
        kind: &str,
        name: &str,
    ) -> StoreResult<Option<(String, serde_json::Value)>>;
    async fn secrets(&self, kind: &str) -> StoreResult<Vec<(String, serde_json::Value)>>;
    async fn delete_secret(&self, kind: &str, name: &str) -> StoreResult<bool>;
    async fn put_audit(&self, entry: &AuditRow) -> StoreResult<()>;
    /// Deletes the oldest entries of the audit log, as far as they were written before, at most `max`; answers how many.
    async fn delete_audits(&self, before: DateTime<Utc>, max: i64) -> StoreResult<u64>;
    /// Newest first.
    async fn audit(&self, limit: i64, offset: i64) -> StoreResult<Page<AuditRow>>;
    async fn dead_letters(&self, limit: i64) -> StoreResult<Vec<DeadLetterRow>>;
    /// Task instances given up after losses in a row, newest first.
    async fn dead_tasks(&self, limit: i64) -> StoreResult<Vec<TiRow>>;
    /// Statements and transactions that this process has sent since its start, for benchmarks.
    fn statements(&self) -> (u64, u64);
}
