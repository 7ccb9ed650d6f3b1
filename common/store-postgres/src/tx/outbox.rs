//! Messages on their way to the broker.

use super::PgTx;
use crate::{Statement, bind::column};
use gristmill_common::{ids::Dispatch, row::OutboxRow};
use gristmill_store::StoreResult;
use sqlx::query;

pub(super) async fn insert(tx: &mut PgTx, rows: &[OutboxRow]) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO outbox (run_pk, ti_pk, fence, queue, body, epoch, claim_by, priority, created_at)
        SELECT v.*, $9 FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[],
                                   $7::timestamptz[], $8::integer[]) AS v";
    if rows.is_empty() {
        return Ok(());
    }
    let statement = query(SQL)
        .bind(column(rows, |r| r.run.0))
        .bind(column(rows, |r| r.dispatch.ti.0))
        .bind(column(rows, |r| r.dispatch.fence.0))
        .bind(column(rows, |r| r.queue.as_str()))
        .bind(column(rows, |r| r.body.as_str()))
        .bind(column(rows, |r| r.epoch))
        .bind(column(rows, |r| r.claim_by))
        .bind(column(rows, |r| r.priority))
        .bind(tx.now);
    tx.execute(statement).await.map(drop)
}

/// Deletes these messages, each by its own fence only.
pub(crate) fn delete(confirmed: &[Dispatch]) -> Statement<'static> {
    const SQL: &str = "
        DELETE FROM outbox o USING unnest($1::bigint[], $2::bigint[]) AS v (ti_pk, fence)
        WHERE o.ti_pk = v.ti_pk AND o.fence = v.fence";
    query(SQL)
        .bind(column(confirmed, |d| d.ti.0))
        .bind(column(confirmed, |d| d.fence.0))
}
