//! Task instances, their attempts and XComs.

use super::{
    listing::{push_after, push_conditions, push_order},
    total,
};
use crate::{
    PgStore,
    bind::text,
    rows::{decode, decode_optional, get, ti_columns},
};
use gristmill_common::{
    ids::{RunPk, TaskIdx, TiPk},
    row::{AttemptRow, TiRow, XcomRow},
};
use gristmill_store::{Page, StateCounts, StoreResult, TiFilter};
use sqlx::{Postgres, QueryBuilder, query};

/// The node of an expanded task stands for its instances, and is hidden.
macro_rules! visible {
    () => {
        "NOT (t.map_index = -1 AND COALESCE(t.expanded_len, 0) > 0)"
    };
}

pub(super) async fn task_instances(store: &PgStore, filter: &TiFilter) -> StoreResult<Page<TiRow>> {
    let mut rows = matching(concat!("SELECT ", ti_columns!()), filter);
    push_after(&mut rows, &filter.listing);
    push_order(&mut rows, &filter.listing, "t.pk");
    rows.push(" LIMIT ")
        .push_bind(filter.limit)
        .push(" OFFSET ")
        .push_bind(filter.offset);
    let mut count = match filter.listing.count_at_most {
        None => matching("SELECT count(*) AS total", filter),
        Some(most) => {
            let mut some = matching("SELECT count(*) AS total FROM (SELECT 1", filter);
            some.push(" LIMIT ").push_bind(most).push(") AS counted");
            some
        }
    };
    Ok(Page {
        rows: decode(&store.all(rows.build()).await?)?,
        total: total(store.optional(count.build()).await?)?,
    })
}

/// Only the conditions that are asked for, so that each combination has the plan that fits it.
fn matching(select: &'static str, filter: &TiFilter) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(select);
    sql.push(" FROM task_instances t");
    if filter.listing.asks_of_runs() {
        sql.push(" JOIN dag_runs r ON r.pk = t.run_pk");
    }
    sql.push(concat!(" WHERE ", visible!()));
    push_conditions(&mut sql, &filter.listing);
    if let Some(run) = filter.run {
        sql.push(" AND t.run_pk = ").push_bind(run.0);
    }
    if let Some(dag_id) = &filter.dag_id {
        sql.push(" AND EXISTS (SELECT FROM dag_runs of_dag WHERE of_dag.pk = t.run_pk AND of_dag.dag_id = ")
            .push_bind(dag_id.clone())
            .push(")");
    }
    if let Some(task_id) = &filter.task_id {
        sql.push(" AND t.task_id = ")
            .push_bind(text(task_id).into_owned());
    }
    if let Some(map_index) = filter.map_index {
        sql.push(" AND t.map_index = ").push_bind(map_index);
    }
    if !filter.states.is_empty() {
        sql.push(" AND t.state = ANY (")
            .push_bind(filter.states.clone())
            .push(")");
    }
    if let Some(queue) = &filter.queue {
        sql.push(" AND t.queue = ")
            .push_bind(text(queue).into_owned());
    }
    if let Some(pool) = &filter.pool {
        sql.push(" AND t.pool = ")
            .push_bind(text(pool).into_owned());
    }
    sql
}

pub(super) async fn task_instance(
    store: &PgStore,
    run: RunPk,
    task_id: &str,
    map_index: i32,
) -> StoreResult<Option<TiRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        ti_columns!(),
        " FROM task_instances t WHERE t.run_pk = $1 AND t.task_id = $2 AND t.map_index = $3"
    );
    let statement = query(SQL).bind(run.0).bind(task_id).bind(map_index);
    decode_optional(store.optional(statement).await?)
}

pub(super) async fn state_counts(store: &PgStore, run: RunPk) -> StoreResult<StateCounts> {
    const SQL: &str = concat!(
        "SELECT t.state, count(*) AS count FROM task_instances t WHERE t.run_pk = $1 AND ",
        visible!(),
        " GROUP BY t.state"
    );
    let rows = store.all(query(SQL).bind(run.0)).await?;
    rows.iter()
        .map(|row| Ok((get(row, "state")?, get(row, "count")?)))
        .collect()
}

pub(super) async fn attempts(store: &PgStore, ti: TiPk) -> StoreResult<Vec<AttemptRow>> {
    const SQL: &str = "
        SELECT a.ti_pk, a.try_number, a.attempt, a.fence, a.ending, a.started_at, a.ended_at, a.worker, a.hostname,
               a.pid, a.exit_code, a.reason
        FROM task_instances t
        JOIN task_attempts a ON a.run_pk = t.run_pk AND a.ti_pk = t.pk
        WHERE t.pk = $1 ORDER BY a.try_number";
    decode(&store.all(query(SQL).bind(ti.0)).await?)
}

macro_rules! xcom_columns {
    () => {
        "x.run_pk, x.ti_pk, x.task_idx, x.map_index, x.key, x.fence, x.value, x.object_key, x.object_size"
    };
}

pub(super) async fn xcoms(
    store: &PgStore,
    run: RunPk,
    ti: Option<TiPk>,
    key: Option<&str>,
) -> StoreResult<Vec<XcomRow>> {
    const OF_RUN: &str = concat!(
        "SELECT ",
        xcom_columns!(),
        " FROM xcoms x WHERE x.run_pk = $1 AND ($2::text IS NULL OR x.key = $2)
          ORDER BY x.task_idx, x.map_index, x.key"
    );
    const OF_INSTANCE: &str = concat!(
        "SELECT ",
        xcom_columns!(),
        " FROM task_instances t
          JOIN xcoms x ON x.run_pk = t.run_pk AND x.task_idx = t.task_idx AND x.map_index = t.map_index
          WHERE t.run_pk = $1 AND ($2::text IS NULL OR x.key = $2) AND t.pk = $3
          ORDER BY x.key"
    );
    let statement = query(if ti.is_some() { OF_INSTANCE } else { OF_RUN })
        .bind(run.0)
        .bind(key.map(text));
    let statement = match ti {
        Some(ti) => statement.bind(ti.0),
        None => statement,
    };
    decode(&store.all(statement).await?)
}

pub(super) async fn xcoms_of_task(
    store: &PgStore,
    run: RunPk,
    task: TaskIdx,
    key: &str,
) -> StoreResult<Vec<XcomRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        xcom_columns!(),
        " FROM xcoms x WHERE x.run_pk = $1 AND x.task_idx = $2 AND x.key = $3 ORDER BY x.map_index"
    );
    let statement = query(SQL).bind(run.0).bind(task).bind(text(key));
    decode(&store.all(statement).await?)
}

pub(super) async fn dead_tasks(store: &PgStore, limit: i64) -> StoreResult<Vec<TiRow>> {
    // The condition is the partial index's.
    const SQL: &str = concat!(
        "SELECT ",
        ti_columns!(),
        " FROM task_instances t WHERE t.state = 'failed' AND t.infra_losses >= 3 ORDER BY t.ended_at DESC LIMIT $1"
    );
    decode(&store.all(query(SQL).bind(limit)).await?)
}
