//! Limits. Keys are sorted by their columns before rows are touched: the same order everywhere, hence no deadlock.

use super::PgTx;
use crate::{bind::column, rows::get};
use gristmill_store::{LimitKey, LimitRow, StoreError, StoreResult};
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
    // The keys are rows of the index's order; an IN over a subselect keeps the sort on the locked table itself.
    const SQL: &str = "
        SELECT l.kind, l.name, l.cap, l.used, l.paused FROM limits l
        WHERE (l.kind, l.name) IN (SELECT v.kind, v.name FROM unnest($1::text[], $2::text[]) AS v (kind, name))
        ORDER BY l.kind, l.name FOR NO KEY UPDATE OF l";
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sorted(keys.iter().map(|k| (k.clone(), ())), |(), ()| ());
    let statement = query(SQL)
        .bind(column(&rows, |((kind, _), ())| *kind))
        .bind(column(&rows, |((_, name), ())| name.as_str()));
    let found = tx.all(statement).await?;
    rows_of(keys, &found)
}

/// Rows of limits that were asked for by key.
pub(crate) fn rows_of(keys: &[LimitKey], found: &[PgRow]) -> StoreResult<Vec<LimitRow>> {
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
            });
        }
    }
    Ok(limits)
}

pub(super) async fn spend(tx: &mut PgTx, deltas: &[(LimitKey, i64)]) -> StoreResult<()> {
    const SQL: &str = "
        UPDATE limits l SET used = l.used + v.delta
        FROM unnest($1::text[], $2::text[], $3::bigint[]) AS v (kind, name, delta)
        WHERE l.kind = v.kind AND l.name = v.name
          AND CASE WHEN v.delta > 0 THEN l.cap < 0 OR l.used + v.delta <= l.cap ELSE l.used + v.delta >= 0 END
        RETURNING l.kind, l.name";
    let mut rows = sorted(deltas.iter().cloned(), |a, b| a + b);
    rows.retain(|(_, delta)| *delta != 0);
    if rows.is_empty() {
        return Ok(());
    }
    let statement = query(SQL)
        .bind(column(&rows, |((kind, _), _)| *kind))
        .bind(column(&rows, |((_, name), _)| name.as_str()))
        .bind(column(&rows, |(_, delta)| *delta));
    let written = tx.all(statement).await?;
    for row in &written {
        let (kind, name): (&str, &str) = (get(row, "kind")?, get(row, "name")?);
        rows.retain(|((k, n), _)| !(*k == kind && n == name));
    }
    if rows.is_empty() {
        return Ok(());
    }
    let refused: Vec<String> = rows
        .iter()
        .map(|((kind, name), delta)| format!("{kind} {name:?} by {delta:+}"))
        .collect();
    let error = format!(
        "limits that cannot change as they were to: {}",
        refused.join(", ")
    );
    tx.failed = Some(error.clone());
    Err(StoreError::Corrupt(error))
}
