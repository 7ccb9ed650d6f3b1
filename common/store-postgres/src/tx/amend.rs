//! What only clears and marks need.

use super::{PgTx, task_instances::shared_name};
use crate::{
    bind::{column, json, opt_text},
    listen::CHANNEL,
    rows::{decode, get, strategy_name, ti_columns},
};
use gristmill_common::{
    engine::Tally,
    ids::{RunPk, TaskIdx, TiPk},
    row::{RunRow, TiRow},
    state::TaskState,
};
use gristmill_store::{StoreError, StoreResult};
use sqlx::query;

pub(super) async fn load_tasks(
    tx: &mut PgTx,
    run: RunPk,
    tasks: &[TaskIdx],
    states: &[TaskState],
) -> StoreResult<Vec<TiRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        ti_columns!(),
        " FROM task_instances t
          WHERE t.run_pk = $1 AND t.task_idx = ANY ($2) AND (cardinality($3::text[]) = 0 OR t.state = ANY ($3))
          ORDER BY t.pk"
    );
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let statement = query(SQL)
        .bind(run.0)
        .bind(tasks.to_vec())
        .bind(column(states, |state| state.as_str()));
    decode(&tx.all(statement).await?)
}

pub(super) async fn tally(tx: &mut PgTx, run: RunPk) -> StoreResult<Tally> {
    const SQL: &str = "
        SELECT task_idx, state, count(*) AS n FROM task_instances
        WHERE run_pk = $1 AND state <> 'removed' AND NOT (map_index = -1 AND COALESCE(expanded_len, 0) > 0)
        GROUP BY task_idx, state";
    let mut tally = Tally::default();
    for row in tx.all(query(SQL).bind(run.0)).await? {
        let state: TaskState = get::<&str>(&row, "state")?
            .parse()
            .map_err(|error| StoreError::Corrupt(format!("column state: {error}")))?;
        let n = i32::try_from(get::<i64>(&row, "n")?).unwrap_or(i32::MAX);
        tally.0.insert((get(&row, "task_idx")?, state), n);
    }
    Ok(tally)
}

pub(super) async fn remake(tx: &mut PgTx, rows: &[&TiRow]) -> StoreResult<()> {
    const SQL: &str = "
        UPDATE task_instances t SET queue = v.queue, map_values = v.map_values::json, then_state = v.then_state,
            map_name = v.map_name, concurrency_key = v.concurrency_key, concurrency_limit = v.concurrency_limit,
            concurrency_strategy = v.concurrency_strategy
        FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[], $8::text[])
            AS v (pk, queue, map_values, then_state, map_name, concurrency_key, concurrency_limit, concurrency_strategy)
        WHERE t.pk = v.pk";
    let statement = query(SQL)
        .bind(column(rows, |row| row.pk.0))
        .bind(column(rows, |row| row.queue.as_str()))
        .bind(column(rows, |row| row.map_values.as_ref().map(json)))
        .bind(column(rows, |row| row.then.map(TaskState::as_str)))
        .bind(column(rows, |row| opt_text(row.map_name.as_deref())))
        .bind(column(rows, |row| shared_name(row)))
        .bind(column(rows, |row| {
            row.shared.as_ref().map(|shared| shared.limit)
        }))
        .bind(column(rows, |row| strategy_name(row.shared.as_ref())));
    tx.execute(statement).await.map(drop)
}

pub(super) async fn delete_xcoms(tx: &mut PgTx, run: RunPk, of: &[TiPk]) -> StoreResult<()> {
    let statement = query("DELETE FROM xcoms WHERE run_pk = $1 AND ti_pk = ANY ($2)")
        .bind(run.0)
        .bind(column(of, |ti| ti.0));
    tx.execute(statement).await.map(drop)
}

pub(super) async fn announce(tx: &mut PgTx, run: &RunRow) -> StoreResult<()> {
    const SQL: &str = "
        UPDATE dag_runs SET queued_at = $2 WHERE pk = $1 RETURNING pg_notify($3, '')::text AS told";
    let statement = query(SQL).bind(run.pk.0).bind(run.queued_at).bind(CHANNEL);
    tx.all(statement).await.map(drop)
}
