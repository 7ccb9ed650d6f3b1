//! Backfills.

use super::PgTx;
use crate::{bind::json, listen::CHANNEL, rows::get};
use chrono::{DateTime, Utc};
use gristmill_common::{ids::BackfillPk, state::RunState};
use gristmill_store::{NewBackfill, StoreError, StoreResult};
use sqlx::query;

pub(super) async fn insert(
    tx: &mut PgTx,
    new: &NewBackfill,
    left_out: i32,
) -> StoreResult<BackfillPk> {
    const SQL: &str = "
        INSERT INTO backfills (dag_id, from_date, to_date, run_backwards, max_active_runs, reprocess_behavior, conf,
                               left_out, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8, $9, $9) RETURNING id";
    let statement = query(SQL)
        .bind(&new.dag_id)
        .bind(new.from_date)
        .bind(new.to_date)
        .bind(new.run_backwards)
        .bind(new.max_active_runs)
        .bind(new.reprocess.as_str())
        .bind(json(&new.conf))
        .bind(left_out)
        .bind(tx.now);
    match tx.optional(statement).await? {
        Some(row) => Ok(BackfillPk(get(&row, "id")?)),
        None => Err(tx.corrupt("a backfill was inserted without an id".to_owned())),
    }
}

pub(super) async fn active(tx: &mut PgTx, dag_id: &str) -> StoreResult<Option<BackfillPk>> {
    const SQL: &str = "
        SELECT b.id FROM backfills b
        WHERE b.dag_id = $1
          AND EXISTS (SELECT FROM dag_runs r WHERE r.backfill_id = b.id AND r.ended_at IS NULL)
        ORDER BY b.id DESC LIMIT 1";
    let row = tx.optional(query(SQL).bind(dag_id)).await?;
    row.map(|row| get(&row, "id").map(BackfillPk)).transpose()
}

pub(super) async fn newest_runs(
    tx: &mut PgTx,
    dag_id: &str,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> StoreResult<Vec<(DateTime<Utc>, RunState)>> {
    const SQL: &str = "
        SELECT DISTINCT ON (logical_date) logical_date, state FROM dag_runs
        WHERE dag_id = $1 AND logical_date BETWEEN $2 AND $3
        ORDER BY logical_date, pk DESC";
    let rows = tx.all(query(SQL).bind(dag_id).bind(from).bind(to)).await?;
    rows.iter()
        .map(|row| {
            let date: DateTime<Utc> = get(row, "logical_date")?;
            let state = get::<&str>(row, "state")?
                .parse()
                .map_err(|error| StoreError::Corrupt(format!("column state: {error}")))?;
            Ok((date, state))
        })
        .collect()
}

pub(super) async fn pause(tx: &mut PgTx, id: BackfillPk, paused: bool) -> StoreResult<bool> {
    const SQL: &str = "UPDATE backfills SET is_paused = $2, updated_at = $3 WHERE id = $1";
    let statement = query(SQL).bind(id.0).bind(paused).bind(tx.now);
    Ok(tx.execute(statement).await?.rows_affected() > 0)
}

pub(super) async fn cancel(
    tx: &mut PgTx,
    id: BackfillPk,
    reason: &str,
) -> StoreResult<Option<i64>> {
    const NOTE: &str = "
        UPDATE backfills SET cancelled_at = COALESCE(cancelled_at, $2), updated_at = $2 WHERE id = $1";
    // Locked in the order of all transactions. One that has started meanwhile goes on.
    const RUNS: &str = "
        WITH waiting AS (
            SELECT pk FROM dag_runs WHERE backfill_id = $1 AND state = 'queued' ORDER BY pk FOR NO KEY UPDATE),
        cancelled AS (
            UPDATE dag_runs r SET state = 'failed', cancelled = true, stop_reason = $3, ended_at = $2
            FROM waiting w WHERE r.pk = w.pk AND r.state = 'queued' RETURNING r.pk)
        SELECT count(*) AS total, pg_notify($4, '')::text AS told FROM cancelled";
    let runs = query(RUNS)
        .bind(id.0)
        .bind(tx.now)
        .bind(reason)
        .bind(CHANNEL);
    let cancelled = match tx.optional(runs).await? {
        Some(row) => get(&row, "total")?,
        None => 0,
    };
    let known = tx.execute(query(NOTE).bind(id.0).bind(tx.now)).await?;
    Ok((known.rows_affected() > 0).then_some(cancelled))
}
