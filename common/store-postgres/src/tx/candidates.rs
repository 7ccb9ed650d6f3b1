//! What may be dispatched next.

use super::PgTx;
use crate::{bind::column, rows::ti_and_run};
use gristmill_common::ids::{RunPk, TiPk};
use gristmill_store::StoreResult;
use sqlx::query;

/// The statement, with the reasons for its form.
const READY: &str = include_str!("candidates.sql");

pub(super) async fn ready(tx: &mut PgTx, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>> {
    let rows = tx.all(query(READY).bind(max)).await?;
    rows.iter().map(ti_and_run).collect()
}

/// A run outside `$1` that waits, if there is one.
pub(super) const OTHERS_WAIT: &str =
    "SELECT 1 FROM dag_runs WHERE can_dispatch AND pk <> ALL ($1::bigint[]) LIMIT 1";

pub(super) async fn others_wait(tx: &mut PgTx, except: &[RunPk]) -> StoreResult<bool> {
    let statement = query(OTHERS_WAIT).bind(column(except, |run| run.0));
    Ok(tx.optional(statement).await?.is_some())
}

#[cfg(test)]
mod tests;
