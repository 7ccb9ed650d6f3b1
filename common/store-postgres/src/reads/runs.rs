//! Runs.

use super::{
    listing::{push_after, push_conditions, push_order},
    total,
};
use crate::{
    PgStore,
    bind::{column, text},
    rows::{decode, decode_optional, run_columns},
};
use gristmill_common::{ids::RunPk, row::RunRow};
use gristmill_store::{Backend, Page, RunFilter, StoreError, StoreResult, Tx};
use sqlx::{Postgres, QueryBuilder, query};

pub(super) async fn run(
    store: &PgStore,
    dag_id: &str,
    run_id: &str,
) -> StoreResult<Option<RunRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        run_columns!(),
        " FROM dag_runs r WHERE r.dag_id = $1 AND r.run_id = $2"
    );
    decode_optional(store.optional(query(SQL).bind(dag_id).bind(run_id)).await?)
}

pub(super) async fn runs_by_pk(store: &PgStore, runs: &[RunPk]) -> StoreResult<Vec<RunRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        run_columns!(),
        " FROM dag_runs r WHERE r.pk = ANY($1)"
    );
    decode(&store.all(query(SQL).bind(column(runs, |r| r.0))).await?)
}

pub(super) async fn runs(store: &PgStore, filter: &RunFilter) -> StoreResult<Page<RunRow>> {
    let mut rows = matching(concat!("SELECT ", run_columns!()), filter);
    push_after(&mut rows, &filter.listing);
    push_order(&mut rows, &filter.listing, "r.pk DESC");
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
fn matching(select: &'static str, filter: &RunFilter) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(select);
    sql.push(" FROM dag_runs r WHERE true");
    if let Some(dag_id) = &filter.dag_id {
        sql.push(" AND r.dag_id = ").push_bind(dag_id.clone());
    }
    if let Some(run_id) = &filter.run_id {
        sql.push(" AND r.run_id = ")
            .push_bind(text(run_id).into_owned());
    }
    if !filter.states.is_empty() {
        sql.push(" AND r.state = ANY (")
            .push_bind(filter.states.clone())
            .push(")");
    }
    push_conditions(&mut sql, &filter.listing);
    sql
}

pub(super) async fn delete_run(store: &PgStore, run: RunPk) -> StoreResult<()> {
    let mut tx = store.begin().await?;
    let row = tx.lock_runs(&[run]).await?.pop();
    let Some(row) = row else {
        return Err(StoreError::NotFound {
            what: "run",
            name: run.to_string(),
        });
    };
    if !row.state.is_finished() {
        return Err(StoreError::Refused(format!(
            "run {:?} is {}: cancel it, or wait for its end",
            row.run_id, row.state
        )));
    }
    tx.delete_runs(&[run.0]).await?;
    tx.commit().await
}
