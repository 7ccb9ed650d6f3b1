//! One open transaction. The statements stand in the modules below, by noun.

mod amend;
mod assets;
mod backfills;
mod calls;
mod candidates;
mod dags;
mod data;
mod limits;
mod outbox;
mod retention;
mod runs;
mod shared_limits;
mod starts;
mod task_instances;
mod upkeep;
mod waits;
mod write;
mod xcoms;

pub(crate) use limits::rows_of as limit_rows;
pub(crate) use outbox::delete_lazily as outbox_delete;
pub(crate) use shared_limits::waits;
pub(crate) use starts::record as record_starts;

use crate::{Inner, Statement, connections::Connection, meter::Meter};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::{
    engine::Tally,
    ids::{BackfillPk, Dispatch, RunPk, TaskIdx, TiPk, VersionPk},
    message::Sealed,
    row::{AttemptRow, OutboxRow, RunRow, TiRow, XcomRow},
    state::{RunState, TaskState},
};
use gristmill_store::{
    AuditRow, DagRow, LimitKey, LimitRow, NewAssetEvent, NewAssetReference, NewBackfill,
    NewDagVersion, NewRun, NewTi, RunKeyNote, StoreError, StoreResult, TiWrite, Tx, Unfinished,
    UpstreamXcom, VersionRow, WaitingAsset, WorkerRow, Writes, Written,
};
use sqlx::postgres::{PgQueryResult, PgRow};
use std::sync::Arc;
use uuid::Uuid;

/// An open transaction, READ COMMITTED. Rolled back when dropped without commit.
#[derive(Debug)]
pub struct PgTx {
    connection: Connection,
    now: DateTime<Utc>,
    meter: Arc<Meter>,
    /// The first error of a statement. After it the server answers COMMIT with a silent rollback.
    failed: Option<String>,
}

impl PgTx {
    pub(crate) async fn begin(store: &Inner) -> StoreResult<Self> {
        let connection = store.connections.begin().await?;
        store.meter.transaction();
        Ok(Self {
            connection,
            now: store.clock.now(),
            meter: store.meter.clone(),
            failed: None,
        })
    }

    /// All rows of a statement.
    pub(crate) async fn all(&mut self, statement: Statement<'_>) -> StoreResult<Vec<PgRow>> {
        self.meter.statement();
        let outcome = self.connection.all(statement).await;
        self.note(outcome)
    }

    /// The first row, if any.
    pub(crate) async fn optional(
        &mut self,
        statement: Statement<'_>,
    ) -> StoreResult<Option<PgRow>> {
        self.meter.statement();
        let outcome = self.connection.optional(statement).await;
        self.note(outcome)
    }

    pub(crate) async fn execute(&mut self, statement: Statement<'_>) -> StoreResult<PgQueryResult> {
        self.meter.statement();
        let outcome = self.connection.execute(statement).await;
        self.note(outcome)
    }

    /// Deletes locked, ended runs with all that belongs to them.
    pub(crate) async fn delete_runs(&mut self, runs: &[i64]) -> StoreResult<()> {
        retention::delete_runs(self, runs).await
    }

    /// What was to be written breaks an invariant: nothing of this transaction may be committed.
    fn corrupt(&mut self, error: String) -> StoreError {
        self.failed = Some(error.clone());
        StoreError::Corrupt(error)
    }

    fn note<T>(&mut self, outcome: StoreResult<T>) -> StoreResult<T> {
        if let Err(error) = &outcome {
            self.failed.get_or_insert_with(|| error.to_string());
        }
        outcome
    }
}

#[async_trait]
impl Tx for PgTx {
    async fn commit(mut self) -> StoreResult<()> {
        if let Some(why) = self.failed {
            return Err(StoreError::Other(format!(
                "the transaction cannot be committed, a statement of it failed: {why}"
            )));
        }
        self.connection.commit().await
    }

    fn now(&self) -> DateTime<Utc> {
        self.now
    }

    async fn put_dag_version(&mut self, new: &NewDagVersion) -> StoreResult<(VersionRow, bool)> {
        dags::put_version(self, new).await
    }

    async fn lock_due_dags(&mut self, max: i64) -> StoreResult<Vec<DagRow>> {
        dags::lock_due(self, max).await
    }

    async fn lock_dag(&mut self, dag_id: &str) -> StoreResult<Option<DagRow>> {
        dags::lock(self, dag_id).await
    }

    async fn update_dag(&mut self, dag: &DagRow) -> StoreResult<()> {
        dags::update(self, dag).await
    }

    async fn insert_backfill(
        &mut self,
        new: &NewBackfill,
        left_out: i32,
    ) -> StoreResult<BackfillPk> {
        backfills::insert(self, new, left_out).await
    }

    async fn active_backfill(&mut self, dag_id: &str) -> StoreResult<Option<BackfillPk>> {
        backfills::active(self, dag_id).await
    }

    async fn newest_runs(
        &mut self,
        dag_id: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> StoreResult<Vec<(DateTime<Utc>, RunState)>> {
        backfills::newest_runs(self, dag_id, from, to).await
    }

    async fn pause_backfill(&mut self, id: BackfillPk, paused: bool) -> StoreResult<bool> {
        backfills::pause(self, id, paused).await
    }

    async fn cancel_backfill(&mut self, id: BackfillPk, reason: &str) -> StoreResult<Option<i64>> {
        backfills::cancel(self, id, reason).await
    }

    async fn put_asset_references(
        &mut self,
        dag_id: &str,
        references: &[NewAssetReference],
    ) -> StoreResult<()> {
        assets::put_references(self, dag_id, references).await
    }

    async fn put_asset_events(&mut self, events: &[NewAssetEvent]) -> StoreResult<Vec<i64>> {
        assets::put_events(self, events).await
    }

    async fn lock_dags_with_asset_events(&mut self, max: i64) -> StoreResult<Vec<DagRow>> {
        assets::lock_dags(self, max).await
    }

    async fn waiting_assets(&mut self, dag_id: &str) -> StoreResult<Vec<WaitingAsset>> {
        assets::waiting(self, dag_id).await
    }

    async fn take_asset_events(
        &mut self,
        dag_id: &str,
        up_to: i64,
        run: Option<RunPk>,
    ) -> StoreResult<()> {
        assets::take_events(self, dag_id, up_to, run).await
    }

    async fn keep_asset_events(&mut self, dag_id: &str, up_to: i64, keep: i64) -> StoreResult<()> {
        assets::keep_events(self, dag_id, up_to, keep).await
    }

    async fn unfinished_runs(&mut self, dag_id: &str) -> StoreResult<Unfinished> {
        dags::unfinished_runs(self, dag_id).await
    }

    async fn failures_in_a_row(&mut self, dag_id: &str, at_most: u32) -> StoreResult<u32> {
        dags::failures_in_a_row(self, dag_id, at_most).await
    }

    async fn overlapped_runs(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        runs::overlapped(self, max).await
    }

    async fn version(&mut self, version: VersionPk) -> StoreResult<Option<VersionRow>> {
        dags::version(self, version).await
    }

    async fn insert_runs(&mut self, runs: &[NewRun]) -> StoreResult<Vec<Option<RunPk>>> {
        runs::insert(self, runs).await
    }

    async fn put_audits(&mut self, entries: &[AuditRow]) -> StoreResult<()> {
        let statement = crate::reads::journal::insert_audits(entries);
        self.execute(statement).await.map(drop)
    }

    async fn run_by_idempotency_key(
        &mut self,
        dag_id: &str,
        key: &str,
    ) -> StoreResult<Option<(RunPk, String)>> {
        runs::by_idempotency_key(self, dag_id, key).await
    }

    async fn lock_runs(&mut self, runs: &[RunPk]) -> StoreResult<Vec<RunRow>> {
        runs::lock(self, runs).await
    }

    async fn startable_runs(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        runs::startable(self, max).await
    }

    async fn update_runs(&mut self, runs: &[RunRow]) -> StoreResult<()> {
        runs::update(self, runs).await
    }

    async fn runs_to_stop(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        runs::to_stop(self, max).await
    }

    async fn insert_tis(&mut self, tis: &[NewTi]) -> StoreResult<Vec<TiPk>> {
        task_instances::insert(self, tis).await
    }

    async fn load_tis(&mut self, tis: &[TiPk]) -> StoreResult<Vec<TiRow>> {
        task_instances::load(self, tis).await
    }

    async fn load_nodes(&mut self, nodes: &[(RunPk, TaskIdx)]) -> StoreResult<Vec<TiRow>> {
        task_instances::load_nodes(self, nodes).await
    }

    async fn load_instances(
        &mut self,
        instances: &[(RunPk, TaskIdx, Option<i32>)],
    ) -> StoreResult<Vec<TiRow>> {
        task_instances::load_instances(self, instances).await
    }

    async fn lock_and_load(
        &mut self,
        runs: &[RunPk],
        tis: &[TiPk],
    ) -> StoreResult<(Vec<RunRow>, Vec<TiRow>)> {
        task_instances::lock_and_load(self, runs, tis).await
    }

    async fn load_unfinished(&mut self, run: RunPk) -> StoreResult<Vec<TiRow>> {
        task_instances::load_unfinished(self, run).await
    }

    async fn load_tasks(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        states: &[TaskState],
    ) -> StoreResult<Vec<TiRow>> {
        amend::load_tasks(self, run, tasks, states).await
    }

    async fn tally(&mut self, run: RunPk) -> StoreResult<Tally> {
        amend::tally(self, run).await
    }

    async fn remake_tis(&mut self, rows: &[&TiRow]) -> StoreResult<()> {
        amend::remake(self, rows).await
    }

    async fn delete_xcoms(&mut self, run: RunPk, of: &[TiPk]) -> StoreResult<()> {
        amend::delete_xcoms(self, run, of).await
    }

    async fn announce_run(&mut self, run: &RunRow) -> StoreResult<()> {
        amend::announce(self, run).await
    }

    async fn runs_of(&mut self, tis: &[TiPk]) -> StoreResult<Vec<(TiPk, RunPk)>> {
        task_instances::runs_of(self, tis).await
    }

    async fn update_tis(&mut self, writes: &[TiWrite]) -> StoreResult<Vec<TiPk>> {
        task_instances::update(self, writes).await
    }

    async fn ready_candidates(&mut self, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>> {
        candidates::ready(self, max).await
    }

    async fn others_wait(&mut self, except: &[RunPk]) -> StoreResult<bool> {
        candidates::others_wait(self, except).await
    }

    async fn due_retries(&mut self, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>> {
        task_instances::due_retries(self, max).await
    }

    async fn ensure_limits(
        &mut self,
        limits: &[(LimitKey, i64)],
        overwrite: bool,
    ) -> StoreResult<()> {
        limits::ensure(self, limits, overwrite).await
    }

    async fn lock_limits(&mut self, keys: &[LimitKey]) -> StoreResult<Vec<LimitRow>> {
        limits::lock(self, keys).await
    }

    async fn lock_limits_and_look(
        &mut self,
        keys: &[LimitKey],
        except: Option<&[RunPk]>,
    ) -> StoreResult<(Vec<LimitRow>, bool)> {
        limits::lock_and_look(self, keys, except).await
    }

    async fn set_run_keys(&mut self, keys: &[RunKeyNote]) -> StoreResult<()> {
        runs::set_keys(self, keys).await
    }

    async fn running_with_key(
        &mut self,
        dag_id: &str,
        key: &str,
    ) -> StoreResult<Vec<(RunPk, bool)>> {
        runs::running_with_key(self, dag_id, key).await
    }

    async fn cap_run_keys(&mut self, dag_id: &str, cap: i64) -> StoreResult<()> {
        limits::cap_run_keys(self, dag_id, cap).await
    }

    async fn take_tokens(&mut self, queues: &[(String, i64)]) -> StoreResult<()> {
        limits::take_tokens(self, queues).await
    }

    async fn active_tasks(&mut self, except: &[RunPk]) -> StoreResult<i64> {
        limits::active_tasks(self, except).await
    }

    async fn spend_limits(&mut self, deltas: &[(LimitKey, i64)]) -> StoreResult<()> {
        limits::spend(self, deltas).await
    }

    async fn put_xcoms(&mut self, xcoms: &[XcomRow]) -> StoreResult<()> {
        xcoms::put(self, xcoms).await
    }

    async fn xcoms_of_tasks(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        keys: &[String],
    ) -> StoreResult<Vec<XcomRow>> {
        xcoms::of_tasks(self, run, tasks, keys).await
    }

    async fn xcom_refs(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        max: i64,
    ) -> StoreResult<Vec<UpstreamXcom>> {
        xcoms::refs(self, run, tasks, max).await
    }

    async fn xcom_refs_at(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        map_indexes: &[i32],
    ) -> StoreResult<Vec<UpstreamXcom>> {
        xcoms::refs_at(self, run, tasks, map_indexes).await
    }

    async fn sealed(
        &mut self,
        connections: &[String],
        variables: &[String],
    ) -> StoreResult<Sealed> {
        upkeep::sealed(self, connections, variables).await
    }

    async fn insert_attempts(&mut self, attempts: &[AttemptRow]) -> StoreResult<()> {
        task_instances::insert_attempts(self, attempts).await
    }

    async fn insert_outbox(&mut self, rows: &[OutboxRow]) -> StoreResult<()> {
        outbox::insert(self, rows).await
    }

    async fn delete_outbox(&mut self, confirmed: &[Dispatch]) -> StoreResult<()> {
        if confirmed.is_empty() {
            return Ok(());
        }
        self.execute(outbox::delete(confirmed)).await.map(drop)
    }

    async fn write(&mut self, writes: &Writes<'_>) -> StoreResult<Written> {
        write::write(self, writes).await
    }

    async fn lock_worker(&mut self, incarnation: &str) -> StoreResult<WorkerRow> {
        upkeep::lock_worker(self, incarnation).await
    }

    async fn update_worker(&mut self, worker: &WorkerRow) -> StoreResult<()> {
        upkeep::update_worker(self, worker).await
    }

    async fn apply_barrier(&mut self, barrier: Uuid, shard: u16) -> StoreResult<()> {
        upkeep::apply_barrier(self, barrier, shard).await
    }

    async fn delete_old(
        &mut self,
        ended_before: DateTime<Utc>,
        max: i64,
    ) -> StoreResult<Vec<gristmill_store::DeletedRun>> {
        retention::delete_old(self, ended_before, max).await
    }

    async fn put_dead_letter(
        &mut self,
        source: &str,
        reason: &str,
        body: &[u8],
    ) -> StoreResult<()> {
        upkeep::put_dead_letter(self, source, reason, body).await
    }
}
