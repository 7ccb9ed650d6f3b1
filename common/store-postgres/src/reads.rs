//! Queries, and small writes that stand alone. The statements stand in the modules below, by noun.

mod access;
mod annotations;
mod assets;
mod backfills;
mod calls;
mod dags;
mod data;
pub(crate) mod journal;
mod limits;
mod listing;
mod reconcile;
mod runs;
mod task_instances;
mod waits;

use crate::{PgStore, rows::get, schema};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{BackfillPk, Dispatch, RunPk, TaskIdx, TiPk, VersionPk},
    limit::RateLimit,
    row::{AttemptRow, OutboxRow, RunRow, TiRow, XcomRow},
};
use gristmill_store::{
    AssetEventFilter, AssetEventRow, AssetRow, AuditRow, BackfillFilter, BackfillRow, ComponentRow,
    DagRow, DeadLetterRow, ImportErrorRow, LimitKey, LimitRow, OutDispatch, Page, PoolRow, PoolUse,
    QueueCounts, Reads, RunFilter, StateCounts, StoreResult, TiFilter, ToDo, TokenRow, UserRow,
    VersionRow, WaitingAsset, WorkerRow,
};
use sqlx::postgres::PgRow;
use std::time::Duration;
use uuid::Uuid;

/// The number in the column `total` of the only row.
fn total(row: Option<PgRow>) -> StoreResult<i64> {
    row.map_or(Ok(0), |row| get(&row, "total"))
}

#[async_trait]
impl Reads for PgStore {
    async fn migrate(&self) -> StoreResult<()> {
        schema::migrate(self).await
    }

    async fn check_schema(&self) -> StoreResult<()> {
        schema::check(self).await
    }

    async fn ping(&self) -> StoreResult<DateTime<Utc>> {
        self.measure_clock().await
    }

    fn now(&self) -> DateTime<Utc> {
        self.inner.clock.now()
    }

    fn run_changes(&self) -> u64 {
        self.inner.changes.heard()
    }

    async fn run_changed(&self, seen: u64, at_most: Duration) {
        self.inner.changes.wait(seen, at_most).await;
    }

    async fn dag(&self, dag_id: &str) -> StoreResult<Option<DagRow>> {
        dags::dag(self, dag_id).await
    }

    async fn backfill(&self, id: BackfillPk) -> StoreResult<Option<BackfillRow>> {
        backfills::one(self, id).await
    }

    async fn backfills(&self, filter: &BackfillFilter) -> StoreResult<Page<BackfillRow>> {
        backfills::list(self, filter).await
    }

    async fn assets(
        &self,
        pattern: Option<&str>,
        dag_ids: &[String],
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<AssetRow>> {
        assets::list(self, pattern, dag_ids, limit, offset).await
    }

    async fn asset(&self, id: i64) -> StoreResult<Option<AssetRow>> {
        assets::one(self, id).await
    }

    async fn asset_events(&self, filter: &AssetEventFilter) -> StoreResult<Page<AssetEventRow>> {
        assets::events(self, filter).await
    }

    async fn queued_asset_events(
        &self,
        dag_id: Option<&str>,
        asset_id: Option<i64>,
    ) -> StoreResult<Vec<WaitingAsset>> {
        assets::queued(self, dag_id, asset_id).await
    }

    async fn delete_queued_asset_events(
        &self,
        dag_id: Option<&str>,
        asset_id: Option<i64>,
    ) -> StoreResult<u64> {
        assets::delete_queued(self, dag_id, asset_id).await
    }

    async fn dags(
        &self,
        pattern: Option<&str>,
        include_stale: bool,
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<DagRow>> {
        dags::dags(self, pattern, include_stale, limit, offset).await
    }

    async fn version(&self, version: VersionPk) -> StoreResult<Option<VersionRow>> {
        dags::version(self, version).await
    }

    async fn versions(
        &self,
        dag_id: &str,
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<VersionRow>> {
        dags::versions(self, dag_id, limit, offset).await
    }

    async fn set_paused(&self, dag_id: &str, paused: bool) -> StoreResult<DagRow> {
        dags::set_paused(self, dag_id, paused).await
    }

    async fn delete_dag(&self, dag_id: &str) -> StoreResult<()> {
        dags::delete_dag(self, dag_id).await
    }

    async fn mark_stale(&self, prefix: &str, keep: &[String]) -> StoreResult<u64> {
        dags::mark_stale(self, prefix, keep).await
    }

    async fn put_import_errors(
        &self,
        prefix: &str,
        errors: &[(String, String)],
    ) -> StoreResult<()> {
        dags::put_import_errors(self, prefix, errors).await
    }

    async fn import_errors(&self) -> StoreResult<Vec<ImportErrorRow>> {
        dags::import_errors(self).await
    }

    async fn run(&self, dag_id: &str, run_id: &str) -> StoreResult<Option<RunRow>> {
        runs::run(self, dag_id, run_id).await
    }

    async fn runs_by_pk(&self, runs: &[RunPk]) -> StoreResult<Vec<RunRow>> {
        runs::runs_by_pk(self, runs).await
    }

    async fn runs(&self, filter: &RunFilter) -> StoreResult<Page<RunRow>> {
        runs::runs(self, filter).await
    }

    async fn delete_run(&self, run: RunPk) -> StoreResult<()> {
        runs::delete_run(self, run).await
    }

    async fn task_instances(&self, filter: &TiFilter) -> StoreResult<Page<TiRow>> {
        task_instances::task_instances(self, filter).await
    }

    async fn task_instance(
        &self,
        run: RunPk,
        task_id: &str,
        map_index: i32,
    ) -> StoreResult<Option<TiRow>> {
        task_instances::task_instance(self, run, task_id, map_index).await
    }

    async fn state_counts(&self, run: RunPk) -> StoreResult<StateCounts> {
        task_instances::state_counts(self, run).await
    }

    async fn attempts(&self, ti: TiPk) -> StoreResult<Vec<AttemptRow>> {
        task_instances::attempts(self, ti).await
    }

    async fn xcoms(
        &self,
        run: RunPk,
        ti: Option<TiPk>,
        key: Option<&str>,
    ) -> StoreResult<Vec<XcomRow>> {
        task_instances::xcoms(self, run, ti, key).await
    }

    async fn xcoms_of_task(
        &self,
        run: RunPk,
        task: TaskIdx,
        key: &str,
    ) -> StoreResult<Vec<XcomRow>> {
        task_instances::xcoms_of_task(self, run, task, key).await
    }

    async fn limits(&self, keys: &[LimitKey]) -> StoreResult<Vec<LimitRow>> {
        limits::limits(self, keys).await
    }

    async fn pools(&self) -> StoreResult<Vec<PoolRow>> {
        limits::pools(self).await
    }

    async fn pool_use(&self, name: &str) -> StoreResult<PoolUse> {
        limits::pool_use(self, name).await
    }

    async fn put_pool(
        &self,
        name: &str,
        slots: i64,
        description: Option<&str>,
        include_deferred: bool,
    ) -> StoreResult<PoolRow> {
        limits::put_pool(self, name, slots, description, include_deferred).await
    }

    async fn delete_pool(&self, name: &str) -> StoreResult<()> {
        limits::delete_pool(self, name).await
    }

    async fn queue_counts(&self) -> StoreResult<Vec<QueueCounts>> {
        limits::queue_counts(self).await
    }

    async fn set_queue_paused(&self, queue: &str, paused: bool) -> StoreResult<()> {
        limits::set_queue_paused(self, queue, paused).await
    }

    async fn set_queue_rate(&self, queue: &str, rate: Option<RateLimit>) -> StoreResult<()> {
        limits::set_queue_rate(self, queue, rate).await
    }

    async fn parallelism(&self) -> StoreResult<(Option<i64>, i64)> {
        limits::parallelism(self).await
    }

    async fn set_parallelism(&self, cap: Option<i64>) -> StoreResult<()> {
        limits::set_parallelism(self, cap).await
    }

    async fn set_queue_caps(&self, caps: &[(String, i64)]) -> StoreResult<()> {
        limits::set_queue_caps(self, caps).await
    }

    async fn queues(&self) -> StoreResult<Vec<String>> {
        limits::queues(self).await
    }

    async fn to_do(&self, outbox_age: Duration) -> StoreResult<ToDo> {
        reconcile::to_do(self, outbox_age).await
    }

    async fn unpublished(&self, age: Duration, max: i64) -> StoreResult<Vec<OutboxRow>> {
        reconcile::unpublished(self, age, max).await
    }

    async fn outbox_oldest_age(&self) -> StoreResult<Option<Duration>> {
        reconcile::outbox_oldest_age(self).await
    }

    async fn confirm_published(&self, confirmed: &[Dispatch]) -> StoreResult<()> {
        reconcile::confirm_published(self, confirmed).await
    }

    async fn unclaimed(&self, margin: Duration, max: i64) -> StoreResult<Vec<OutDispatch>> {
        reconcile::unclaimed(self, margin, max).await
    }

    async fn expire_claim(&self, bounced: &[Dispatch]) -> StoreResult<()> {
        reconcile::expire_claim(self, bounced).await
    }

    async fn out_dispatches(&self, worker: Option<&str>) -> StoreResult<Vec<OutDispatch>> {
        reconcile::out_dispatches(self, worker).await
    }

    async fn out_in_run(&self, run: RunPk) -> StoreResult<Vec<OutDispatch>> {
        reconcile::out_in_run(self, run).await
    }

    async fn restarting(&self, max: i64) -> StoreResult<Vec<OutDispatch>> {
        reconcile::restarting(self, max).await
    }

    async fn busy_workers(&self) -> StoreResult<Vec<WorkerRow>> {
        reconcile::busy_workers(self).await
    }

    async fn leased_over_broker(&self, within: Duration) -> StoreResult<bool> {
        reconcile::leased_over_broker(self, within).await
    }

    async fn barrier_applied(&self, barrier: Uuid) -> StoreResult<u16> {
        reconcile::barrier_applied(self, barrier).await
    }

    async fn heartbeat(&self, kind: &str, id: &str, hostname: &str) -> StoreResult<()> {
        journal::heartbeat(self, kind, id, hostname).await
    }

    async fn components(&self) -> StoreResult<Vec<ComponentRow>> {
        journal::components(self).await
    }

    async fn user(&self, username: &str) -> StoreResult<Option<UserRow>> {
        access::user(self, username).await
    }

    async fn users(&self) -> StoreResult<Vec<UserRow>> {
        access::users(self).await
    }

    async fn put_user(&self, user: &UserRow, replace: bool) -> StoreResult<bool> {
        access::put_user(self, user, replace).await
    }

    async fn token(&self, hash: &str) -> StoreResult<Option<TokenRow>> {
        access::token(self, hash).await
    }

    async fn tokens(&self) -> StoreResult<Vec<TokenRow>> {
        access::tokens(self).await
    }

    async fn put_token(&self, token: &TokenRow) -> StoreResult<()> {
        access::put_token(self, token).await
    }

    async fn delete_token(&self, name: &str) -> StoreResult<bool> {
        access::delete_token(self, name).await
    }

    async fn put_secret(
        &self,
        kind: &str,
        name: &str,
        sealed: &str,
        meta: &serde_json::Value,
    ) -> StoreResult<()> {
        access::put_secret(self, kind, name, sealed, meta).await
    }

    async fn secret(
        &self,
        kind: &str,
        name: &str,
    ) -> StoreResult<Option<(String, serde_json::Value)>> {
        access::secret(self, kind, name).await
    }

    async fn secrets(&self, kind: &str) -> StoreResult<Vec<(String, serde_json::Value)>> {
        access::secrets(self, kind).await
    }

    async fn delete_secret(&self, kind: &str, name: &str) -> StoreResult<bool> {
        access::delete_secret(self, kind, name).await
    }

    async fn put_audit(&self, entry: &AuditRow) -> StoreResult<()> {
        journal::put_audit(self, entry).await
    }

    async fn delete_audits(&self, before: DateTime<Utc>, max: i64) -> StoreResult<u64> {
        journal::delete_audits(self, before, max).await
    }

    async fn audit(&self, limit: i64, offset: i64) -> StoreResult<Page<AuditRow>> {
        journal::audit(self, limit, offset).await
    }

    async fn dead_letters(&self, limit: i64) -> StoreResult<Vec<DeadLetterRow>> {
        journal::dead_letters(self, limit).await
    }

    async fn dead_tasks(&self, limit: i64) -> StoreResult<Vec<TiRow>> {
        task_instances::dead_tasks(self, limit).await
    }

    fn statements(&self) -> (u64, u64) {
        self.inner.meter.counts()
    }
}
