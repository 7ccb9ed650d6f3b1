//! What the deployment's parts report, and what was done and could not be done.

use super::total;
use crate::{
    PgStore, Statement,
    bind::{column, json, opt_text, text},
    rows::decode,
};
use chrono::{DateTime, Utc};
use gristmill_store::{AuditRow, ComponentRow, DeadLetterRow, Page, StoreResult};
use sqlx::query;

pub(super) async fn heartbeat(
    store: &PgStore,
    kind: &str,
    id: &str,
    hostname: &str,
) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO components (kind, id, hostname, started_at, heartbeat_at) VALUES ($1, $2, $3, $4, $4)
        ON CONFLICT (kind, id) DO UPDATE SET hostname = excluded.hostname, heartbeat_at = excluded.heartbeat_at";
    let statement = query(SQL)
        .bind(kind)
        .bind(id)
        .bind(text(hostname))
        .bind(store.inner.clock.now());
    store.execute(statement).await.map(drop)
}

pub(super) async fn components(store: &PgStore) -> StoreResult<Vec<ComponentRow>> {
    const SQL: &str =
        "SELECT kind, id, hostname, started_at, heartbeat_at FROM components ORDER BY kind, id";
    decode(&store.all(query(SQL)).await?)
}

pub(super) async fn put_audit(store: &PgStore, entry: &AuditRow) -> StoreResult<()> {
    let statement = insert_audits(std::slice::from_ref(entry));
    store.execute(statement).await.map(drop)
}

pub(super) async fn delete_audits(
    store: &PgStore,
    before: DateTime<Utc>,
    max: i64,
) -> StoreResult<u64> {
    // The oldest by number, which rises with time: no index by time is needed.
    const SQL: &str = "
        DELETE FROM audit_log WHERE at < $1 AND id IN (SELECT id FROM audit_log ORDER BY id LIMIT $2)";
    store.execute(query(SQL).bind(before).bind(max)).await
}

/// Writes entries, by itself or in the transaction of what they tell of.
pub(crate) fn insert_audits(entries: &[AuditRow]) -> Statement<'_> {
    const SQL: &str = "
        INSERT INTO audit_log (at, actor, event, dag_id, run_id, task_id, extra)
        SELECT at, actor, event, dag_id, run_id, task_id, extra::json
        FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
            AS e (at, actor, event, dag_id, run_id, task_id, extra)";
    query(SQL)
        .bind(column(entries, |e| e.at))
        .bind(column(entries, |e| text(&e.actor)))
        .bind(column(entries, |e| text(&e.event)))
        .bind(column(entries, |e| opt_text(e.dag_id.as_deref())))
        .bind(column(entries, |e| opt_text(e.run_id.as_deref())))
        .bind(column(entries, |e| opt_text(e.task_id.as_deref())))
        .bind(column(entries, |e| json(&e.extra)))
}

pub(super) async fn audit(store: &PgStore, limit: i64, offset: i64) -> StoreResult<Page<AuditRow>> {
    const ROWS: &str = "
        SELECT at, actor, event, dag_id, run_id, task_id, extra FROM audit_log
        ORDER BY id DESC LIMIT $1 OFFSET $2";
    const TOTAL: &str = "SELECT count(*) AS total FROM audit_log";
    let rows = decode(&store.all(query(ROWS).bind(limit).bind(offset)).await?)?;
    Ok(Page {
        rows,
        total: total(store.optional(query(TOTAL)).await?)?,
    })
}

pub(super) async fn dead_letters(store: &PgStore, limit: i64) -> StoreResult<Vec<DeadLetterRow>> {
    const SQL: &str =
        "SELECT id, source, reason, body, at FROM dead_letters ORDER BY id DESC LIMIT $1";
    decode(&store.all(query(SQL).bind(limit)).await?)
}
