//! Starts of attempts, as one statement that is its own transaction.

use crate::{
    PgStore,
    bind::{column, text},
    rows::get,
};
use gristmill_common::{message::Started, transition::START};
use gristmill_store::{Starts, StoreResult};
use sqlx::query;

pub(crate) async fn record(store: &PgStore, starts: &[&Started]) -> StoreResult<Starts> {
    // Locks in the order of every transaction: the runs first, since a row is only written once its run is found among
    // the locked ones; then the queues. Whatever a lock was waited for, rows are written as they are by then, and only if
    // they are still queued under their fence. `was_full`: before this, nobody could be dispatched to the queue.
    const SQL: &str = "
        WITH locked AS MATERIALIZED (
            SELECT r.pk FROM dag_runs r WHERE r.pk = ANY ($2) ORDER BY r.pk FOR NO KEY UPDATE),
        started AS (
            UPDATE task_instances t
            SET state = $8, started_at = v.started_at, worker = v.worker, hostname = v.hostname, pid = v.pid
            FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[],
                        $7::integer[]) AS v (pk, run_pk, fence, started_at, worker, hostname, pid)
            WHERE t.pk = v.pk AND t.run_pk = v.run_pk AND t.fence = v.fence AND t.state = ANY ($9)
              AND v.run_pk IN (SELECT l.pk FROM locked l)
            RETURNING t.queue),
        queues AS MATERIALIZED (
            SELECT l.kind, l.name FROM limits l
            WHERE l.kind = 'queue' AND l.name IN (SELECT s.queue FROM started s)
            ORDER BY l.kind, l.name FOR NO KEY UPDATE OF l),
        freed AS (
            UPDATE limits l SET used = l.used - n.started
            FROM (SELECT q.kind, q.name, (SELECT count(*) FROM started s WHERE s.queue = q.name) AS started FROM queues q) n
            WHERE l.kind = n.kind AND l.name = n.name
            RETURNING l.cap >= 0 AND l.used + n.started >= l.cap AS was_full)
        SELECT (SELECT count(*) FROM started) AS started, EXISTS (SELECT FROM freed WHERE was_full) AS made_room";
    if starts.is_empty() {
        return Ok(Starts::default());
    }
    let from: Vec<&str> = START.from.iter().map(|state| state.as_str()).collect();
    let to = START.to.first().map_or("running", |state| state.as_str());
    let statement = query(SQL)
        .bind(column(starts, |s| s.dispatch.ti.0))
        .bind(column(starts, |s| s.run.0))
        .bind(column(starts, |s| s.dispatch.fence.0))
        .bind(column(starts, |s| s.at))
        .bind(column(starts, |s| text(&s.worker)))
        .bind(column(starts, |s| text(&s.hostname)))
        .bind(column(starts, |s| s.pid))
        .bind(to)
        .bind(from);
    match store.optional(statement).await? {
        Some(row) => Ok(Starts {
            written: usize::try_from(get::<i64>(&row, "started")?).unwrap_or_default(),
            made_room: get(&row, "made_room")?,
        }),
        None => Ok(Starts::default()),
    }
}
