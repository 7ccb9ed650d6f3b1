//! Limits. Keys are sorted by their columns before rows are touched: the same order everywhere, hence no deadlock.

use super::PgTx;
use crate::{Statement, bind::column, rows::get};
use chrono::{DateTime, Utc};
use gristmill_common::{ids::RunPk, limit::QueueRate};
use gristmill_store::{LimitKey, LimitRow, StoreResult};
use sqlx::{postgres::PgRow, query};
use std::collections::{BTreeMap, HashMap};

/// Values by columns, in lock order, each limit once.
fn sorted<V>(
    rows: impl IntoIterator<Item = (LimitKey, V)>,
    merge: impl Fn(V, V) -> V,
) -> Vec<((&'static str, String), V)> {
    let mut by_columns: BTreeMap<(&'static str, String), V> = BTreeMap::new();
    for (key, value) in rows {
        let columns = key.columns();
        let merged = match by_columns.remove(&columns) {
            Some(before) => merge(before, value),
            None => value,
        };
        by_columns.insert(columns, merged);
    }
    by_columns.into_iter().collect()
}

pub(super) async fn ensure(
    tx: &mut PgTx,
    limits: &[(LimitKey, i64)],
    overwrite: bool,
) -> StoreResult<()> {
    // Rows that are as they should be are not locked.
    const KEEP: &str = "
        INSERT INTO limits (kind, name, cap)
        SELECT v.kind, v.name, v.cap FROM unnest($1::text[], $2::text[], $3::bigint[]) AS v (kind, name, cap)
        ON CONFLICT (kind, name) DO NOTHING";
    const OVERWRITE: &str = "
        INSERT INTO limits AS l (kind, name, cap)
        SELECT v.kind, v.name, v.cap FROM unnest($1::text[], $2::text[], $3::bigint[]) AS v (kind, name, cap)
        ON CONFLICT (kind, name) DO UPDATE SET cap = excluded.cap WHERE l.cap <> excluded.cap";
    if limits.is_empty() {
        return Ok(());
    }
    let rows = sorted(limits.iter().cloned(), |_, last| last);
    let statement = query(if overwrite { OVERWRITE } else { KEEP })
        .bind(column(&rows, |((kind, _), _)| *kind))
        .bind(column(&rows, |((_, name), _)| name.as_str()))
        .bind(column(&rows, |(_, cap)| *cap));
    tx.execute(statement).await.map(drop)
}

pub(super) async fn lock(tx: &mut PgTx, keys: &[LimitKey]) -> StoreResult<Vec<LimitRow>> {
    lock_and_look(tx, keys, None).await.map(|(rows, _)| rows)
}

/// Locks limits, and looks in the same statement whether runs outside `except` wait.
pub(super) async fn lock_and_look(
    tx: &mut PgTx,
    keys: &[LimitKey],
    except: Option<&[RunPk]>,
) -> StoreResult<(Vec<LimitRow>, bool)> {
    // The keys are rows of the index's order; an IN over a subselect keeps the sort on the locked table itself. With no
    // exceptions given (null) the look answers false.
    const SQL: &str = "
        SELECT l.kind, l.name, l.cap, l.used, l.paused, l.include_deferred, l.rate_count, l.rate_seconds, l.rate_full_at,
               (SELECT EXISTS (SELECT FROM dag_runs WHERE can_dispatch AND pk <> ALL ($3))) AS others
        FROM limits l
        WHERE (l.kind, l.name) IN (SELECT v.kind, v.name FROM unnest($1::text[], $2::text[]) AS v (kind, name))
        ORDER BY l.kind, l.name FOR NO KEY UPDATE OF l";
    if keys.is_empty() {
        return Ok((Vec::new(), false));
    }
    let rows = sorted(keys.iter().map(|k| (k.clone(), ())), |(), ()| ());
    let statement = query(SQL)
        .bind(column(&rows, |((kind, _), ())| *kind))
        .bind(column(&rows, |((_, name), ())| name.as_str()))
        .bind(except.map(|except| column(except, |run| run.0)));
    let found = tx.all(statement).await?;
    let others = match found.first() {
        Some(row) => get(row, "others")?,
        None => false,
    };
    Ok((rows_of(keys, &found, tx.now)?, others))
}

/// Rows of limits that were asked for by key.
pub(crate) fn rows_of(
    keys: &[LimitKey],
    found: &[PgRow],
    now: DateTime<Utc>,
) -> StoreResult<Vec<LimitRow>> {
    let columns: Vec<_> = keys.iter().map(|key| (key.columns(), key)).collect();
    let by_columns: HashMap<(&str, &str), &LimitKey> = columns
        .iter()
        .map(|((kind, name), key)| ((*kind, name.as_str()), *key))
        .collect();
    let mut limits = Vec::with_capacity(found.len());
    for row in found {
        if let Some(key) = by_columns.get(&(get(row, "kind")?, get(row, "name")?)) {
            limits.push(LimitRow {
                key: (*key).clone(),
                cap: get(row, "cap")?,
                used: get(row, "used")?,
                paused: get(row, "paused")?,
                rate: QueueRate::read(
                    get(row, "rate_count")?,
                    get(row, "rate_seconds")?,
                    get(row, "rate_full_at")?,
                    now,
                ),
                include_deferred: get(row, "include_deferred")?,
            });
        }
    }
    Ok(limits)
}

pub(super) const SPEND: &str = "
    UPDATE limits l SET used = l.used + v.delta
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS v (kind, name, delta)
    WHERE l.kind = v.kind AND l.name = v.name
      AND CASE WHEN v.delta > 0 THEN l.cap < 0 OR l.used + v.delta <= l.cap ELSE l.used + v.delta >= 0 END
    RETURNING l.kind, l.name";

/// Changes of limits by their columns, each limit once.
pub(super) type Deltas = Vec<((&'static str, String), i64)>;

pub(super) fn deltas(deltas: &[(LimitKey, i64)]) -> Deltas {
    let mut rows = sorted(deltas.iter().cloned(), |a, b| a + b);
    rows.retain(|(_, delta)| *delta != 0);
    rows
}

pub(super) fn bind_spend<'q>(statement: Statement<'q>, rows: &Deltas) -> Statement<'q> {
    statement
        .bind(column(rows, |((kind, _), _)| *kind))
        .bind(column(rows, |((_, name), _)| name.as_str()))
        .bind(column(rows, |(_, delta)| *delta))
}

/// What is wrong when only these (`kind name`) were changed.
pub(super) fn refused(rows: &Deltas, written: &[String]) -> Option<String> {
    let refused: Vec<String> = rows
        .iter()
        .filter(|((kind, name), _)| !written.contains(&format!("{kind} {name}")))
        .map(|((kind, name), delta)| format!("{kind} {name:?} by {delta:+}"))
        .collect();
    (!refused.is_empty()).then(|| {
        format!(
            "limits that cannot change as they were to: {}",
            refused.join(", ")
        )
    })
}

pub(super) async fn spend(tx: &mut PgTx, changes: &[(LimitKey, i64)]) -> StoreResult<()> {
    let rows = deltas(changes);
    if rows.is_empty() {
        return Ok(());
    }
    let written: Vec<String> = tx
        .all(bind_spend(query(SPEND), &rows))
        .await?
        .iter()
        .map(|row| {
            Ok(format!(
                "{} {}",
                get::<&str>(row, "kind")?,
                get::<&str>(row, "name")?
            ))
        })
        .collect::<StoreResult<_>>()?;
    match refused(&rows, &written) {
        Some(error) => Err(tx.corrupt(error)),
        None => Ok(()),
    }
}

/// The bucket is full again so much later: see `RateLimit::take`.
pub(super) async fn take_tokens(tx: &mut PgTx, queues: &[(String, i64)]) -> StoreResult<()> {
    const SQL: &str = "
        UPDATE limits l
        SET rate_full_at = GREATEST(COALESCE(l.rate_full_at, $3), $3)
            + ((v.n * l.rate_seconds * 1000000 + l.rate_count - 1) / l.rate_count) * interval '1 microsecond'
        FROM unnest($1::text[], $2::bigint[]) AS v (name, n)
        WHERE l.kind = 'queue' AND l.name = v.name AND l.rate_count IS NOT NULL";
    let statement = query(SQL)
        .bind(column(queues, |(name, _)| name.as_str()))
        .bind(column(queues, |(_, n)| *n))
        .bind(tx.now);
    tx.execute(statement).await.map(drop)
}

pub(super) async fn active_tasks(tx: &mut PgTx, except: &[RunPk]) -> StoreResult<i64> {
    const SQL: &str = "
        SELECT COALESCE(sum(active_tasks), 0)::bigint AS active FROM dag_runs
        WHERE ended_at IS NULL AND pk <> ALL ($1::bigint[])";
    let statement = query(SQL).bind(column(except, |run| run.0));
    match tx.optional(statement).await? {
        Some(row) => get(&row, "active"),
        None => Ok(0),
    }
}

pub(super) async fn cap_run_keys(tx: &mut PgTx, dag_id: &str, cap: i64) -> StoreResult<()> {
    // All names that begin with the DAG's, by the index: '0' follows '/'.
    const SQL: &str = "
        UPDATE limits SET cap = $2
        WHERE kind = 'dag_run_key' AND name >= $1 || '/' AND name < $1 || '0' AND cap <> $2";
    tx.execute(query(SQL).bind(dag_id).bind(cap))
        .await
        .map(drop)
}
