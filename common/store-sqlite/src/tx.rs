//! One logical transaction.

use crate::{session::Session, writer::Lease};
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
    NewDagVersion, NewRun, NewTi, RunKeyNote, StoreResult, TiWrite, Tx, Unfinished, UpstreamXcom,
    VersionRow, WaitingAsset, WorkerRow,
};
use uuid::Uuid;

/// A transaction that has the writer: every row it could ask a lock of is its own.
#[derive(Debug)]
pub struct SqliteTx {
    lease: Lease,
    now: DateTime<Utc>,
}

impl SqliteTx {
    pub(crate) fn new(lease: Lease, now: DateTime<Utc>) -> Self {
        Self { lease, now }
    }

    pub(crate) fn session(&mut self) -> StoreResult<&mut Session> {
        self.lease.session()
    }
}

#[async_trait]
impl Tx for SqliteTx {
    async fn commit(self) -> StoreResult<()> {
        self.lease.commit().await
    }

    fn now(&self) -> DateTime<Utc> {
        self.now
    }

    async fn put_dag_version(&mut self, new: &NewDagVersion) -> StoreResult<(VersionRow, bool)> {
        self.lease.session()?.put_dag_version(new).await
    }

    async fn lock_due_dags(&mut self, max: i64) -> StoreResult<Vec<DagRow>> {
        self.lease.session()?.lock_due_dags(max).await
    }

    async fn lock_dag(&mut self, dag_id: &str) -> StoreResult<Option<DagRow>> {
        self.lease.session()?.dag(dag_id).await
    }

    async fn update_dag(&mut self, dag: &DagRow) -> StoreResult<()> {
        self.lease.session()?.update_dag(dag).await
    }

    async fn insert_backfill(
        &mut self,
        new: &NewBackfill,
        left_out: i32,
    ) -> StoreResult<BackfillPk> {
        self.lease.session()?.insert_backfill(new, left_out).await
    }

    async fn active_backfill(&mut self, dag_id: &str) -> StoreResult<Option<BackfillPk>> {
        self.lease.session()?.active_backfill(dag_id).await
    }

    async fn newest_runs(
        &mut self,
        dag_id: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> StoreResult<Vec<(DateTime<Utc>, RunState)>> {
        self.lease.session()?.newest_runs(dag_id, from, to).await
    }

    async fn pause_backfill(&mut self, id: BackfillPk, paused: bool) -> StoreResult<bool> {
        self.lease.session()?.pause_backfill(id, paused).await
    }

    async fn cancel_backfill(&mut self, id: BackfillPk, reason: &str) -> StoreResult<Option<i64>> {
        self.lease.session()?.cancel_backfill(id, reason).await
    }

    async fn put_asset_references(
        &mut self,
        dag_id: &str,
        references: &[NewAssetReference],
    ) -> StoreResult<()> {
        self.lease
            .session()?
            .put_asset_references(dag_id, references)
            .await
    }

    async fn put_asset_events(&mut self, events: &[NewAssetEvent]) -> StoreResult<Vec<i64>> {
        self.lease.session()?.put_asset_events(events).await
    }

    async fn lock_dags_with_asset_events(&mut self, max: i64) -> StoreResult<Vec<DagRow>> {
        self.lease.session()?.dags_with_asset_events(max).await
    }

    async fn waiting_assets(&mut self, dag_id: &str) -> StoreResult<Vec<WaitingAsset>> {
        self.lease
            .session()?
            .queued_asset_events(Some(dag_id), None)
            .await
    }

    async fn take_asset_events(
        &mut self,
        dag_id: &str,
        up_to: i64,
        run: Option<RunPk>,
    ) -> StoreResult<()> {
        self.lease
            .session()?
            .take_asset_events(dag_id, up_to, run)
            .await
    }

    async fn keep_asset_events(&mut self, dag_id: &str, up_to: i64, keep: i64) -> StoreResult<()> {
        self.lease
            .session()?
            .keep_asset_events(dag_id, up_to, keep)
            .await
    }

    async fn unfinished_runs(&mut self, dag_id: &str) -> StoreResult<Unfinished> {
        self.lease.session()?.unfinished_runs(dag_id).await
    }

    async fn failures_in_a_row(&mut self, dag_id: &str, at_most: u32) -> StoreResult<u32> {
        self.lease
            .session()?
            .failures_in_a_row(dag_id, at_most)
            .await
    }

    async fn overlapped_runs(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        self.lease.session()?.overlapped_runs(max).await
    }

    async fn version(&mut self, version: VersionPk) -> StoreResult<Option<VersionRow>> {
        self.lease.session()?.version(version).await
    }

    async fn insert_runs(&mut self, runs: &[NewRun]) -> StoreResult<Vec<Option<RunPk>>> {
        self.lease.session()?.insert_runs(runs).await
    }

    async fn put_audits(&mut self, entries: &[AuditRow]) -> StoreResult<()> {
        let session = self.lease.session()?;
        for entry in entries {
            session.put_audit(entry).await?;
        }
        Ok(())
    }

    async fn run_by_idempotency_key(
        &mut self,
        dag_id: &str,
        key: &str,
    ) -> StoreResult<Option<(RunPk, String)>> {
        self.lease
            .session()?
            .run_by_idempotency_key(dag_id, key)
            .await
    }

    async fn lock_runs(&mut self, runs: &[RunPk]) -> StoreResult<Vec<RunRow>> {
        self.lease.session()?.load_runs(runs).await
    }

    async fn startable_runs(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        self.lease.session()?.startable_runs(max).await
    }

    async fn update_runs(&mut self, runs: &[RunRow]) -> StoreResult<()> {
        self.lease.session()?.update_runs(runs).await
    }

    async fn runs_to_stop(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        self.lease.session()?.runs_to_stop(max).await
    }

    async fn insert_tis(&mut self, tis: &[NewTi]) -> StoreResult<Vec<TiPk>> {
        self.lease.session()?.insert_tis(tis).await
    }

    async fn load_tis(&mut self, tis: &[TiPk]) -> StoreResult<Vec<TiRow>> {
        self.lease.session()?.load_tis(tis).await
    }

    async fn load_nodes(&mut self, nodes: &[(RunPk, TaskIdx)]) -> StoreResult<Vec<TiRow>> {
        self.lease.session()?.load_nodes(nodes).await
    }

    async fn load_instances(
        &mut self,
        instances: &[(RunPk, TaskIdx, Option<i32>)],
    ) -> StoreResult<Vec<TiRow>> {
        self.lease.session()?.load_instances(instances).await
    }

    async fn load_unfinished(&mut self, run: RunPk) -> StoreResult<Vec<TiRow>> {
        self.lease.session()?.load_unfinished(run).await
    }

    async fn load_tasks(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        states: &[TaskState],
    ) -> StoreResult<Vec<TiRow>> {
        self.lease.session()?.load_tasks(run, tasks, states).await
    }

    async fn tally(&mut self, run: RunPk) -> StoreResult<Tally> {
        self.lease.session()?.tally(run).await
    }

    async fn remake_tis(&mut self, rows: &[&TiRow]) -> StoreResult<()> {
        self.lease.session()?.remake_tis(rows).await
    }

    async fn delete_xcoms(&mut self, run: RunPk, of: &[TiPk]) -> StoreResult<()> {
        self.lease.session()?.delete_xcoms(run, of).await
    }

    async fn announce_run(&mut self, run: &RunRow) -> StoreResult<()> {
        self.lease.session()?.announce_run(run).await
    }

    async fn runs_of(&mut self, tis: &[TiPk]) -> StoreResult<Vec<(TiPk, RunPk)>> {
        self.lease.session()?.runs_of(tis).await
    }

    async fn update_tis(&mut self, writes: &[TiWrite]) -> StoreResult<Vec<TiPk>> {
        self.lease.session()?.update_tis(writes).await
    }

    async fn ready_candidates(&mut self, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>> {
        self.lease.session()?.ready_candidates(max).await
    }

    async fn others_wait(&mut self, except: &[RunPk]) -> StoreResult<bool> {
        self.lease.session()?.others_wait(except).await
    }

    async fn due_retries(&mut self, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>> {
        self.lease.session()?.due_retries(max).await
    }

    async fn ensure_limits(
        &mut self,
        limits: &[(LimitKey, i64)],
        overwrite: bool,
    ) -> StoreResult<()> {
        self.lease.session()?.ensure_limits(limits, overwrite).await
    }

    async fn lock_limits(&mut self, keys: &[LimitKey]) -> StoreResult<Vec<LimitRow>> {
        self.lease.session()?.limits(keys).await
    }

    async fn set_run_keys(&mut self, keys: &[RunKeyNote]) -> StoreResult<()> {
        self.lease.session()?.set_run_keys(keys).await
    }

    async fn running_with_key(
        &mut self,
        dag_id: &str,
        key: &str,
    ) -> StoreResult<Vec<(RunPk, bool)>> {
        self.lease.session()?.running_with_key(dag_id, key).await
    }

    async fn cap_run_keys(&mut self, dag_id: &str, cap: i64) -> StoreResult<()> {
        self.lease.session()?.cap_run_keys(dag_id, cap).await
    }

    async fn take_tokens(&mut self, queues: &[(String, i64)]) -> StoreResult<()> {
        self.lease.session()?.take_tokens(queues).await
    }

    async fn active_tasks(&mut self, except: &[RunPk]) -> StoreResult<i64> {
        self.lease.session()?.active_tasks(except).await
    }

    async fn spend_limits(&mut self, deltas: &[(LimitKey, i64)]) -> StoreResult<()> {
        self.lease.session()?.spend_limits(deltas).await
    }

    async fn put_xcoms(&mut self, xcoms: &[XcomRow]) -> StoreResult<()> {
        self.lease.session()?.put_xcoms(xcoms).await
    }

    async fn xcoms_of_tasks(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        keys: &[String],
    ) -> StoreResult<Vec<XcomRow>> {
        self.lease.session()?.xcoms_of_tasks(run, tasks, keys).await
    }

    async fn xcom_refs(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        max: i64,
    ) -> StoreResult<Vec<UpstreamXcom>> {
        self.lease.session()?.xcom_refs(run, tasks, max).await
    }

    async fn xcom_refs_at(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        map_indexes: &[i32],
    ) -> StoreResult<Vec<UpstreamXcom>> {
        let session = self.lease.session()?;
        session.xcom_refs_at(run, tasks, map_indexes).await
    }

    async fn sealed(
        &mut self,
        connections: &[String],
        variables: &[String],
    ) -> StoreResult<Sealed> {
        self.lease.session()?.sealed(connections, variables).await
    }

    async fn insert_attempts(&mut self, attempts: &[AttemptRow]) -> StoreResult<()> {
        self.lease.session()?.insert_attempts(attempts).await
    }

    async fn insert_outbox(&mut self, rows: &[OutboxRow]) -> StoreResult<()> {
        self.lease.session()?.insert_outbox(rows).await
    }

    async fn delete_outbox(&mut self, confirmed: &[Dispatch]) -> StoreResult<()> {
        self.lease.session()?.delete_outbox(confirmed).await
    }

    async fn lock_worker(&mut self, incarnation: &str) -> StoreResult<WorkerRow> {
        self.lease.session()?.lock_worker(incarnation).await
    }

    async fn update_worker(&mut self, worker: &WorkerRow) -> StoreResult<()> {
        self.lease.session()?.update_worker(worker).await
    }

    async fn apply_barrier(&mut self, barrier: Uuid, shard: u16) -> StoreResult<()> {
        self.lease.session()?.apply_barrier(barrier, shard).await
    }

    async fn delete_old(
        &mut self,
        ended_before: DateTime<Utc>,
        max: i64,
    ) -> StoreResult<Vec<gristmill_store::DeletedRun>> {
        self.lease.session()?.delete_old(ended_before, max).await
    }

    async fn put_dead_letter(
        &mut self,
        source: &str,
        reason: &str,
        body: &[u8],
    ) -> StoreResult<()> {
        self.lease
            .session()?
            .put_dead_letter(source, reason, body)
            .await
    }
}
