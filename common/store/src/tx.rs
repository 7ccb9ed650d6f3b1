//! The primitive statements that a backend implements. They decide nothing: what is written was decided by
//! `gristmill_common::engine`, and every write of a state names the state and fence that it expects.

use crate::{
    LimitKey, LimitRow, StoreError, StoreResult,
    records::{
        AuditRow, DagRow, DeletedRun, NewAssetEvent, NewAssetReference, NewBackfill, NewDagVersion,
        NewRun, NewTi, RunKeyNote, Starts, TiWrite, Unfinished, UpstreamXcom, VersionRow,
        WaitingAsset, WorkerRow, Writes, Written,
    },
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::{
    engine::Tally,
    ids::{BackfillPk, Dispatch, RunPk, TaskIdx, TiPk, VersionPk},
    message::{Sealed, Started},
    row::{AttemptRow, OutboxRow, RunRow, TiRow, XcomRow},
    state::{RunState, TaskState},
};
use uuid::Uuid;

/// A database that can open transactions. Object safety is not needed: the transactions are generic over it.
#[async_trait]
pub trait Backend: crate::Reads + Send + Sync + 'static {
    type Tx: Tx;

    /// Opens a read-write transaction (Postgres: READ COMMITTED; SQLite: the one writer, BEGIN IMMEDIATE).
    async fn begin(&self) -> StoreResult<Self::Tx>;

    /// Notes that these attempts have started: a transaction of its own, in as few statements as the backend can, since a
    /// start decides nothing and an ending may wait behind it. Of each that is still queued under its fence the row takes
    /// what [`transition::start`](gristmill_common::transition::start) writes, and its queue gets its room back. Locks in
    /// the order of all transactions: runs by key, then queues by name.
    async fn record_starts(&self, starts: &[&Started]) -> StoreResult<Starts>;
}

/// One open read-write transaction. Dropping it without [`Tx::commit`] rolls it back.
#[async_trait]
pub trait Tx: crate::DataTx + crate::WaitTx + crate::SharedLimitTx + crate::CallTx + Send {
    async fn commit(self) -> StoreResult<()>;

    /// The database's clock, as it was when the transaction began.
    fn now(&self) -> DateTime<Utc>;

    // ---- DAGs and versions

    /// Inserts or updates the DAG's row, and inserts the version unless one with this `spec_hash` and bundle is the DAG's
    /// newest already. Returns the current version and whether it is new. Clears `is_stale`. Sets the cap of
    /// `max_active_runs`. A new DAG's `is_paused` is taken from its specification; an existing one's is kept.
    async fn put_dag_version(&mut self, new: &NewDagVersion) -> StoreResult<(VersionRow, bool)>;

    /// Locks DAG rows whose `next_run_after` has come, are neither paused nor stale; at most `max`, oldest first; rows
    /// that another scheduler has locked are left out (SKIP LOCKED).
    async fn lock_due_dags(&mut self, max: i64) -> StoreResult<Vec<DagRow>>;

    /// Locks one DAG's row.
    async fn lock_dag(&mut self, dag_id: &str) -> StoreResult<Option<DagRow>>;

    /// Writes schedule state (`next_*`, `last_*`), `is_paused` with its reason, and `is_stale` of a locked DAG row.
    async fn update_dag(&mut self, dag: &DagRow) -> StoreResult<()>;

    /// The version's row with its specification.
    async fn version(&mut self, version: VersionPk) -> StoreResult<Option<VersionRow>>;

    /// How many of the DAG's runs have not ended.
    async fn unfinished_runs(&mut self, dag_id: &str) -> StoreResult<Unfinished>;

    /// How many of the DAG's newest ended runs failed in a row, counted up to `at_most`. Only runs count that ended after
    /// the DAG was last unpaused; cancelled ones are left out, and so are those of backfills.
    async fn failures_in_a_row(&mut self, dag_id: &str, at_most: u32) -> StoreResult<u32>;

    // ---- Runs

    /// Inserts a run in state `queued` and tells schedulers (NOTIFY at commit). `Exists` when the DAG has this run id, or a
    /// scheduled run of this logical date; the transaction goes on.
    async fn insert_run(&mut self, run: &NewRun) -> StoreResult<RunPk> {
        let inserted = self.insert_runs(std::slice::from_ref(run)).await?;
        let taken = || StoreError::Exists {
            what: "run",
            name: run.run_id.clone(),
        };
        inserted.into_iter().flatten().next().ok_or_else(taken)
    }

    /// The same for many, in order; `None` for those that are taken, by an earlier one of the same call too.
    async fn insert_runs(&mut self, runs: &[NewRun]) -> StoreResult<Vec<Option<RunPk>>>;

    /// An earlier request's run under this idempotency key of the DAG, with the hash of that request; keys older than 24 h
    /// do not count.
    async fn run_by_idempotency_key(
        &mut self,
        dag_id: &str,
        key: &str,
    ) -> StoreResult<Option<(RunPk, String)>>;

    /// Locks these runs in ascending order of their keys (FOR UPDATE), and returns those that exist.
    async fn lock_runs(&mut self, runs: &[RunPk]) -> StoreResult<Vec<RunRow>>;

    /// Keys of queued runs that may start as far as their DAG is concerned: `run_after` has come, the DAG is not paused (a
    /// manual run of a paused DAG waits too), `max_active_runs` has room; per DAG at most as many as there is room for,
    /// oldest first; at most `max`. Runs of a backfill go by its pause and `max_active_runs` instead of the DAG's limit, in the
    /// order of their keys. Takes no locks.
    async fn startable_runs(&mut self, max: i64) -> StoreResult<Vec<RunPk>>;

    /// Keys of the active runs that have to make room, because their DAG's `overlap` is `cancel` and scheduled runs are due
    /// that do not fit: the oldest of those that run and are not being stopped, and of the scheduled ones that wait. At
    /// most `max`. Takes no locks.
    async fn overlapped_runs(&mut self, max: i64) -> StoreResult<Vec<RunPk>>;

    /// Notes the keys of the limits that locked runs share (`concurrency`), and whether they wait for them: then
    /// [`Tx::startable_runs`] leaves them out as long as that limit has no room.
    async fn set_run_keys(&mut self, keys: &[RunKeyNote]) -> StoreResult<()>;

    /// Running runs of a DAG that share a key, oldest first, and whether each is being stopped. Takes no locks.
    async fn running_with_key(
        &mut self,
        dag_id: &str,
        key: &str,
    ) -> StoreResult<Vec<(RunPk, bool)>>;

    /// Sets the cap of every limit that runs of a DAG share.
    async fn cap_run_keys(&mut self, dag_id: &str, cap: i64) -> StoreResult<()>;

    /// Writes all mutable columns of locked runs. A run that ended, or is being stopped, is announced (NOTIFY at commit).
    async fn update_runs(&mut self, runs: &[RunRow]) -> StoreResult<()>;

    /// Keys of running runs that were asked to stop and have instances left, and of those whose `dagrun_timeout` (kept as
    /// `deadline_at`) is over; at most `max`.
    async fn runs_to_stop(&mut self, max: i64) -> StoreResult<Vec<RunPk>>;

    // ---- Task instances

    /// Inserts task instances; the keys come back in the order of the input.
    async fn insert_tis(&mut self, tis: &[NewTi]) -> StoreResult<Vec<TiPk>>;

    /// Instances by key (of runs that the transaction has locked, hence without locks of their own).
    async fn load_tis(&mut self, tis: &[TiPk]) -> StoreResult<Vec<TiRow>>;

    /// Nodes (`map_index` -1) of tasks in runs that the transaction has locked.
    async fn load_nodes(&mut self, nodes: &[(RunPk, TaskIdx)]) -> StoreResult<Vec<TiRow>>;

    /// Instances of expanded tasks (`map_index` 0 and up), by run, task and index; without an index all of the task. Those
    /// that do not exist are missing from the answer.
    async fn load_instances(
        &mut self,
        instances: &[(RunPk, TaskIdx, Option<i32>)],
    ) -> StoreResult<Vec<TiRow>>;

    /// [`Tx::lock_runs`] and [`Tx::load_tis`] in one go. The instances are as they are under the locks.
    async fn lock_and_load(
        &mut self,
        runs: &[RunPk],
        tis: &[TiPk],
    ) -> StoreResult<(Vec<RunRow>, Vec<TiRow>)> {
        Ok((self.lock_runs(runs).await?, self.load_tis(tis).await?))
    }

    /// All instances of a run that have not ended; hidden nodes of expanded tasks are left out.
    async fn load_unfinished(&mut self, run: RunPk) -> StoreResult<Vec<TiRow>>;

    /// Instances and nodes of these tasks of a run, in one of these states (empty: in any).
    async fn load_tasks(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        states: &[TaskState],
    ) -> StoreResult<Vec<TiRow>>;

    /// How many instances of each task of a run are in each state; hidden nodes and removed instances left out.
    async fn tally(&mut self, run: RunPk) -> StoreResult<Tally>;

    /// Writes what only clears and marks change of instances of locked runs: the queue, the map values and name, and what a
    /// `restarting` one becomes.
    async fn remake_tis(&mut self, rows: &[&TiRow]) -> StoreResult<()>;

    /// Deletes all XComs of these instances of a run.
    async fn delete_xcoms(&mut self, run: RunPk, of: &[TiPk]) -> StoreResult<()>;

    /// Tells schedulers that a locked run has work again (NOTIFY at commit), and writes its `queued_at`.
    async fn announce_run(&mut self, run: &RunRow) -> StoreResult<()>;

    /// Runs of these instances (no locks): what has to be locked before they are loaded.
    async fn runs_of(&mut self, tis: &[TiPk]) -> StoreResult<Vec<(TiPk, RunPk)>>;

    /// Writes all mutable columns of each row, guarded by key, expected state and expected fence. Returns the keys that
    /// were written: a missing one was fenced. What an instance was made with (task, queue, pool and slots, priority, map
    /// values and name) is not written: [`Tx::remake_tis`].
    async fn update_tis(&mut self, writes: &[TiWrite]) -> StoreResult<Vec<TiPk>>;

    /// Ready instances (`scheduled`) that fit their run's limit, their pool, their queue and their task's limits as these
    /// stand (read without locks), best first: by `priority_weight` descending, then age (`scheduled_at`, key). Only
    /// running runs with `ready_tasks > 0` and room count; no run gives more than it has room for; at most `max` in all.
    /// What does not fit never hides what does.
    async fn ready_candidates(&mut self, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>>;

    /// Whether any running run outside `except` has ready instances and room in its own limit.
    async fn others_wait(&mut self, except: &[RunPk]) -> StoreResult<bool>;

    /// Instances in `up_for_retry` whose time has come, oldest first.
    async fn due_retries(&mut self, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>>;

    // ---- Limits

    /// Makes sure that the rows exist. `cap` of an existing row is set where `overwrite`.
    async fn ensure_limits(
        &mut self,
        limits: &[(LimitKey, i64)],
        overwrite: bool,
    ) -> StoreResult<()>;

    /// Locks limits in ascending order of their columns; those that do not exist are missing from the answer.
    async fn lock_limits(&mut self, keys: &[LimitKey]) -> StoreResult<Vec<LimitRow>>;

    /// [`Tx::lock_limits`], and with `except` also [`Tx::others_wait`], in one go. That answer may be as old as the call:
    /// it may miss a run whose transaction this one waited for. Ask again, with [`Writes::ask_others`], before relying on
    /// a `false`.
    async fn lock_limits_and_look(
        &mut self,
        keys: &[LimitKey],
        except: Option<&[RunPk]>,
    ) -> StoreResult<(Vec<LimitRow>, bool)> {
        let limits = self.lock_limits(keys).await?;
        let others = match except {
            Some(except) => self.others_wait(except).await?,
            None => false,
        };
        Ok((limits, others))
    }

    /// Adds each delta to `used` of its locked row: a positive one only where `cap < 0 or used + delta <= cap`, a negative
    /// one only where `used + delta >= 0`. An error (`Corrupt`, naming the limit) when any row refuses.
    async fn spend_limits(&mut self, deltas: &[(LimitKey, i64)]) -> StoreResult<()>;

    /// Takes `n` tokens of each queue's rate. Their rows are locked, and have a rate.
    async fn take_tokens(&mut self, queues: &[(String, i64)]) -> StoreResult<()>;

    /// Task instances that hold slots (`active_tasks`) in all runs that have not ended outside `except`: as the last
    /// transaction left it that had the row of [`LimitKey::Parallelism`] locked, once this one has.
    async fn active_tasks(&mut self, except: &[RunPk]) -> StoreResult<i64>;

    // ---- What goes with them

    /// Durable copies of XComs; one per (task instance, key), the newest fence wins.
    async fn put_xcoms(&mut self, xcoms: &[XcomRow]) -> StoreResult<()>;

    /// XComs (key `return_value` or others) of tasks of a run, by task and map index.
    async fn xcoms_of_tasks(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        keys: &[String],
    ) -> StoreResult<Vec<XcomRow>>;

    /// The same without the values: where they are. At most `max` + 1 rows.
    async fn xcom_refs(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        max: i64,
    ) -> StoreResult<Vec<UpstreamXcom>>;

    /// The same of single indexes of expanded tasks.
    async fn xcom_refs_at(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        map_indexes: &[i32],
    ) -> StoreResult<Vec<UpstreamXcom>>;

    /// Ciphertexts of connections and variables by name; missing ones are missing.
    async fn sealed(&mut self, connections: &[String], variables: &[String])
    -> StoreResult<Sealed>;

    /// Ended attempts. One that is there already (same instance and try) is an error (`Corrupt`): an attempt ends once.
    async fn insert_attempts(&mut self, attempts: &[AttemptRow]) -> StoreResult<()>;

    async fn insert_outbox(&mut self, rows: &[OutboxRow]) -> StoreResult<()>;

    /// Deletes messages that the broker has confirmed.
    async fn delete_outbox(&mut self, confirmed: &[Dispatch]) -> StoreResult<()>;

    /// Writes all of it, each part as its own method does, in as few statements as the backend can.
    async fn write(&mut self, writes: &Writes<'_>) -> StoreResult<Written> {
        let tis = match writes.tis {
            [] => 0,
            tis => self.update_tis(tis).await?.len(),
        };
        if !writes.runs.is_empty() {
            self.update_runs(writes.runs).await?;
        }
        if !writes.xcoms.is_empty() {
            self.put_xcoms(writes.xcoms).await?;
        }
        if !writes.attempts.is_empty() {
            self.insert_attempts(writes.attempts).await?;
        }
        if !writes.limits.is_empty() {
            self.spend_limits(writes.limits).await?;
        }
        if !writes.outbox.is_empty() {
            self.insert_outbox(writes.outbox).await?;
        }
        if !writes.published.is_empty() {
            self.delete_outbox(writes.published).await?;
        }
        let others_wait = match writes.ask_others {
            Some(except) => self.others_wait(except).await?,
            None => false,
        };
        Ok(Written { tis, others_wait })
    }

    // ---- Workers and loss

    /// The worker's row, locked; inserted in state `alive` when missing.
    async fn lock_worker(&mut self, incarnation: &str) -> StoreResult<WorkerRow>;

    /// Writes a locked worker's row.
    async fn update_worker(&mut self, worker: &WorkerRow) -> StoreResult<()>;

    /// Records that a shard has applied a barrier.
    async fn apply_barrier(&mut self, barrier: Uuid, shard: u16) -> StoreResult<()>;

    /// Deletes what is older than its time: ended runs with all that belongs to them, at most `max` runs; worker rows and
    /// barriers older than a day; idempotency keys older than 24 h. Returns the runs deleted.
    async fn delete_old(
        &mut self,
        ended_before: DateTime<Utc>,
        max: i64,
    ) -> StoreResult<Vec<DeletedRun>>;

    /// A message that nobody could read or apply, for the dead list.
    async fn put_dead_letter(&mut self, source: &str, reason: &str, body: &[u8])
    -> StoreResult<()>;

    // ---- Backfills

    /// Inserts a backfill of which so many dates are left out. Its limit has to be ensured, and its runs to be inserted.
    async fn insert_backfill(
        &mut self,
        new: &NewBackfill,
        left_out: i32,
    ) -> StoreResult<BackfillPk>;

    /// A backfill of the DAG that has not ended.
    async fn active_backfill(&mut self, dag_id: &str) -> StoreResult<Option<BackfillPk>>;

    /// The state of the newest run of each logical date within these, both included.
    async fn newest_runs(
        &mut self,
        dag_id: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> StoreResult<Vec<(DateTime<Utc>, RunState)>>;

    /// Pauses or unpauses a backfill; `false` if there is none.
    async fn pause_backfill(&mut self, id: BackfillPk, paused: bool) -> StoreResult<bool>;

    /// Cancels a backfill: its queued runs end as failed and cancelled, for this reason; those that run go on. Answers how
    /// many it cancelled, `None` if there is no such backfill.
    async fn cancel_backfill(&mut self, id: BackfillPk, reason: &str) -> StoreResult<Option<i64>>;

    // ---- Assets

    /// Makes these the DAG's only uses of assets. Assets that are new are made; one that is described here is described so
    /// from now on.
    async fn put_asset_references(
        &mut self,
        dag_id: &str,
        references: &[NewAssetReference],
    ) -> StoreResult<()>;

    /// Records updates of assets, and puts each into the queue of every DAG whose schedule waits for it and that is neither
    /// paused nor stale. Answers the events' ids; an asset that nobody ever named has none.
    async fn put_asset_events(&mut self, events: &[NewAssetEvent]) -> StoreResult<Vec<i64>>;

    /// Locks DAGs in whose queues are events that were not looked at yet; at most `max`, by id; rows that another scheduler
    /// has locked are left out.
    async fn lock_dags_with_asset_events(&mut self, max: i64) -> StoreResult<Vec<DagRow>>;

    /// What is in a DAG's queue, by asset.
    async fn waiting_assets(&mut self, dag_id: &str) -> StoreResult<Vec<WaitingAsset>>;

    /// Takes the events up to this one out of a DAG's queue, for a run that they made, or for none.
    async fn take_asset_events(
        &mut self,
        dag_id: &str,
        up_to: i64,
        run: Option<RunPk>,
    ) -> StoreResult<()>;

    /// Notes that a DAG's queue was looked at up to this event and has to wait for more. Of each asset the newest `keep`
    /// events stay.
    async fn keep_asset_events(&mut self, dag_id: &str, up_to: i64, keep: i64) -> StoreResult<()>;

    // ---- Audit

    /// Writes what was changed, by whom, beside the change itself.
    async fn put_audits(&mut self, entries: &[AuditRow]) -> StoreResult<()>;
}
