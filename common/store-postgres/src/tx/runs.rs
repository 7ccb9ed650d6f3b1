//! Runs.

use super::PgTx;
use crate::{
    bind::{column, json, opt_text, text},
    listen::CHANNEL,
    rows::{decode, get, run_columns},
};
use chrono::TimeDelta;
use gristmill_common::{ids::RunPk, row::RunRow};
use gristmill_store::{NewRun, StoreError, StoreResult};
use sqlx::{postgres::PgRow, query};

/// Hours after which an idempotency key does not count any more.
pub(super) const IDEMPOTENCY_HOURS: i64 = 24;

pub(super) async fn insert(tx: &mut PgTx, run: &NewRun) -> StoreResult<RunPk> {
    // A conflict of any unique key inserts nothing, and leaves the transaction usable.
    const SQL: &str = "
        WITH inserted AS (
            INSERT INTO dag_runs (dag_id, run_id, version_pk, state, run_type, triggered_by, logical_date,
                data_interval_start, data_interval_end, run_after, queued_at, timeout_ms, conf, params, note,
                max_active_tasks)
            VALUES ($1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9, $10, $11, $12::json, $13::json, $14, $15)
            ON CONFLICT DO NOTHING RETURNING pk)
        SELECT pk, pg_notify($16, '')::text FROM inserted";
    let statement = query(SQL)
        .bind(&run.dag_id)
        .bind(&run.run_id)
        .bind(run.version.0)
        .bind(run.run_type.as_str())
        .bind(text(&run.triggered_by))
        .bind(run.logical_date)
        .bind(run.data_interval_start)
        .bind(run.data_interval_end)
        .bind(run.run_after)
        .bind(tx.now)
        .bind(run.timeout_ms)
        .bind(json(&run.conf))
        .bind(json(&run.params))
        .bind(opt_text(run.note.as_deref()))
        .bind(run.max_active_tasks)
        .bind(CHANNEL);
    let Some(row) = tx.optional(statement).await? else {
        return Err(StoreError::Exists {
            what: "run",
            name: run.run_id.clone(),
        });
    };
    let pk = RunPk(get(&row, "pk")?);
    if let Some((key, hash)) = &run.idempotency {
        insert_idempotency_key(tx, run, pk, key, hash).await?;
    }
    Ok(pk)
}

async fn insert_idempotency_key(
    tx: &mut PgTx,
    run: &NewRun,
    pk: RunPk,
    key: &str,
    hash: &str,
) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO idempotency_keys AS k (dag_id, key, request_hash, run_pk, created_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (dag_id, key) DO UPDATE
            SET request_hash = excluded.request_hash, run_pk = excluded.run_pk, created_at = excluded.created_at
            WHERE k.created_at < $6";
    let statement = query(SQL)
        .bind(&run.dag_id)
        .bind(text(key))
        .bind(hash)
        .bind(pk.0)
        .bind(tx.now)
        .bind(tx.now - TimeDelta::hours(IDEMPOTENCY_HOURS));
    if tx.execute(statement).await?.rows_affected() == 0 {
        // Another request with this key was faster. This run must not stay.
        tx.failed = Some(format!("idempotency key {key:?} is taken"));
        return Err(StoreError::Exists {
            what: "idempotency key",
            name: key.to_owned(),
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
    // what its room takes.
    const SQL: &str = "
        WITH RECURSIVE waiting AS (
            (SELECT dag_id FROM dag_runs WHERE state = 'queued' ORDER BY dag_id LIMIT 1)
            UNION ALL
            SELECT (SELECT r.dag_id FROM dag_runs r WHERE r.state = 'queued' AND r.dag_id > w.dag_id
                    ORDER BY r.dag_id LIMIT 1)
            FROM waiting w WHERE w.dag_id IS NOT NULL)
        SELECT r.pk
        FROM waiting w
        JOIN dags d ON d.dag_id = w.dag_id AND NOT d.is_paused
        LEFT JOIN limits l ON l.kind = 'dag_runs' AND l.name = d.dag_id
        CROSS JOIN LATERAL (
            SELECT q.pk, q.run_after FROM dag_runs q
            WHERE q.state = 'queued' AND q.dag_id = w.dag_id AND q.run_after <= $1
            ORDER BY q.run_after, q.pk
            LIMIT CASE WHEN COALESCE(l.cap, d.max_active_runs) < 0 THEN $2
                       ELSE LEAST($2, GREATEST(COALESCE(l.cap, d.max_active_runs) - COALESCE(l.used, 0), 0)) END) r
        ORDER BY r.run_after, r.pk
        LIMIT $2";
    pks(&tx.all(query(SQL).bind(tx.now).bind(max)).await?)
}

fn pks(rows: &[PgRow]) -> StoreResult<Vec<RunPk>> {
    rows.iter().map(|row| get(row, "pk").map(RunPk)).collect()
}

pub(super) async fn update(tx: &mut PgTx, runs: &[RunRow]) -> StoreResult<()> {
    // Told to everybody: that a run ended, and that one is being stopped.
    const SQL: &str = "
        WITH updated AS (
            UPDATE dag_runs r SET
                state = v.state, started_at = v.started_at, ended_at = v.ended_at, conf = v.conf::json,
                params = v.params::json, note = v.note, cancelled = v.cancelled, stop_reason = v.stop_reason,
                max_active_tasks = v.max_active_tasks, active_tasks = v.active_tasks, ready_tasks = v.ready_tasks,
                unfinished_tasks = v.unfinished_tasks, failed_leaves = v.failed_leaves, run_after = v.run_after,
                deadline_at = v.started_at + r.timeout_ms * interval '1 millisecond'
            FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::text[],
                        $7::text[], $8::boolean[], $9::text[], $10::integer[], $11::integer[], $12::integer[],
                        $13::integer[], $14::integer[], $15::timestamptz[])
                AS v (pk, state, started_at, ended_at, conf, params, note, cancelled, stop_reason, max_active_tasks,
                      active_tasks, ready_tasks, unfinished_tasks, failed_leaves, run_after)
            WHERE r.pk = v.pk
            RETURNING r.ended_at IS NOT NULL OR r.stop_reason IS NOT NULL AS is_news)
        SELECT count(*) AS written,
               (SELECT pg_notify($16, '')::text FROM updated WHERE is_news LIMIT 1) AS told
        FROM updated";
    if runs.is_empty() {
        return Ok(());
    }
    let statement = query(SQL)
        .bind(column(runs, |r| r.pk.0))
        .bind(column(runs, |r| r.state.as_str()))
        .bind(column(runs, |r| r.started_at))
        .bind(column(runs, |r| r.ended_at))
        .bind(column(runs, |r| json(&r.conf)))
        .bind(column(runs, |r| json(&r.params)))
        .bind(column(runs, |r| opt_text(r.note.as_deref())))
        .bind(column(runs, |r| r.cancelled))
        .bind(column(runs, |r| opt_text(r.stop_reason.as_deref())))
        .bind(column(runs, |r| r.max_active_tasks))
        .bind(column(runs, |r| r.active_tasks))
        .bind(column(runs, |r| r.ready_tasks))
        .bind(column(runs, |r| r.unfinished_tasks))
        .bind(column(runs, |r| r.failed_leaves))
        .bind(column(runs, |r| r.run_after))
        .bind(CHANNEL);
    let written = match tx.optional(statement).await? {
        Some(row) => get::<i64>(&row, "written")?,
        None => 0,
    };
    if usize::try_from(written) == Ok(runs.len()) {
        Ok(())
    } else {
        let error = format!("{} runs were to be written, {written} exist", runs.len());
        tx.failed = Some(error.clone());
        Err(StoreError::Corrupt(error))
    }
}

pub(super) async fn to_stop(tx: &mut PgTx, max: i64) -> StoreResult<Vec<RunPk>> {
    const SQL: &str = "
        (SELECT pk FROM dag_runs
         WHERE state = 'running' AND (cancelled OR stop_reason IS NOT NULL) AND unfinished_tasks > 0
         ORDER BY pk LIMIT $2)
        UNION
        (SELECT pk FROM dag_runs WHERE state = 'running' AND deadline_at IS NOT NULL AND deadline_at <= $1
         ORDER BY deadline_at LIMIT $2)
        ORDER BY pk LIMIT $2";
    pks(&tx.all(query(SQL).bind(tx.now).bind(max)).await?)
}
