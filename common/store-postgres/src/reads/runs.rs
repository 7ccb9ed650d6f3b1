//! Runs.

use super::total;
use crate::{
    PgStore,
    rows::{decode, decode_optional, run_columns},
};
use gristmill_common::{ids::RunPk, row::RunRow};
use gristmill_store::{Backend, Page, RunFilter, StoreError, StoreResult, Tx};
use sqlx::query;

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

pub(super) async fn run_by_pk(store: &PgStore, run: RunPk) -> StoreResult<Option<RunRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        run_columns!(),
        " FROM dag_runs r WHERE r.pk = $1"
    );
    decode_optional(store.optional(query(SQL).bind(run.0)).await?)
}

pub(super) async fn runs(store: &PgStore, filter: &RunFilter) -> StoreResult<Page<RunRow>> {
    macro_rules! matching {
        () => {
            " FROM dag_runs r
              WHERE ($1::text IS NULL OR r.dag_id = $1) AND ($2::text IS NULL OR r.run_id = $2)
                AND (cardinality($3::text[]) = 0 OR r.state = ANY ($3))"
        };
    }
    const ROWS: &str = concat!(
        "SELECT ",
        run_columns!(),
        matching!(),
        " ORDER BY r.pk DESC LIMIT $4 OFFSET $5"
    );
    const TOTAL: &str = concat!("SELECT count(*) AS total", matching!());
    // Not persistent: planned with the values at hand, so that the conditions not asked for vanish.
    let filtered = |sql| {
        query(sql)
            .persistent(false)
            .bind(filter.dag_id.as_deref())
            .bind(filter.run_id.as_deref())
            .bind(&filter.states)
    };
    let rows = filtered(ROWS).bind(filter.limit).bind(filter.offset);
    let rows = decode(&store.all(rows).await?)?;
    Ok(Page {
        rows,
        total: total(store.optional(filtered(TOTAL)).await?)?,
    })
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
