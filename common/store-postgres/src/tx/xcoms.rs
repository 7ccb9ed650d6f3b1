//! Durable copies of XComs.

use super::PgTx;
use crate::{
    Statement,
    bind::{column, json, text},
    rows::{decode, get},
};
use gristmill_common::{
    ids::{Fence, RunPk, TaskIdx, TiPk},
    row::{XcomRow, XcomValue},
};
use gristmill_store::{StoreResult, UpstreamXcom};
use sqlx::{postgres::PgRow, query};
use std::collections::BTreeMap;

pub(super) const PUT: &str = "
    INSERT INTO xcoms AS x (run_pk, ti_pk, task_idx, map_index, key, fence, value, object_key, object_size)
    SELECT v.run_pk, v.ti_pk, v.task_idx, v.map_index, v.key, v.fence, v.value::json, v.object_key, v.object_size
    FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[], $5::text[], $6::bigint[], $7::text[],
                $8::text[], $9::bigint[])
        AS v (run_pk, ti_pk, task_idx, map_index, key, fence, value, object_key, object_size)
    ON CONFLICT (run_pk, task_idx, map_index, key) DO UPDATE
        SET fence = excluded.fence, value = excluded.value, object_key = excluded.object_key,
            object_size = excluded.object_size
        WHERE x.fence <= excluded.fence
    RETURNING 1";

/// The newest of each: one statement may write a row only once.
pub(super) fn newest(xcoms: &[XcomRow]) -> Vec<&XcomRow> {
    let mut newest: BTreeMap<(TiPk, &str), &XcomRow> = BTreeMap::new();
    for xcom in xcoms {
        let kept = newest.entry((xcom.ti, &xcom.key)).or_insert(xcom);
        if kept.fence <= xcom.fence {
            *kept = xcom;
        }
    }
    newest.into_values().collect()
}

pub(super) fn bind_put<'q>(statement: Statement<'q>, rows: &[&XcomRow]) -> Statement<'q> {
    let object = |x: &XcomRow| match &x.value {
        XcomValue::Inline(_) => None,
        // Sizes are at most 64 MiB.
        XcomValue::Object { size, .. } => Some(i64::try_from(*size).unwrap_or(i64::MAX)),
    };
    statement
        .bind(column(rows, |x| x.run.0))
        .bind(column(rows, |x| x.ti.0))
        .bind(column(rows, |x| x.task_idx))
        .bind(column(rows, |x| x.map_index))
        .bind(column(rows, |x| text(&x.key)))
        .bind(column(rows, |x| x.fence.0))
        .bind(column(rows, |x| match &x.value {
            XcomValue::Inline(value) => Some(json(value)),
            XcomValue::Object { .. } => None,
        }))
        .bind(column(rows, |x| match &x.value {
            XcomValue::Inline(_) => None,
            XcomValue::Object { key, .. } => Some(key.as_str()),
        }))
        .bind(column(rows, |x| object(x)))
}

pub(super) async fn put(tx: &mut PgTx, xcoms: &[XcomRow]) -> StoreResult<()> {
    let rows = newest(xcoms);
    if rows.is_empty() {
        return Ok(());
    }
    tx.execute(bind_put(query(PUT), &rows)).await.map(drop)
}

pub(super) async fn of_tasks(
    tx: &mut PgTx,
    run: RunPk,
    tasks: &[TaskIdx],
    keys: &[String],
) -> StoreResult<Vec<XcomRow>> {
    const SQL: &str = "
        SELECT run_pk, ti_pk, task_idx, map_index, key, fence, value, object_key, object_size FROM xcoms
        WHERE run_pk = $1 AND task_idx = ANY ($2) AND key = ANY ($3)
        ORDER BY task_idx, map_index, key";
    let statement = query(SQL)
        .bind(run.0)
        .bind(tasks)
        .bind(column(keys, |k| text(k)));
    decode(&tx.all(statement).await?)
}

pub(super) async fn refs(
    tx: &mut PgTx,
    run: RunPk,
    tasks: &[TaskIdx],
    max: i64,
) -> StoreResult<Vec<UpstreamXcom>> {
    const SQL: &str = "
        SELECT task_idx, map_index, ti_pk, fence, key, object_key FROM xcoms
        WHERE run_pk = $1 AND task_idx = ANY ($2)
        ORDER BY task_idx, map_index, key LIMIT $3";
    let statement = query(SQL)
        .bind(run.0)
        .bind(tasks)
        .bind(max.saturating_add(1));
    tx.all(statement).await?.iter().map(upstream).collect()
}

pub(super) async fn refs_at(
    tx: &mut PgTx,
    run: RunPk,
    tasks: &[TaskIdx],
    map_indexes: &[i32],
) -> StoreResult<Vec<UpstreamXcom>> {
    const SQL: &str = "
        SELECT task_idx, map_index, ti_pk, fence, key, object_key FROM xcoms
        WHERE run_pk = $1 AND task_idx = ANY ($2) AND map_index = ANY ($3)
        ORDER BY task_idx, map_index, key";
    let statement = query(SQL).bind(run.0).bind(tasks).bind(map_indexes);
    tx.all(statement).await?.iter().map(upstream).collect()
}

fn upstream(row: &PgRow) -> StoreResult<UpstreamXcom> {
    Ok(UpstreamXcom {
        task_idx: get(row, "task_idx")?,
        map_index: get(row, "map_index")?,
        ti: TiPk(get(row, "ti_pk")?),
        fence: Fence(get(row, "fence")?),
        key: get(row, "key")?,
        object: get(row, "object_key")?,
    })
}
