//! Runs.

use super::PgTx;
use crate::{
    Statement,
    bind::{column, json, opt_text, text},
    listen::CHANNEL,
    rows::{decode, get, run_columns},
};
use chrono::TimeDelta;
use gristmill_common::{ids::RunPk, row::RunRow};
use gristmill_store::{NewRun, RunKeyNote, StoreError, StoreResult};
use sqlx::{postgres::PgRow, query};
use std::collections::HashMap;

/// Hours after which an idempotency key does not count any more.
pub(super) const IDEMPOTENCY_HOURS: i64 = 24;

pub(super) async fn insert(tx: &mut PgTx, runs: &[NewRun]) -> StoreResult<Vec<Option<RunPk>>> {
    // A conflict of any unique key inserts nothing, and leaves the transaction usable.
    const SQL: &str = "
        WITH inserted AS (
            INSERT INTO dag_runs (dag_id, run_id, version_pk, state, run_type, triggered_by, logical_date,
                data_interval_start, data_interval_end, run_after, queued_at, timeout_ms, conf, params, note,
                max_active_tasks, backfill_id, next_deadline)
            SELECT dag_id, run_id, version_pk, 'queued', run_type, triggered_by, logical_date,
                data_interval_start, data_interval_end, run_after, $1, timeout_ms, conf::json, params::json, note,
                max_active_tasks, backfill_id, next_deadline
            FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::timestamptz[],
                    $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::bigint[], $12::text[], $13::text[],
                    $14::text[], $15::int[], $17::bigint[], $18::timestamptz[])
                WITH ORDINALITY AS n (dag_id, run_id, version_pk, run_type, triggered_by, logical_date,
                    data_interval_start, data_interval_end, run_after, timeout_ms, conf, params, note,
                    max_active_tasks, backfill_id, next_deadline, place)
            ORDER BY place
            ON CONFLICT DO NOTHING RETURNING pk, dag_id, run_id),
        told AS (SELECT pg_notify($16, '') WHERE EXISTS (SELECT FROM inserted))
        SELECT pk, dag_id, run_id FROM inserted LEFT JOIN told ON true";
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let statement = query(SQL)
        .bind(tx.now)
        .bind(column(runs, |r| r.dag_id.as_str()))
        .bind(column(runs, |r| r.run_id.as_str()))
        .bind(column(runs, |r| r.version.0))
        .bind(column(runs, |r| r.run_type.as_str()))
        .bind(column(runs, |r| text(&r.triggered_by)))
        .bind(column(runs, |r| r.logical_date))
        .bind(column(runs, |r| r.data_interval_start))
        .bind(column(runs, |r| r.data_interval_end))
        .bind(column(runs, |r| r.run_after))
        .bind(column(runs, |r| r.timeout_ms))
        .bind(column(runs, |r| json(&r.conf)))
        .bind(column(runs, |r| json(&r.params)))
        .bind(column(runs, |r| opt_text(r.note.as_deref())))
        .bind(column(runs, |r| r.max_active_tasks))
        .bind(CHANNEL)
        .bind(column(runs, |r| r.backfill.map(|id| id.0)))
        .bind(column(runs, |r| r.next_deadline));
    let mut keys: HashMap<(String, String), RunPk> = HashMap::new();
    for row in tx.all(statement).await? {
        keys.insert(
            (get(&row, "dag_id")?, get(&row, "run_id")?),
            RunPk(get(&row, "pk")?),
        );
    }
    // Of two of one name the first was inserted.
    let inserted: Vec<Option<RunPk>> = runs
        .iter()
        .map(|r| keys.remove(&(r.dag_id.clone(), r.run_id.clone())))
        .collect();
    insert_idempotency_keys(tx, runs, &inserted).await?;
    Ok(inserted)
}

async fn insert_idempotency_keys(
    tx: &mut PgTx,
    runs: &[NewRun],
    inserted: &[Option<RunPk>],
) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO idempotency_keys AS k (dag_id, key, request_hash, run_pk, created_at)
        SELECT dag_id, key, request_hash, run_pk, $1
        FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[]) AS n (dag_id, key, request_hash, run_pk)
        ON CONFLICT (dag_id, key) DO UPDATE
            SET request_hash = excluded.request_hash, run_pk = excluded.run_pk, created_at = excluded.created_at
            WHERE k.created_at < $2";
    let keyed: Vec<(&str, &str, &str, RunPk)> = runs
        .iter()
        .zip(inserted)
        .filter_map(|(run, pk)| {
            let (key, hash) = run.idempotency.as_ref()?;
            Some((run.dag_id.as_str(), key.as_str(), hash.as_str(), (*pk)?))
        })
        .collect();
    if keyed.is_empty() {
        return Ok(());
    }
    let statement = query(SQL)
        .bind(tx.now)
        .bind(tx.now - TimeDelta::hours(IDEMPOTENCY_HOURS))
        .bind(column(&keyed, |k| k.0))
        .bind(column(&keyed, |k| text(k.1)))
        .bind(column(&keyed, |k| k.2))
        .bind(column(&keyed, |k| k.3.0));
    let written = tx.execute(statement).await?.rows_affected();
    if written < keyed.len() as u64 {
        // Another request with such a key was faster. These runs must not stay.
        tx.failed = Some("an idempotency key is taken".to_owned());
        return Err(StoreError::Exists {
            what: "idempotency key",
            name: keyed[0].1.to_owned(),
        });
    }
    Ok(())
}

pub(super) async fn by_idempotency_key(
    tx: &mut PgTx,
    dag_id: &str,
    key: &str,
) -> StoreResult<Option<(RunPk, String)>> {
    const SQL: &str = "
        SELECT run_pk, request_hash FROM idempotency_keys
        WHERE dag_id = $1 AND key = $2 AND created_at >= $3";
    let statement = query(SQL)
        .bind(dag_id)
        .bind(text(key))
        .bind(tx.now - TimeDelta::hours(IDEMPOTENCY_HOURS));
    match tx.optional(statement).await? {
        Some(row) => Ok(Some((
            RunPk(get(&row, "run_pk")?),
            get(&row, "request_hash")?,
        ))),
        None => Ok(None),
    }
}

/// NO KEY: keys never change, and rows that refer to a run may be inserted while it is locked.
pub(super) async fn lock(tx: &mut PgTx, runs: &[RunPk]) -> StoreResult<Vec<RunRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        run_columns!(),
        " FROM dag_runs r WHERE r.pk = ANY($1) ORDER BY r.pk FOR NO KEY UPDATE"
    );
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    decode(&tx.all(query(SQL).bind(column(runs, |r| r.0))).await?)
}

pub(super) async fn startable(tx: &mut PgTx, max: i64) -> StoreResult<Vec<RunPk>> {
    // `waiting` walks from DAG to DAG through the index of queued runs, one probe each: a DAG's backlog is not read beyond
    // what its room takes. `filling` does the same with backfills.
    const SQL: &str = "
        WITH RECURSIVE waiting AS (
            (SELECT dag_id FROM dag_runs WHERE state = 'queued' AND backfill_id IS NULL ORDER BY dag_id LIMIT 1)
            UNION ALL
            SELECT (SELECT r.dag_id FROM dag_runs r
                    WHERE r.state = 'queued' AND r.backfill_id IS NULL AND r.dag_id > w.dag_id
                    ORDER BY r.dag_id LIMIT 1)
            FROM waiting w WHERE w.dag_id IS NOT NULL),
        filling AS (
            (SELECT backfill_id FROM dag_runs WHERE state = 'queued' AND backfill_id IS NOT NULL
             ORDER BY backfill_id LIMIT 1)
            UNION ALL
            SELECT (SELECT r.backfill_id FROM dag_runs r WHERE r.state = 'queued' AND r.backfill_id > f.backfill_id
                    ORDER BY r.backfill_id LIMIT 1)
            FROM filling f WHERE f.backfill_id IS NOT NULL)
        SELECT r.pk, r.run_after
        FROM waiting w
        JOIN dags d ON d.dag_id = w.dag_id AND NOT d.is_paused
        LEFT JOIN limits l ON l.kind = 'dag_runs' AND l.name = d.dag_id
        CROSS JOIN LATERAL (
            SELECT q.pk, q.run_after FROM dag_runs q
            WHERE q.state = 'queued' AND q.backfill_id IS NULL AND q.dag_id = w.dag_id AND q.run_after <= $1
              AND (q.waits_for_key IS NULL OR NOT EXISTS (
                  SELECT FROM limits k WHERE k.kind = 'dag_run_key' AND k.name = q.dag_id || '/' || q.waits_for_key
                                         AND k.cap >= 0 AND k.used >= k.cap))
            ORDER BY q.run_after, q.pk
            LIMIT CASE WHEN COALESCE(l.cap, d.max_active_runs) < 0 THEN $2
                       ELSE LEAST($2, GREATEST(COALESCE(l.cap, d.max_active_runs) - COALESCE(l.used, 0), 0)) END) r
        UNION ALL
        SELECT r.pk, r.run_after
        FROM filling f
        JOIN backfills b ON b.id = f.backfill_id AND NOT b.is_paused
        JOIN dags d ON d.dag_id = b.dag_id AND NOT d.is_paused
        JOIN limits l ON l.kind = 'backfill' AND l.name = b.id::text
        CROSS JOIN LATERAL (
            SELECT q.pk, q.run_after FROM dag_runs q WHERE q.state = 'queued' AND q.backfill_id = b.id
              AND (q.waits_for_key IS NULL OR NOT EXISTS (
                  SELECT FROM limits k WHERE k.kind = 'dag_run_key' AND k.name = q.dag_id || '/' || q.waits_for_key
                                         AND k.cap >= 0 AND k.used >= k.cap))
            ORDER BY q.pk LIMIT LEAST($2, GREATEST(l.cap - l.used, 0))) r
        ORDER BY run_after, pk
        LIMIT $2";
    pks(&tx.all(query(SQL).bind(tx.now).bind(max)).await?)
}

pub(super) async fn set_keys(tx: &mut PgTx, keys: &[RunKeyNote]) -> StoreResult<()> {
    const SQL: &str = "
        UPDATE dag_runs r
        SET concurrency_key = v.key, waits_for_key = CASE WHEN v.waits THEN v.key END
        FROM unnest($1::bigint[], $2::text[], $3::boolean[]) AS v (pk, key, waits)
        WHERE r.pk = v.pk";
    let statement = query(SQL)
        .bind(column(keys, |k| k.run.0))
        .bind(column(keys, |k| text(&k.key)))
        .bind(column(keys, |k| k.waits));
    tx.execute(statement).await.map(drop)
}

pub(super) async fn running_with_key(
    tx: &mut PgTx,
    dag_id: &str,
    key: &str,
) -> StoreResult<Vec<(RunPk, bool)>> {
    const SQL: &str = "
        SELECT pk, stop_reason IS NOT NULL AS stopping FROM dag_runs
        WHERE ended_at IS NULL AND state = 'running' AND dag_id = $1 AND concurrency_key = $2 ORDER BY started_at, pk";
    let rows = tx.all(query(SQL).bind(dag_id).bind(text(key))).await?;
    rows.iter()
        .map(|row| Ok((RunPk(get(row, "pk")?), get(row, "stopping")?)))
        .collect()
}

fn pks(rows: &[PgRow]) -> StoreResult<Vec<RunPk>> {
    rows.iter().map(|row| get(row, "pk").map(RunPk)).collect()
}

/// Told to everybody: that a run ended, and that one is being stopped.
pub(super) const UPDATE: &str = "
    UPDATE dag_runs r SET
        state = v.state, started_at = v.started_at, ended_at = v.ended_at, note = v.note, cancelled = v.cancelled,
        stop_reason = v.stop_reason, max_active_tasks = v.max_active_tasks, active_tasks = v.active_tasks,
        ready_tasks = v.ready_tasks, unfinished_tasks = v.unfinished_tasks, failed_leaves = v.failed_leaves,
        run_after = v.run_after, clean_up = v.clean_up, deadline_at = v.started_at + r.timeout_ms * interval '1 millisecond'
    FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::boolean[],
                $7::text[], $8::integer[], $9::integer[], $10::integer[], $11::integer[], $12::integer[],
                $13::timestamptz[], $14::text[])
        AS v (pk, state, started_at, ended_at, note, cancelled, stop_reason, max_active_tasks, active_tasks,
              ready_tasks, unfinished_tasks, failed_leaves, run_after, clean_up)
    WHERE r.pk = v.pk
    RETURNING CASE WHEN r.ended_at IS NOT NULL OR r.stop_reason IS NOT NULL THEN pg_notify($15, '')::text END AS told";

pub(super) fn bind_update<'q>(statement: Statement<'q>, runs: &[RunRow]) -> Statement<'q> {
    statement
        .bind(column(runs, |r| r.pk.0))
        .bind(column(runs, |r| r.state.as_str()))
        .bind(column(runs, |r| r.started_at))
        .bind(column(runs, |r| r.ended_at))
        .bind(column(runs, |r| opt_text(r.note.as_deref())))
        .bind(column(runs, |r| r.cancelled))
        .bind(column(runs, |r| opt_text(r.stop_reason.as_deref())))
        .bind(column(runs, |r| r.max_active_tasks))
        .bind(column(runs, |r| r.active_tasks))
        .bind(column(runs, |r| r.ready_tasks))
        .bind(column(runs, |r| r.unfinished_tasks))
        .bind(column(runs, |r| r.failed_leaves))
        .bind(column(runs, |r| r.run_after))
        .bind(column(runs, |r| opt_text(r.clean_up.as_deref())))
        .bind(CHANNEL)
}

/// What is wrong when not all of these runs were written.
pub(super) fn refused(runs: &[RunRow], written: usize) -> Option<String> {
    (written != runs.len())
        .then(|| format!("{} runs were to be written, {written} exist", runs.len()))
}

pub(super) async fn update(tx: &mut PgTx, runs: &[RunRow]) -> StoreResult<()> {
    if runs.is_empty() {
        return Ok(());
    }
    let written = tx.all(bind_update(query(UPDATE), runs)).await?.len();
    match refused(runs, written) {
        Some(error) => Err(tx.corrupt(error)),
        None => Ok(()),
    }
}

pub(super) async fn to_stop(tx: &mut PgTx, max: i64) -> StoreResult<Vec<RunPk>> {
    const SQL: &str = "
        (SELECT pk FROM dag_runs
         WHERE state = 'running' AND stop_reason IS NOT NULL AND unfinished_tasks > 0
         ORDER BY pk LIMIT $2)
        UNION
        (SELECT pk FROM dag_runs WHERE state = 'running' AND deadline_at IS NOT NULL AND deadline_at <= $1
         ORDER BY deadline_at LIMIT $2)
        ORDER BY pk LIMIT $2";
    pks(&tx.all(query(SQL).bind(tx.now).bind(max)).await?)
}

pub(super) async fn overlapped(tx: &mut PgTx, max: i64) -> StoreResult<Vec<RunPk>> {
    const SQL: &str = "
        WITH crowded AS (
            SELECT d.dag_id, l.cap,
                (SELECT count(*) FROM dag_runs q
                 WHERE q.state = 'queued' AND q.backfill_id IS NULL AND q.dag_id = d.dag_id AND q.run_after <= $1
                   AND q.run_type = 'scheduled') AS waiting,
                (SELECT count(*) FROM dag_runs a
                 WHERE a.ended_at IS NULL AND a.state = 'running' AND a.dag_id = d.dag_id AND a.backfill_id IS NULL
                   AND a.stop_reason IS NULL AND NOT a.cancelled) AS running
            FROM dags d JOIN limits l ON l.kind = 'dag_runs' AND l.name = d.dag_id
            WHERE d.overlap = 'cancel' AND NOT d.is_paused AND l.cap >= 0)
        SELECT r.pk
        FROM crowded c
        CROSS JOIN LATERAL (
            SELECT o.pk FROM dag_runs o
            WHERE o.ended_at IS NULL AND o.dag_id = c.dag_id AND o.backfill_id IS NULL
              AND (o.state = 'running' AND o.stop_reason IS NULL AND NOT o.cancelled
                   OR o.state = 'queued' AND o.run_type = 'scheduled' AND o.run_after <= $1)
            ORDER BY o.run_after, o.pk LIMIT GREATEST(c.waiting + c.running - c.cap, 0)) r
        WHERE c.waiting > 0
        ORDER BY r.pk LIMIT $2";
    pks(&tx.all(query(SQL).bind(tx.now).bind(max)).await?)
}
