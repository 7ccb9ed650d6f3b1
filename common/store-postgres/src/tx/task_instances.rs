//! Task instances and their ended attempts.

use super::PgTx;
use crate::Statement;
use crate::{
    bind::{column, json, opt_text, text},
    rows::{
        FromPg, decode, get, locked_run, run_aliases, run_columns, strategy_name, ti_and_run,
        ti_columns,
    },
};
use gristmill_common::{
    ids::{RunPk, TaskIdx, TiPk},
    row::{AttemptRow, RunRow, TiRow},
};
use gristmill_store::{NewTi, StoreResult, TiWrite};
use sqlx::query;

/// Mutable columns in the order in which [`bind_mutable`] binds them, as parameters $1 to $31 of `unnest`.
macro_rules! mutable_unnest {
    () => {
        "$1::text[], $2::bigint[], $3::integer[], $4::integer[], $5::integer[], $6::integer[], $7::uuid[], $8::bigint[],
         $9::boolean[], $10::integer[], $11::integer[], $12::integer[], $13::integer[], $14::integer[], $15::integer[],
         $16::integer[], $17::integer[], $18::integer[], $19::integer[], $20::timestamptz[], $21::timestamptz[],
         $22::timestamptz[], $23::timestamptz[], $24::timestamptz[], $25::timestamptz[], $26::text[], $27::text[],
         $28::integer[], $29::integer[], $30::text[], $31::text[]"
    };
}
macro_rules! mutable_names {
    () => {
        "state, fence, try_number, max_tries, user_failures, infra_losses, attempt, epoch, occupies, up_total, up_success,
         up_failed, up_upstream_failed, up_skipped, up_removed, up_setups, up_setup_success, up_setup_skipped,
         expanded_len, scheduled_at, queued_at, claim_by, started_at, ended_at, next_at, worker, hostname, pid,
         exit_code, reason, wait"
    };
}
macro_rules! mutable_values {
    () => {
        "v.state, v.fence, v.try_number, v.max_tries, v.user_failures, v.infra_losses, v.attempt, v.epoch, v.occupies,
         v.up_total, v.up_success, v.up_failed, v.up_upstream_failed, v.up_skipped, v.up_removed, v.up_setups,
         v.up_setup_success, v.up_setup_skipped, v.expanded_len, v.scheduled_at, v.queued_at, v.claim_by, v.started_at,
         v.ended_at, v.next_at, v.worker, v.hostname, v.pid, v.exit_code, v.reason, v.wait::json"
    };
}

fn bind_mutable<'q, T>(
    statement: Statement<'q>,
    rows: &[T],
    row: impl Fn(&T) -> &TiRow,
) -> Statement<'q> {
    let row = &row;
    statement
        .bind(column(rows, |t| row(t).state.as_str()))
        .bind(column(rows, |t| row(t).fence.0))
        .bind(column(rows, |t| row(t).try_number))
        .bind(column(rows, |t| row(t).max_tries))
        .bind(column(rows, |t| row(t).user_failures))
        .bind(column(rows, |t| row(t).infra_losses))
        .bind(column(rows, |t| row(t).attempt))
        .bind(column(rows, |t| row(t).epoch))
        .bind(column(rows, |t| row(t).occupies))
        .bind(column(rows, |t| row(t).counters.total))
        .bind(column(rows, |t| row(t).counters.success))
        .bind(column(rows, |t| row(t).counters.failed))
        .bind(column(rows, |t| row(t).counters.upstream_failed))
        .bind(column(rows, |t| row(t).counters.skipped))
        .bind(column(rows, |t| row(t).counters.removed))
        .bind(column(rows, |t| row(t).counters.setups))
        .bind(column(rows, |t| row(t).counters.setup_success))
        .bind(column(rows, |t| row(t).counters.setup_skipped))
        .bind(column(rows, |t| row(t).expanded_len))
        .bind(column(rows, |t| row(t).scheduled_at))
        .bind(column(rows, |t| row(t).queued_at))
        .bind(column(rows, |t| row(t).claim_by))
        .bind(column(rows, |t| row(t).started_at))
        .bind(column(rows, |t| row(t).ended_at))
        .bind(column(rows, |t| row(t).next_at))
        .bind(column(rows, |t| opt_text(row(t).worker.as_deref())))
        .bind(column(rows, |t| opt_text(row(t).hostname.as_deref())))
        .bind(column(rows, |t| row(t).pid))
        .bind(column(rows, |t| row(t).exit_code))
        .bind(column(rows, |t| opt_text(row(t).reason.as_deref())))
        .bind(column(rows, |t| row(t).wait.as_ref().map(json)))
}

/// The key of the limit that it shares; empty: none.
pub(super) fn shared_name(row: &TiRow) -> &str {
    row.shared.as_ref().map_or("", |shared| &shared.key)
}

pub(super) async fn insert(tx: &mut PgTx, tis: &[NewTi]) -> StoreResult<Vec<TiPk>> {
    const SQL: &str = concat!(
        "INSERT INTO task_instances (run_pk, task_idx, task_id, map_index, queue, pool, pool_slots, priority_weight,
                                     map_values, map_name, concurrency_key, concurrency_limit,
                                     concurrency_strategy, limit_lane, ",
        mutable_names!(),
        ") SELECT v.run_pk, v.task_idx, v.task_id, v.map_index, v.queue, v.pool, v.pool_slots, v.priority_weight,
                  v.map_values::json, v.map_name, v.concurrency_key, v.concurrency_limit, v.concurrency_strategy,
                  CASE WHEN v.task_idx = ANY (d.limited_tasks) THEN v.task_idx ELSE -1 END, ",
        mutable_values!(),
        " FROM unnest(",
        mutable_unnest!(),
        ", $32::bigint[], $33::integer[], $34::text[], $35::integer[], $36::text[], $37::text[], $38::integer[],
          $39::integer[], $40::text[], $41::text[], $42::text[], $43::integer[], $44::text[]) WITH ORDINALITY AS v (",
        mutable_names!(),
        ", run_pk, task_idx, task_id, map_index, queue, pool, pool_slots, priority_weight, map_values, map_name,
          concurrency_key, concurrency_limit, concurrency_strategy, position)
         JOIN dag_runs r ON r.pk = v.run_pk
         JOIN dag_versions d ON d.pk = r.version_pk
         ORDER BY v.position
         RETURNING pk"
    );
    if tis.is_empty() {
        return Ok(Vec::new());
    }
    let statement = bind_mutable(query(SQL), tis, |ti| &ti.0)
        .bind(column(tis, |ti| ti.0.run.0))
        .bind(column(tis, |ti| ti.0.task_idx))
        .bind(column(tis, |ti| ti.0.task_id.as_str()))
        .bind(column(tis, |ti| ti.0.map_index))
        .bind(column(tis, |ti| ti.0.queue.as_str()))
        .bind(column(tis, |ti| ti.0.pool.as_str()))
        .bind(column(tis, |ti| ti.0.pool_slots))
        .bind(column(tis, |ti| ti.0.priority_weight))
        .bind(column(tis, |ti| ti.0.map_values.as_ref().map(json)))
        .bind(column(tis, |ti| opt_text(ti.0.map_name.as_deref())))
        .bind(column(tis, |ti| shared_name(&ti.0)))
        .bind(column(tis, |ti| {
            ti.0.shared.as_ref().map(|shared| shared.limit)
        }))
        .bind(column(tis, |ti| strategy_name(ti.0.shared.as_ref())));
    let rows = tx.all(statement).await?;
    if rows.len() != tis.len() {
        let error = format!(
            "of {} task instances {} were inserted: a run does not exist",
            tis.len(),
            rows.len()
        );
        return Err(tx.corrupt(error));
    }
    let mut keys: Vec<TiPk> = rows
        .iter()
        .map(|row| get(row, "pk").map(TiPk))
        .collect::<StoreResult<_>>()?;
    // Keys are drawn in the order of the input (ORDER BY), hence ascending; RETURNING promises no order of its own.
    keys.sort_unstable();
    Ok(keys)
}

/// Rows to write, each guarded by the state and fence that it was read with.
pub(super) const UPDATE: &str = concat!(
    "UPDATE task_instances t SET (",
    mutable_names!(),
    ") = ROW (",
    mutable_values!(),
    ") FROM unnest(",
    mutable_unnest!(),
    ", $32::bigint[], $33::text[], $34::bigint[]) AS v (",
    mutable_names!(),
    ", pk, expected_state, expected_fence)
     WHERE t.pk = v.pk AND t.state = v.expected_state AND t.fence = v.expected_fence
     RETURNING t.pk"
);

pub(super) fn bind_update<'q>(statement: Statement<'q>, writes: &[TiWrite]) -> Statement<'q> {
    bind_mutable(statement, writes, |w| &w.row)
        .bind(column(writes, |w| w.row.pk.0))
        .bind(column(writes, |w| w.expected_state.as_str()))
        .bind(column(writes, |w| w.expected_fence.0))
}

pub(super) async fn update(tx: &mut PgTx, writes: &[TiWrite]) -> StoreResult<Vec<TiPk>> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let rows = tx.all(bind_update(query(UPDATE), writes)).await?;
    rows.iter().map(|row| get(row, "pk").map(TiPk)).collect()
}

/// Instances that are loaded together with their runs' locks; more are loaded by a statement of their own, which then
/// costs little beside them, and does not send a run's columns with each.
const LOAD_WITH_LOCK: usize = 16;

pub(super) async fn lock_and_load(
    tx: &mut PgTx,
    runs: &[RunPk],
    tis: &[TiPk],
) -> StoreResult<(Vec<RunRow>, Vec<TiRow>)> {
    // A statement sees the instances as they were when it began, but waits for the locks. Whoever held one meanwhile has
    // either written the run's row, which then is not the one of this snapshot (`fresh`), or noted starts, which change a
    // state that the later write expects. `+ 0`: an instance is found by its own key, not among all of its run.
    const SQL: &str = concat!(
        "WITH locked (",
        run_aliases!(),
        ", version) AS MATERIALIZED (
            SELECT ",
        run_columns!(),
        ", r.xmin FROM dag_runs r WHERE r.pk = ANY ($1) ORDER BY r.pk FOR NO KEY UPDATE)
         SELECT l.*, COALESCE(l.version = (SELECT s.xmin FROM dag_runs s WHERE s.pk = l.r_pk), false) AS fresh, ",
        ti_columns!(),
        " FROM locked l LEFT JOIN task_instances t ON t.pk = ANY ($2) AND t.run_pk + 0 = l.r_pk"
    );
    if tis.is_empty() || tis.len() > LOAD_WITH_LOCK {
        return Ok((super::runs::lock(tx, runs).await?, load(tx, tis).await?));
    }
    let statement = query(SQL)
        .bind(column(runs, |r| r.0))
        .bind(column(tis, |t| t.0));
    let rows = tx.all(statement).await?;
    let (mut locked, mut loaded, mut all_fresh) = (Vec::<RunRow>::new(), Vec::new(), true);
    for row in &rows {
        let run = RunPk(get(row, "r_pk")?);
        if locked.last().is_none_or(|last| last.pk != run) {
            locked.push(locked_run(row)?);
        }
        if get::<Option<i64>>(row, "pk")?.is_some() {
            loaded.push(TiRow::from_pg(row)?);
        }
        all_fresh &= get::<bool>(row, "fresh")?;
    }
    if !all_fresh {
        loaded = load(tx, tis).await?;
    }
    Ok((locked, loaded))
}

pub(super) async fn load(tx: &mut PgTx, tis: &[TiPk]) -> StoreResult<Vec<TiRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        ti_columns!(),
        " FROM task_instances t WHERE t.pk = ANY($1) ORDER BY t.pk"
    );
    if tis.is_empty() {
        return Ok(Vec::new());
    }
    decode(&tx.all(query(SQL).bind(column(tis, |t| t.0))).await?)
}

pub(super) async fn load_nodes(
    tx: &mut PgTx,
    nodes: &[(RunPk, TaskIdx)],
) -> StoreResult<Vec<TiRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        ti_columns!(),
        " FROM (SELECT DISTINCT n.run_pk, n.task_idx FROM unnest($1::bigint[], $2::integer[]) AS n (run_pk, task_idx)) n
          JOIN task_instances t ON t.run_pk = n.run_pk AND t.task_idx = n.task_idx AND t.map_index = -1"
    );
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let statement = query(SQL)
        .bind(column(nodes, |(run, _)| run.0))
        .bind(column(nodes, |(_, task)| *task));
    decode(&tx.all(statement).await?)
}

pub(super) async fn load_instances(
    tx: &mut PgTx,
    instances: &[(RunPk, TaskIdx, Option<i32>)],
) -> StoreResult<Vec<TiRow>> {
    // As a range, one index or all are the same look into the unique index.
    const SQL: &str = concat!(
        "SELECT ",
        ti_columns!(),
        " FROM (SELECT DISTINCT k.run_pk, k.task_idx, k.map_index
                FROM unnest($1::bigint[], $2::integer[], $3::integer[]) AS k (run_pk, task_idx, map_index)) k
          JOIN task_instances t ON t.run_pk = k.run_pk AND t.task_idx = k.task_idx
           AND t.map_index BETWEEN COALESCE(k.map_index, 0) AND COALESCE(k.map_index, 2147483647)"
    );
    if instances.is_empty() {
        return Ok(Vec::new());
    }
    let statement = query(SQL)
        .bind(column(instances, |(run, ..)| run.0))
        .bind(column(instances, |(_, task, _)| *task))
        .bind(column(instances, |(.., index)| *index));
    decode(&tx.all(statement).await?)
}

pub(super) async fn load_unfinished(tx: &mut PgTx, run: RunPk) -> StoreResult<Vec<TiRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        ti_columns!(),
        " FROM task_instances t
          WHERE t.run_pk = $1 AND t.state NOT IN ('success', 'failed', 'upstream_failed', 'skipped', 'removed')
            AND NOT (t.map_index = -1 AND COALESCE(t.expanded_len, 0) > 0)
          ORDER BY t.pk"
    );
    decode(&tx.all(query(SQL).bind(run.0)).await?)
}

pub(super) async fn runs_of(tx: &mut PgTx, tis: &[TiPk]) -> StoreResult<Vec<(TiPk, RunPk)>> {
    if tis.is_empty() {
        return Ok(Vec::new());
    }
    let statement = query("SELECT pk, run_pk FROM task_instances WHERE pk = ANY($1)")
        .bind(column(tis, |t| t.0));
    tx.all(statement).await?.iter().map(ti_and_run).collect()
}

pub(super) async fn due_retries(tx: &mut PgTx, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>> {
    const SQL: &str = "
        SELECT pk, run_pk FROM task_instances WHERE state = 'up_for_retry' AND next_at <= $1
        ORDER BY next_at, pk LIMIT $2";
    let rows = tx.all(query(SQL).bind(tx.now).bind(max)).await?;
    rows.iter().map(ti_and_run).collect()
}

/// An attempt that is there already is left out instead of breaking the statement, so that the error can say it.
pub(super) const INSERT_ATTEMPTS: &str = "
    INSERT INTO task_attempts (run_pk, ti_pk, try_number, attempt, fence, ending, started_at, ended_at, worker,
                               hostname, pid, exit_code, reason)
    SELECT t.run_pk, v.*
    FROM unnest($1::bigint[], $2::integer[], $3::uuid[], $4::bigint[], $5::text[], $6::timestamptz[],
                $7::timestamptz[], $8::text[], $9::text[], $10::integer[], $11::integer[], $12::text[])
        AS v (ti_pk, try_number, attempt, fence, ending, started_at, ended_at, worker, hostname, pid, exit_code,
              reason)
    JOIN task_instances t ON t.pk = v.ti_pk
    ON CONFLICT DO NOTHING
    RETURNING ti_pk";

pub(super) fn bind_attempts<'q>(
    statement: Statement<'q>,
    attempts: &[AttemptRow],
) -> Statement<'q> {
    statement
        .bind(column(attempts, |a| a.ti.0))
        .bind(column(attempts, |a| a.try_number))
        .bind(column(attempts, |a| a.attempt))
        .bind(column(attempts, |a| a.fence.0))
        .bind(column(attempts, |a| a.ending.as_str()))
        .bind(column(attempts, |a| a.started_at))
        .bind(column(attempts, |a| a.ended_at))
        .bind(column(attempts, |a| opt_text(a.worker.as_deref())))
        .bind(column(attempts, |a| opt_text(a.hostname.as_deref())))
        .bind(column(attempts, |a| a.pid))
        .bind(column(attempts, |a| a.exit_code))
        .bind(column(attempts, |a| a.reason.as_deref().map(text)))
}

/// What is wrong when not all of these attempts were inserted.
pub(super) fn refused_attempts(attempts: &[AttemptRow], written: usize) -> Option<String> {
    if written == attempts.len() {
        return None;
    }
    let named: Vec<String> = attempts
        .iter()
        .map(|a| format!("try {} of {}", a.try_number, a.ti))
        .collect();
    Some(format!(
        "{} of these attempts ended before, or their task instance does not exist: {}",
        attempts.len().saturating_sub(written),
        named.join(", ")
    ))
}

pub(super) async fn insert_attempts(tx: &mut PgTx, attempts: &[AttemptRow]) -> StoreResult<()> {
    if attempts.is_empty() {
        return Ok(());
    }
    let statement = bind_attempts(query(INSERT_ATTEMPTS), attempts);
    let written = tx.execute(statement).await?.rows_affected();
    match refused_attempts(attempts, usize::try_from(written).unwrap_or_default()) {
        Some(error) => Err(tx.corrupt(error)),
        None => Ok(()),
    }
}
