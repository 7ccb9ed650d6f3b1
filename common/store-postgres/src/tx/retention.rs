//! Deleting what is old.

use super::{PgTx, runs::IDEMPOTENCY_HOURS};
use crate::rows::get;
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::ids::RunPk;
use gristmill_store::{DeletedRun, StoreResult};
use sqlx::query;

pub(super) async fn delete_old(
    tx: &mut PgTx,
    ended_before: DateTime<Utc>,
    max: i64,
) -> StoreResult<Vec<DeletedRun>> {
    // SKIP LOCKED: a run that somebody works on (a clear) is left for the next time.
    const OLD_RUNS: &str = "
        SELECT pk, dag_id, run_id FROM dag_runs WHERE ended_at IS NOT NULL AND ended_at < $1
        ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED";
    let rows = tx.all(query(OLD_RUNS).bind(ended_before).bind(max)).await?;
    let deleted = rows
        .iter()
        .map(|row| {
            Ok(DeletedRun {
                run: RunPk(get(row, "pk")?),
                dag_id: get(row, "dag_id")?,
                run_id: get(row, "run_id")?,
            })
        })
        .collect::<StoreResult<Vec<_>>>()?;
    if !deleted.is_empty() {
        let runs: Vec<i64> = deleted.iter().map(|deleted| deleted.run.0).collect();
        delete_runs(tx, &runs).await?;
    }
    let yesterday = tx.now - TimeDelta::days(1);
    tx.execute(
        query("DELETE FROM idempotency_keys WHERE created_at < $1")
            .bind(tx.now - TimeDelta::hours(IDEMPOTENCY_HOURS)),
    )
    .await?;
    // A worker that holds a lease, or whose work is still out, is still needed however long it was silent.
    const OLD_WORKERS: &str = "
        DELETE FROM workers w WHERE w.updated_at < $1 AND (w.held_until IS NULL OR w.held_until < $1)
          AND NOT EXISTS (SELECT FROM task_instances t WHERE t.state IN ('running', 'restarting')
                                                                   AND t.worker = w.incarnation)";
    tx.execute(query(OLD_WORKERS).bind(yesterday)).await?;
    tx.execute(query("DELETE FROM barriers WHERE applied_at < $1").bind(yesterday))
        .await?;
    // Of keys that nobody holds at the moment.
    tx.execute(query(
        "DELETE FROM limits WHERE kind IN ('dag_run_key', 'task_key') AND used = 0",
    ))
    .await?;
    tx.execute(query("DELETE FROM components WHERE heartbeat_at < $1").bind(yesterday))
        .await?;
    // The runs that an event made, and the queues that it stands in, let go of it by cascade.
    tx.execute(query("DELETE FROM asset_events WHERE at < $1").bind(ended_before))
        .await?;
    Ok(deleted)
}

/// Deletes locked runs with all that belongs to them. Instances, attempts, XComs and idempotency keys go by cascade.
pub(super) async fn delete_runs(tx: &mut PgTx, runs: &[i64]) -> StoreResult<()> {
    const MESSAGES: &str = "
        DELETE FROM outbox o USING task_instances t WHERE t.run_pk = ANY ($1) AND o.ti_pk = t.pk";
    // Names are RUN/TASK: all of a run lie between RUN/ and RUN0, the character after the slash.
    const LIMITS: &str = "
        DELETE FROM limits l USING unnest($1::bigint[]) AS r (pk)
        WHERE l.kind = 'task_in_run' AND l.name > r.pk || '/' AND l.name < r.pk || '0'";
    tx.execute(query(MESSAGES).bind(runs)).await?;
    tx.execute(query(LIMITS).bind(runs)).await?;
    tx.execute(query("DELETE FROM dag_runs WHERE pk = ANY ($1)").bind(runs))
        .await?;
    Ok(())
}
