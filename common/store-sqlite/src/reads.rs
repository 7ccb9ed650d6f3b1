//! Queries on a reader, and small writes as transactions of their own.

use crate::{SqliteStore, connect, error::store_error, writer};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{
    ids::{BackfillPk, Dispatch, RunPk, TaskIdx, TiPk, VersionPk},
    limit::RateLimit,
    row::{AttemptRow, OutboxRow, RunRow, TiRow, XcomRow},
};
use gristmill_store::{
    Annotations, AssetEventFilter, AssetEventRow, AssetRow, AuditFilter, AuditRow, BackfillFilter,
    BackfillRow, ComponentRow, DagRow, DeadLetterRow, ImportErrorRow, LimitKey, LimitRow,
    OutDispatch, Page, PoolRow, PoolUse, QueueCounts, Reads, RunFilter, StateCounts, StoreError,
    StoreResult, TiFilter, ToDo, TokenRow, UserRow, VersionRow, WaitingAsset, WorkerRow,
};
use serde_json::Value;
use sqlx::{Connection, migrate::Migrator};
use std::{sync::atomic::Ordering, time::Duration};
use uuid::Uuid;

/// The schema, step by step. Each is applied in a transaction with its mark.
static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// One method of the session as a transaction of its own.
macro_rules! write {
    ($self:ident, $method:ident($($arg:expr),*)) => {{
        let mut lease = $self.shared.writer.begin().await?;
        let answer = lease.session()?.$method($($arg),*).await?;
        lease.commit().await?;
        Ok(answer)
    }};
}

/// A length of time as the database's arithmetic takes it; too long a one is as good as for ever.
fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::days(365_000))
}

#[async_trait]
impl Reads for SqliteStore {
    async fn migrate(&self) -> StoreResult<()> {
        // Other processes are kept out by the file's lock.
        let _one = self.shared.migrating.lock().await;
        let mut connection = connect::writer(&self.shared.path).await?;
        let done = MIGRATIONS.run_direct(None, &mut connection, false).await;
        connection.close().await.map_err(store_error)?;
        match done {
            Ok(()) => Ok(()),
            // A file that a newer build has migrated.
            Err(sqlx::migrate::MigrateError::VersionMissing(_)) => self.check_schema().await,
            Err(error) => Err(StoreError::Other(format!(
                "{} cannot be migrated: {error}",
                self.shared.path.display()
            ))),
        }
    }

    async fn check_schema(&self) -> StoreResult<()> {
        let needed = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
        let found = self.reader().await?.schema_version().await?;
        if found == needed {
            Ok(())
        } else {
            Err(StoreError::Schema { found, needed })
        }
    }

    async fn ping(&self) -> StoreResult<DateTime<Utc>> {
        let mut reader = self.reader().await?;
        reader.ping().await?;
        Ok(reader.now)
    }

    fn now(&self) -> DateTime<Utc> {
        writer::now()
    }

    fn run_changes(&self) -> u64 {
        *self.shared.runs.borrow()
    }

    async fn run_changed(&self, seen: u64, at_most: Duration) {
        let mut changes = self.shared.runs.subscribe();
        // An error means that nothing can change any more; either way the caller looks again after `at_most`.
        let _ = tokio::time::timeout(at_most, changes.wait_for(|n| *n != seen)).await;
    }

    async fn dag(&self, dag_id: &str) -> StoreResult<Option<DagRow>> {
        self.reader().await?.dag(dag_id).await
    }

    async fn runs_by_pk(&self, runs: &[RunPk]) -> StoreResult<Vec<RunRow>> {
        self.reader().await?.load_runs(runs).await
    }

    async fn pool_use(&self, name: &str) -> StoreResult<PoolUse> {
        self.reader().await?.pool_use(name).await
    }

    async fn to_do(&self, outbox_age: Duration) -> StoreResult<ToDo> {
        let mut reader = self.reader().await?;
        let written_before = reader.now - delta(outbox_age);
        reader.look_for_work(written_before).await
    }

    async fn unpublished(&self, age: Duration, max: i64) -> StoreResult<Vec<OutboxRow>> {
        let mut reader = self.reader().await?;
        let written_before = reader.now - delta(age);
        reader.unpublished(written_before, max).await
    }

    async fn outbox_oldest_age(&self) -> StoreResult<Option<Duration>> {
        let mut reader = self.reader().await?;
        let oldest = reader.outbox_oldest().await?;
        Ok(oldest.map(|at| (reader.now - at).to_std().unwrap_or_default()))
    }

    async fn confirm_published(&self, confirmed: &[Dispatch]) -> StoreResult<()> {
        if confirmed.is_empty() {
            return Ok(());
        }
        write!(self, delete_outbox(confirmed))
    }

    async fn unclaimed(&self, margin: Duration, max: i64) -> StoreResult<Vec<OutDispatch>> {
        let mut reader = self.reader().await?;
        let claim_before = reader.now - delta(margin);
        reader.unclaimed(claim_before, max).await
    }

    fn statements(&self) -> (u64, u64) {
        let stats = &self.shared.stats;
        (
            stats.statements.load(Ordering::Relaxed),
            stats.transactions.load(Ordering::Relaxed),
        )
    }

    async fn backfill(&self, id: BackfillPk) -> StoreResult<Option<BackfillRow>> {
        self.reader().await?.backfill(id).await
    }

    async fn backfills(&self, filter: &BackfillFilter) -> StoreResult<Page<BackfillRow>> {
        self.reader().await?.backfills(filter).await
    }

    async fn assets(
        &self,
        pattern: Option<&str>,
        dag_ids: &[String],
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<AssetRow>> {
        self.reader()
            .await?
            .assets(pattern, dag_ids, limit, offset)
            .await
    }

    async fn asset(&self, id: i64) -> StoreResult<Option<AssetRow>> {
        self.reader().await?.asset(id).await
    }

    async fn asset_events(&self, filter: &AssetEventFilter) -> StoreResult<Page<AssetEventRow>> {
        self.reader().await?.asset_events(filter).await
    }

    async fn queued_asset_events(
        &self,
        dag_id: Option<&str>,
        asset_id: Option<i64>,
    ) -> StoreResult<Vec<WaitingAsset>> {
        self.reader()
            .await?
            .queued_asset_events(dag_id, asset_id)
            .await
    }

    async fn delete_queued_asset_events(
        &self,
        dag_id: Option<&str>,
        asset_id: Option<i64>,
    ) -> StoreResult<u64> {
        write!(self, delete_queued_asset_events(dag_id, asset_id))
    }

    async fn dags(
        &self,
        pattern: Option<&str>,
        include_stale: bool,
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<DagRow>> {
        self.reader()
            .await?
            .dags(pattern, include_stale, limit, offset)
            .await
    }

    async fn version(&self, version: VersionPk) -> StoreResult<Option<VersionRow>> {
        self.reader().await?.version(version).await
    }

    async fn versions(
        &self,
        dag_id: &str,
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<VersionRow>> {
        self.reader().await?.versions(dag_id, limit, offset).await
    }

    async fn set_paused(&self, dag_id: &str, paused: bool) -> StoreResult<DagRow> {
        write!(self, set_paused(dag_id, paused))
    }

    async fn delete_dag(&self, dag_id: &str) -> StoreResult<()> {
        write!(self, delete_dag(dag_id))
    }

    async fn mark_stale(&self, prefix: &str, keep: &[String]) -> StoreResult<u64> {
        write!(self, mark_stale(prefix, keep))
    }

    async fn put_import_errors(
        &self,
        prefix: &str,
        errors: &[(String, String)],
    ) -> StoreResult<()> {
        write!(self, put_import_errors(prefix, errors))
    }

    async fn import_errors(&self) -> StoreResult<Vec<ImportErrorRow>> {
        self.reader().await?.import_errors().await
    }

    async fn run(&self, dag_id: &str, run_id: &str) -> StoreResult<Option<RunRow>> {
        self.reader().await?.run(dag_id, run_id).await
    }

    async fn runs(&self, filter: &RunFilter) -> StoreResult<Page<RunRow>> {
        self.reader().await?.runs(filter).await
    }

    async fn delete_run(&self, run: RunPk) -> StoreResult<()> {
        write!(self, delete_run(run))
    }

    async fn task_instances(&self, filter: &TiFilter) -> StoreResult<Page<TiRow>> {
        self.reader().await?.task_instances(filter).await
    }

    async fn task_instance(
        &self,
        run: RunPk,
        task_id: &str,
        map_index: i32,
    ) -> StoreResult<Option<TiRow>> {
        self.reader()
            .await?
            .task_instance(run, task_id, map_index)
            .await
    }

    async fn state_counts(&self, run: RunPk) -> StoreResult<StateCounts> {
        self.reader().await?.state_counts(run).await
    }

    async fn attempts(&self, ti: TiPk) -> StoreResult<Vec<AttemptRow>> {
        self.reader().await?.attempts(ti).await
    }

    async fn xcoms(
        &self,
        run: RunPk,
        ti: Option<TiPk>,
        key: Option<&str>,
    ) -> StoreResult<Vec<XcomRow>> {
        self.reader().await?.xcoms(run, ti, key).await
    }

    async fn xcoms_of_task(
        &self,
        run: RunPk,
        task: TaskIdx,
        key: &str,
    ) -> StoreResult<Vec<XcomRow>> {
        self.reader().await?.xcoms_of_task(run, task, key).await
    }

    async fn limits(&self, keys: &[LimitKey]) -> StoreResult<Vec<LimitRow>> {
        self.reader().await?.limits(keys).await
    }

    async fn pools(&self) -> StoreResult<Vec<PoolRow>> {
        self.reader().await?.pools().await
    }

    async fn put_pool(
        &self,
        name: &str,
        slots: i64,
        description: Option<&str>,
        include_deferred: bool,
    ) -> StoreResult<PoolRow> {
        write!(self, put_pool(name, slots, description, include_deferred))
    }

    async fn delete_pool(&self, name: &str) -> StoreResult<()> {
        write!(self, delete_pool(name))
    }

    async fn queue_counts(&self) -> StoreResult<Vec<QueueCounts>> {
        self.reader().await?.queue_counts().await
    }

    async fn set_queue_paused(&self, queue: &str, paused: bool) -> StoreResult<()> {
        write!(self, set_queue_paused(queue, paused))
    }

    async fn set_queue_rate(&self, queue: &str, rate: Option<RateLimit>) -> StoreResult<()> {
        write!(self, set_queue_rate(queue, rate))
    }

    async fn parallelism(&self) -> StoreResult<(Option<i64>, i64)> {
        self.reader().await?.parallelism().await
    }

    async fn set_parallelism(&self, cap: Option<i64>) -> StoreResult<()> {
        write!(self, set_parallelism(cap))
    }

    async fn set_queue_caps(&self, caps: &[(String, i64)]) -> StoreResult<()> {
        write!(self, set_queue_caps(caps))
    }

    async fn queues(&self) -> StoreResult<Vec<String>> {
        self.reader().await?.queues().await
    }

    async fn expire_claim(&self, bounced: &[Dispatch]) -> StoreResult<()> {
        write!(self, expire_claim(bounced))
    }

    async fn out_dispatches(&self, worker: Option<&str>) -> StoreResult<Vec<OutDispatch>> {
        self.reader().await?.out_dispatches(worker).await
    }

    async fn out_in_run(&self, run: RunPk) -> StoreResult<Vec<OutDispatch>> {
        self.reader().await?.out_in_run(run).await
    }

    async fn restarting(&self, max: i64) -> StoreResult<Vec<OutDispatch>> {
        self.reader().await?.restarting(max).await
    }

    async fn busy_workers(&self) -> StoreResult<Vec<WorkerRow>> {
        self.reader().await?.busy_workers().await
    }

    async fn leased_over_broker(&self, within: Duration) -> StoreResult<bool> {
        let since = chrono::TimeDelta::from_std(within)
            .ok()
            .and_then(|within| self.now().checked_sub_signed(within))
            .unwrap_or(DateTime::UNIX_EPOCH);
        self.reader().await?.leased_over_broker(since).await
    }

    async fn barrier_applied(&self, barrier: Uuid) -> StoreResult<u16> {
        self.reader().await?.barrier_applied(barrier).await
    }

    async fn heartbeat(&self, kind: &str, id: &str, hostname: &str) -> StoreResult<()> {
        write!(self, heartbeat(kind, id, hostname))
    }

    async fn components(&self) -> StoreResult<Vec<ComponentRow>> {
        self.reader().await?.components().await
    }

    async fn user(&self, username: &str) -> StoreResult<Option<UserRow>> {
        self.reader().await?.user(username).await
    }

    async fn users(&self) -> StoreResult<Vec<UserRow>> {
        self.reader().await?.users().await
    }

    async fn put_user(&self, user: &UserRow, replace: bool) -> StoreResult<bool> {
        write!(self, put_user(user, replace))
    }

    async fn token(&self, hash: &str) -> StoreResult<Option<TokenRow>> {
        self.reader().await?.token(hash).await
    }

    async fn tokens(&self) -> StoreResult<Vec<TokenRow>> {
        self.reader().await?.tokens().await
    }

    async fn put_token(&self, token: &TokenRow) -> StoreResult<()> {
        write!(self, put_token(token))
    }

    async fn delete_token(&self, name: &str) -> StoreResult<bool> {
        write!(self, delete_token(name))
    }

    async fn put_secret(
        &self,
        kind: &str,
        name: &str,
        sealed: &str,
        meta: &serde_json::Value,
    ) -> StoreResult<()> {
        write!(self, put_secret(kind, name, sealed, meta))
    }

    async fn secret(
        &self,
        kind: &str,
        name: &str,
    ) -> StoreResult<Option<(String, serde_json::Value)>> {
        self.reader().await?.secret(kind, name).await
    }

    async fn secrets(&self, kind: &str) -> StoreResult<Vec<(String, serde_json::Value)>> {
        self.reader().await?.secrets(kind).await
    }

    async fn delete_secret(&self, kind: &str, name: &str) -> StoreResult<bool> {
        write!(self, delete_secret(kind, name))
    }

    async fn put_audit(&self, entry: &AuditRow) -> StoreResult<()> {
        write!(self, put_audit(entry))
    }

    async fn delete_audits(&self, before: DateTime<Utc>, max: i64) -> StoreResult<u64> {
        write!(self, delete_audits(before, max))
    }

    async fn audit(&self, limit: i64, offset: i64) -> StoreResult<Page<AuditRow>> {
        self.reader().await?.audit(limit, offset).await
    }

    async fn dead_letters(&self, limit: i64) -> StoreResult<Vec<DeadLetterRow>> {
        self.reader().await?.dead_letters(limit).await
    }

    async fn dead_tasks(&self, limit: i64) -> StoreResult<Vec<TiRow>> {
        self.reader().await?.dead_tasks(limit).await
    }
}

#[async_trait]
impl Annotations for SqliteStore {
    async fn audit_entries(&self, filter: &AuditFilter) -> StoreResult<Page<(i64, AuditRow)>> {
        self.reader().await?.audit_entries(filter).await
    }

    async fn task_notes(&self, tis: &[TiPk]) -> StoreResult<Vec<(TiPk, String)>> {
        self.reader().await?.task_notes(tis).await
    }

    async fn put_task_note(&self, ti: &TiRow, note: Option<&str>) -> StoreResult<()> {
        write!(self, put_task_note(ti.pk, note))
    }

    async fn set_xcom(&self, ti: TiPk, key: &str, value: &Value) -> StoreResult<Option<XcomRow>> {
        write!(self, set_xcom(ti, key, value))
    }

    async fn delete_xcom(&self, run: RunPk, ti: TiPk, key: &str) -> StoreResult<bool> {
        write!(self, delete_xcom(run, ti, key))
    }

    async fn favorites(&self, username: &str) -> StoreResult<Vec<String>> {
        self.reader().await?.favorites(username).await
    }

    async fn set_favorite(&self, username: &str, dag_id: &str, likes: bool) -> StoreResult<bool> {
        write!(self, set_favorite(username, dag_id, likes))
    }
}
