//! What the reconcilers look for.

use crate::{
    PgStore,
    bind::column,
    rows::{decode, get, out_columns, unsigned},
    tx,
};
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{
    ids::{Dispatch, RunPk},
    row::OutboxRow,
};
use gristmill_store::{OutDispatch, StoreResult, ToDo, WorkerRow};
use sqlx::query;
use std::time::Duration;
use uuid::Uuid;

/// `span` before the database's now.
fn before(store: &PgStore, span: Duration) -> DateTime<Utc> {
    let now = store.inner.clock.now();
    TimeDelta::from_std(span)
        .ok()
        .and_then(|span| now.checked_sub_signed(span))
        .unwrap_or(DateTime::UNIX_EPOCH)
}

pub(super) async fn to_do(store: &PgStore, outbox_age: Duration) -> StoreResult<ToDo> {
    // Each is one probe of an index that holds little else.
    const SQL: &str = "
        SELECT EXISTS (SELECT FROM dags WHERE next_run_after <= $1 AND NOT is_paused AND NOT is_stale) AS due_dags,
               EXISTS (SELECT FROM dag_runs WHERE state = 'queued' AND backfill_id IS NULL AND run_after <= $1)
                   OR EXISTS (SELECT FROM dag_runs WHERE state = 'queued' AND backfill_id IS NOT NULL) AS queued_runs,
               EXISTS (SELECT FROM dags d WHERE d.overlap = 'cancel' AND NOT d.is_paused
                         AND EXISTS (SELECT FROM dag_runs r WHERE r.state = 'queued' AND r.backfill_id IS NULL
                                       AND r.dag_id = d.dag_id AND r.run_after <= $1 AND r.run_type = 'scheduled'))
                   AS overlaps,
               EXISTS (SELECT FROM asset_queue q JOIN dags d ON d.dag_id = q.dag_id WHERE NOT q.looked) AS asset_events,
               EXISTS (SELECT FROM dag_runs WHERE state = 'running' AND stop_reason IS NOT NULL
                                              AND unfinished_tasks > 0)
                   OR EXISTS (SELECT FROM dag_runs WHERE state = 'running' AND deadline_at <= $1) AS runs_to_stop,
               EXISTS (SELECT FROM dag_runs WHERE can_dispatch) AS ready,
               EXISTS (SELECT FROM task_instances WHERE state = 'up_for_retry' AND next_at <= $1) AS retries,
               EXISTS (SELECT FROM task_instances
                       WHERE state IN ('none', 'up_for_reschedule', 'deferred', 'awaiting_input') AND next_at <= $1)
                   OR EXISTS (SELECT FROM dag_runs WHERE waiter_pk IS NOT NULL AND ended_at IS NOT NULL) AS waits,
               EXISTS (SELECT FROM callbacks WHERE state = 'pending' AND next_at <= $1) AS callbacks,
               EXISTS (SELECT FROM dag_runs WHERE next_deadline <= $1) AS deadlines,
               EXISTS (SELECT FROM task_instances WHERE state = 'queued' AND claim_by < $1)
                   OR EXISTS (SELECT FROM task_instances WHERE state = 'restarting' AND worker IS NULL AND claim_by < $1)
                   AS unclaimed,
               EXISTS (SELECT FROM task_instances t JOIN limits l ON l.kind = 'task_key' AND l.name = t.concurrency_key
                       WHERE t.concurrency_strategy IS NOT NULL AND t.state = 'scheduled'
                         AND l.used >= t.concurrency_limit) AS pushing,
               EXISTS (SELECT FROM task_instances WHERE state = 'restarting') AS restarting,
               EXISTS (SELECT FROM outbox WHERE created_at < $2) AS unpublished";
    let statement = query(SQL)
        .bind(store.inner.clock.now())
        .bind(before(store, outbox_age));
    let Some(row) = store.optional(statement).await? else {
        return Ok(ToDo::default());
    };
    Ok(ToDo {
        due_dags: get(&row, "due_dags")?,
        queued_runs: get(&row, "queued_runs")?,
        overlaps: get(&row, "overlaps")?,
        asset_events: get(&row, "asset_events")?,
        runs_to_stop: get(&row, "runs_to_stop")?,
        ready: get(&row, "ready")?,
        retries: get(&row, "retries")?,
        waits: get(&row, "waits")?,
        callbacks: get(&row, "callbacks")?,
        deadlines: get(&row, "deadlines")?,
        unclaimed: get(&row, "unclaimed")?,
        pushing: get(&row, "pushing")?,
        restarting: get(&row, "restarting")?,
        unpublished: get(&row, "unpublished")?,
    })
}

pub(super) async fn unpublished(
    store: &PgStore,
    age: Duration,
    max: i64,
) -> StoreResult<Vec<OutboxRow>> {
    const SQL: &str = "
        SELECT run_pk, ti_pk, fence, queue, body, epoch, claim_by, priority FROM outbox
        WHERE created_at < $1 ORDER BY created_at, ti_pk LIMIT $2";
    let statement = query(SQL).bind(before(store, age)).bind(max);
    decode(&store.all(statement).await?)
}

pub(super) async fn outbox_oldest_age(store: &PgStore) -> StoreResult<Option<Duration>> {
    const SQL: &str = "SELECT min(created_at) AS oldest FROM outbox";
    let oldest: Option<DateTime<Utc>> = match store.optional(query(SQL)).await? {
        Some(row) => get(&row, "oldest")?,
        None => None,
    };
    let now = store.inner.clock.now();
    Ok(oldest.map(|at| (now - at).to_std().unwrap_or_default()))
}

pub(super) async fn confirm_published(store: &PgStore, confirmed: &[Dispatch]) -> StoreResult<()> {
    if confirmed.is_empty() {
        return Ok(());
    }
    store.execute(tx::outbox_delete(confirmed)).await.map(drop)
}

pub(super) async fn unclaimed(
    store: &PgStore,
    margin: Duration,
    max: i64,
) -> StoreResult<Vec<OutDispatch>> {
    const SQL: &str = concat!(
        "SELECT ",
        out_columns!(),
        " FROM task_instances t WHERE t.state = 'queued' AND t.claim_by < $1
          UNION ALL SELECT ",
        out_columns!(),
        " FROM task_instances t WHERE t.state = 'restarting' AND t.worker IS NULL AND t.claim_by < $1
          ORDER BY claim_by, pk LIMIT $2"
    );
    let statement = query(SQL).bind(before(store, margin)).bind(max);
    decode(&store.all(statement).await?)
}

pub(super) async fn expire_claim(store: &PgStore, bounced: &[Dispatch]) -> StoreResult<()> {
    // Never later than it was: a claim that is over stays over for as long as it has been.
    const SQL: &str = "
        UPDATE task_instances t SET claim_by = LEAST(t.claim_by, $3)
        FROM unnest($1::bigint[], $2::bigint[]) AS v (pk, fence)
        WHERE t.pk = v.pk AND t.fence = v.fence AND t.state = 'queued'";
    if bounced.is_empty() {
        return Ok(());
    }
    let statement = query(SQL)
        .bind(column(bounced, |d| d.ti.0))
        .bind(column(bounced, |d| d.fence.0))
        .bind(store.inner.clock.now());
    store.execute(statement).await.map(drop)
}

pub(super) async fn out_dispatches(
    store: &PgStore,
    worker: Option<&str>,
) -> StoreResult<Vec<OutDispatch>> {
    // One arm per state: each has its partial index.
    const OF_WORKER: &str = concat!(
        "SELECT ",
        out_columns!(),
        " FROM task_instances t WHERE t.state = 'running' AND t.worker = $1
          UNION ALL SELECT ",
        out_columns!(),
        " FROM task_instances t WHERE t.state = 'queued' AND t.worker = $1
          UNION ALL SELECT ",
        out_columns!(),
        " FROM task_instances t WHERE t.state = 'restarting' AND t.worker = $1
          ORDER BY pk"
    );
    const ALL: &str = concat!(
        "SELECT ",
        out_columns!(),
        " FROM task_instances t WHERE t.state = 'running'
          UNION ALL SELECT ",
        out_columns!(),
        " FROM task_instances t WHERE t.state = 'queued'
          UNION ALL SELECT ",
        out_columns!(),
        " FROM task_instances t WHERE t.state = 'restarting'
          ORDER BY pk"
    );
    let statement = match worker {
        Some(worker) => query(OF_WORKER).bind(worker),
        None => query(ALL),
    };
    decode(&store.all(statement).await?)
}

pub(super) async fn out_in_run(store: &PgStore, run: RunPk) -> StoreResult<Vec<OutDispatch>> {
    const SQL: &str = concat!(
        "SELECT ",
        out_columns!(),
        " FROM task_instances t
          WHERE t.run_pk = $1 AND t.state IN ('queued', 'running', 'restarting') ORDER BY t.pk"
    );
    decode(&store.all(query(SQL).bind(run.0)).await?)
}

pub(super) async fn restarting(store: &PgStore, max: i64) -> StoreResult<Vec<OutDispatch>> {
    const SQL: &str = concat!(
        "SELECT ",
        out_columns!(),
        " FROM task_instances t WHERE t.state = 'restarting' ORDER BY t.pk LIMIT $1"
    );
    decode(&store.all(query(SQL).bind(max)).await?)
}

pub(super) async fn busy_workers(store: &PgStore) -> StoreResult<Vec<WorkerRow>> {
    const SQL: &str = "
        SELECT b.worker AS incarnation, COALESCE(w.state, 'alive') AS state, w.held_until
        FROM (SELECT worker FROM task_instances WHERE state = 'running' AND worker IS NOT NULL
              UNION SELECT worker FROM task_instances WHERE state = 'restarting' AND worker IS NOT NULL) b
        LEFT JOIN workers w ON w.incarnation = b.worker
        ORDER BY b.worker";
    decode(&store.all(query(SQL)).await?)
}

pub(super) async fn leased_over_broker(store: &PgStore, within: Duration) -> StoreResult<bool> {
    const SQL: &str =
        "SELECT 1 AS one FROM workers WHERE state = 'alive' AND held_until >= $1 LIMIT 1";
    let statement = query(SQL).bind(before(store, within));
    Ok(store.optional(statement).await?.is_some())
}

pub(super) async fn barrier_applied(store: &PgStore, barrier: Uuid) -> StoreResult<u16> {
    const SQL: &str = "SELECT count(*) AS shards FROM barriers WHERE barrier = $1";
    match store.optional(query(SQL).bind(barrier)).await? {
        Some(row) => unsigned(get(&row, "shards")?, "shards"),
        None => Ok(0),
    }
}
