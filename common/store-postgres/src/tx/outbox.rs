//! Messages on their way to the broker.

use super::PgTx;
use crate::{Statement, bind::column};
use chrono::{DateTime, Utc};
use gristmill_common::{ids::Dispatch, row::OutboxRow};
use gristmill_store::StoreResult;
use sqlx::query;

pub(super) const INSERT: &str = "
    INSERT INTO outbox (run_pk, ti_pk, fence, queue, body, epoch, claim_by, priority, created_at)
    SELECT v.*, $9::timestamptz
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[],
                $8::integer[]) AS v
    RETURNING 1";

pub(super) fn bind_insert<'q>(
    statement: Statement<'q>,
    rows: &[OutboxRow],
    now: DateTime<Utc>,
) -> Statement<'q> {
    statement
        .bind(column(rows, |r| r.run.0))
        .bind(column(rows, |r| r.dispatch.ti.0))
        .bind(column(rows, |r| r.dispatch.fence.0))
        .bind(column(rows, |r| r.queue.as_str()))
        .bind(column(rows, |r| r.body.as_str()))
        .bind(column(rows, |r| r.epoch))
        .bind(column(rows, |r| r.claim_by))
        .bind(column(rows, |r| r.priority))
        .bind(now)
}

pub(super) async fn insert(tx: &mut PgTx, rows: &[OutboxRow]) -> StoreResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let statement = bind_insert(query(INSERT), rows, tx.now);
    tx.execute(statement).await.map(drop)
}

/// Deletes messages, each by its own fence only.
pub(super) const DELETE: &str = "
    DELETE FROM outbox o USING unnest($1::bigint[], $2::bigint[]) AS v (ti_pk, fence)
    WHERE o.ti_pk = v.ti_pk AND o.fence = v.fence
    RETURNING 1";

pub(super) fn bind_delete<'q>(statement: Statement<'q>, confirmed: &[Dispatch]) -> Statement<'q> {
    statement
        .bind(column(confirmed, |d| d.ti.0))
        .bind(column(confirmed, |d| d.fence.0))
}

pub(super) fn delete(confirmed: &[Dispatch]) -> Statement<'static> {
    bind_delete(query(DELETE), confirmed)
}

/// The same as a transaction of its own, whose commit does not wait for the disk: a deletion that a crash takes back has
/// its message published once more, which its fence refuses.
pub(crate) fn delete_lazily(confirmed: &[Dispatch]) -> Statement<'static> {
    const SQL: &str = "
        DELETE FROM outbox o USING unnest($1::bigint[], $2::bigint[]) AS v (ti_pk, fence)
        WHERE o.ti_pk = v.ti_pk AND o.fence = v.fence
          AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL";
    bind_delete(query(SQL), confirmed)
}
