//! Backfills.

use super::total;
use crate::{
    PgStore,
    rows::{decode, decode_optional},
};
use gristmill_common::ids::BackfillPk;
use gristmill_store::{BackfillFilter, BackfillRow, Page, StoreResult};
use sqlx::query;

/// A backfill `b` with the counts `c` of its runs.
macro_rules! backfills {
    () => {
        "SELECT b.id, b.dag_id, b.from_date, b.to_date, b.run_backwards, b.max_active_runs, b.reprocess_behavior, b.conf,
            b.is_paused, b.left_out, b.created_at, b.updated_at, b.cancelled_at,
            CASE WHEN c.queued + c.running = 0 THEN COALESCE(c.ended_at, b.created_at) END AS completed_at,
            c.queued, c.running, c.success, c.failed
         FROM backfills b
         CROSS JOIN LATERAL (
            SELECT count(*) FILTER (WHERE r.state = 'queued') AS queued,
                count(*) FILTER (WHERE r.state = 'running') AS running,
                count(*) FILTER (WHERE r.state = 'success') AS success,
                count(*) FILTER (WHERE r.state = 'failed') AS failed, max(r.ended_at) AS ended_at
            FROM dag_runs r WHERE r.backfill_id = b.id) c "
    };
}

pub(super) async fn one(store: &PgStore, id: BackfillPk) -> StoreResult<Option<BackfillRow>> {
    const SQL: &str = concat!(backfills!(), "WHERE b.id = $1");
    decode_optional(store.optional(query(SQL).bind(id.0)).await?)
}

pub(super) async fn list(
    store: &PgStore,
    filter: &BackfillFilter,
) -> StoreResult<Page<BackfillRow>> {
    macro_rules! matching {
        () => {
            "WHERE ($1::text IS NULL OR b.dag_id = $1)
               AND (NOT $2 OR EXISTS (SELECT FROM dag_runs r WHERE r.backfill_id = b.id AND r.ended_at IS NULL))"
        };
    }
    const ROWS: &str = concat!(
        backfills!(),
        matching!(),
        " ORDER BY b.id DESC LIMIT $3 OFFSET $4"
    );
    const TOTAL: &str = concat!("SELECT count(*) AS total FROM backfills b ", matching!());
    let rows = query(ROWS)
        .bind(&filter.dag_id)
        .bind(filter.active)
        .bind(filter.limit)
        .bind(filter.offset);
    let rows = decode(&store.all(rows).await?)?;
    let count = query(TOTAL).bind(&filter.dag_id).bind(filter.active);
    Ok(Page {
        rows,
        total: total(store.optional(count).await?)?,
    })
}
