//! Assets, their events and queues.

use super::total;
use crate::{
    PgStore,
    rows::{decode, decode_optional},
};
use gristmill_store::{AssetEventFilter, AssetEventRow, AssetRow, Page, StoreResult, WaitingAsset};
use sqlx::{Postgres, QueryBuilder, query};

/// An asset `a` with who uses it and its newest event.
macro_rules! assets {
    () => {
        "SELECT a.id, a.name, a.uri, a.grp, a.extra, a.created_at, a.updated_at,
            COALESCE((SELECT json_agg(json_build_object('dag_id', r.dag_id, 'kind', r.kind, 'task_id', r.task_id,
                    'created_at', r.created_at) ORDER BY r.kind, r.dag_id, r.task_id)
                FROM asset_references r WHERE r.asset_id = a.id), '[]') AS uses,
            e.id AS event_id, e.at AS event_at
         FROM assets a
         LEFT JOIN LATERAL (SELECT id, at FROM asset_events WHERE asset_id = a.id ORDER BY id DESC LIMIT 1) e ON true "
    };
}

pub(super) async fn one(store: &PgStore, id: i64) -> StoreResult<Option<AssetRow>> {
    const SQL: &str = concat!(assets!(), "WHERE a.id = $1");
    decode_optional(store.optional(query(SQL).bind(id)).await?)
}

pub(super) async fn list(
    store: &PgStore,
    pattern: Option<&str>,
    dag_ids: &[String],
    limit: i64,
    offset: i64,
) -> StoreResult<Page<AssetRow>> {
    macro_rules! matching {
        () => {
            "WHERE ($1::text IS NULL OR strpos(a.name, $1) > 0 OR strpos(a.uri, $1) > 0)
               AND (cardinality($2::text[]) = 0
                    OR EXISTS (SELECT FROM asset_references r WHERE r.asset_id = a.id AND r.dag_id = ANY ($2)))"
        };
    }
    const ROWS: &str = concat!(
        assets!(),
        matching!(),
        " ORDER BY a.name LIMIT $3 OFFSET $4"
    );
    const TOTAL: &str = concat!("SELECT count(*) AS total FROM assets a ", matching!());
    let rows = query(ROWS)
        .bind(pattern)
        .bind(dag_ids)
        .bind(limit)
        .bind(offset);
    let rows = decode(&store.all(rows).await?)?;
    let count = query(TOTAL).bind(pattern).bind(dag_ids);
    Ok(Page {
        rows,
        total: total(store.optional(count).await?)?,
    })
}

pub(super) async fn events(
    store: &PgStore,
    filter: &AssetEventFilter,
) -> StoreResult<Page<AssetEventRow>> {
    const ROW: &str = "
        SELECT e.id, e.asset_id, a.name, a.uri, a.grp, e.at, e.extra, e.dag_id, e.run_id, e.task_id, e.map_index,
            ARRAY(SELECT r.run_pk FROM run_asset_events r WHERE r.event_id = e.id ORDER BY r.run_pk) AS runs";
    let mut rows = matching(ROW, filter);
    rows.push(" ORDER BY e.id DESC LIMIT ")
        .push_bind(filter.limit)
        .push(" OFFSET ")
        .push_bind(filter.offset);
    let mut count = matching("SELECT count(*) AS total", filter);
    Ok(Page {
        rows: decode(&store.all(rows.build()).await?)?,
        total: total(store.optional(count.build()).await?)?,
    })
}

/// Only the conditions that are asked for, so that each combination has the plan that fits it.
fn matching(select: &'static str, filter: &AssetEventFilter) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(select);
    sql.push(" FROM asset_events e JOIN assets a ON a.id = e.asset_id WHERE true");
    if let Some(id) = filter.id {
        sql.push(" AND e.id = ").push_bind(id);
    }
    if let Some(asset) = filter.asset_id {
        sql.push(" AND e.asset_id = ").push_bind(asset);
    }
    if let Some(dag_id) = &filter.source_dag_id {
        sql.push(" AND e.dag_id = ").push_bind(dag_id.clone());
    }
    if let Some(run_id) = &filter.source_run_id {
        sql.push(" AND e.run_id = ").push_bind(run_id.clone());
    }
    if let Some(task_id) = &filter.source_task_id {
        sql.push(" AND e.task_id = ").push_bind(task_id.clone());
    }
    if let Some(run) = filter.run {
        sql.push(" AND e.id IN (SELECT event_id FROM run_asset_events WHERE run_pk = ")
            .push_bind(run.0)
            .push(")");
    }
    sql
}

pub(super) async fn queued(
    store: &PgStore,
    dag_id: Option<&str>,
    asset_id: Option<i64>,
) -> StoreResult<Vec<WaitingAsset>> {
    const SQL: &str = "
        SELECT q.dag_id, q.asset_id, a.name, max(q.event_id) AS event, max(e.at) AS at
        FROM asset_queue q JOIN assets a ON a.id = q.asset_id JOIN asset_events e ON e.id = q.event_id
        WHERE ($1::text IS NULL OR q.dag_id = $1) AND ($2::bigint IS NULL OR q.asset_id = $2)
        GROUP BY q.dag_id, q.asset_id, a.name ORDER BY q.dag_id, a.name";
    decode(&store.all(query(SQL).bind(dag_id).bind(asset_id)).await?)
}

pub(super) async fn delete_queued(
    store: &PgStore,
    dag_id: Option<&str>,
    asset_id: Option<i64>,
) -> StoreResult<u64> {
    const SQL: &str = "
        DELETE FROM asset_queue q
        WHERE ($1::text IS NULL OR q.dag_id = $1) AND ($2::bigint IS NULL OR q.asset_id = $2)";
    store.execute(query(SQL).bind(dag_id).bind(asset_id)).await
}
