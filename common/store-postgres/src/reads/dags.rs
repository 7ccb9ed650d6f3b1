//! DAGs, versions, import errors.

use super::total;
use crate::{
    PgStore,
    bind::{column, text},
    listen::CHANNEL,
    rows::{dag_columns, decode, decode_optional, get, version_columns},
};
use gristmill_common::ids::VersionPk;
use gristmill_store::{
    Backend, DagRow, ImportErrorRow, Page, StoreError, StoreResult, Tx, VersionRow,
};
use sqlx::query;

pub(super) async fn dag(store: &PgStore, dag_id: &str) -> StoreResult<Option<DagRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        dag_columns!(),
        " FROM dags d WHERE d.dag_id = $1"
    );
    decode_optional(store.optional(query(SQL).bind(dag_id)).await?)
}

pub(super) async fn dags(
    store: &PgStore,
    pattern: Option<&str>,
    include_stale: bool,
    limit: i64,
    offset: i64,
) -> StoreResult<Page<DagRow>> {
    macro_rules! matching {
        () => {
            " FROM dags d WHERE ($1::text IS NULL OR strpos(d.dag_id, $1) > 0) AND ($2 OR NOT d.is_stale)"
        };
    }
    const ROWS: &str = concat!(
        "SELECT ",
        dag_columns!(),
        matching!(),
        " ORDER BY d.dag_id LIMIT $3 OFFSET $4"
    );
    const TOTAL: &str = concat!("SELECT count(*) AS total", matching!());
    let rows = query(ROWS)
        .bind(pattern)
        .bind(include_stale)
        .bind(limit)
        .bind(offset);
    let rows = decode(&store.all(rows).await?)?;
    let count = query(TOTAL).bind(pattern).bind(include_stale);
    Ok(Page {
        rows,
        total: total(store.optional(count).await?)?,
    })
}

pub(super) async fn version(
    store: &PgStore,
    version: VersionPk,
) -> StoreResult<Option<VersionRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        version_columns!(),
        " FROM dag_versions v WHERE v.pk = $1"
    );
    decode_optional(store.optional(query(SQL).bind(version.0)).await?)
}

pub(super) async fn versions(
    store: &PgStore,
    dag_id: &str,
    limit: i64,
    offset: i64,
) -> StoreResult<Page<VersionRow>> {
    const ROWS: &str = concat!(
        "SELECT ",
        version_columns!(),
        " FROM dag_versions v WHERE v.dag_id = $1 ORDER BY v.version_number DESC LIMIT $2 OFFSET $3"
    );
    const TOTAL: &str = "SELECT count(*) AS total FROM dag_versions WHERE dag_id = $1";
    let rows = query(ROWS).bind(dag_id).bind(limit).bind(offset);
    let rows = decode(&store.all(rows).await?)?;
    Ok(Page {
        rows,
        total: total(store.optional(query(TOTAL).bind(dag_id)).await?)?,
    })
}

pub(super) async fn set_paused(store: &PgStore, dag_id: &str, paused: bool) -> StoreResult<DagRow> {
    // Runs that waited for the end of the pause may start: schedulers are told.
    const SQL: &str = concat!(
        "WITH d AS (UPDATE dags SET is_paused = $2, updated_at = $3, pause_reason = NULL,
            unpaused_at = CASE WHEN $2 THEN unpaused_at ELSE $3 END
         WHERE dag_id = $1 RETURNING *)
         SELECT CASE WHEN NOT d.is_paused THEN pg_notify($4, '')::text END AS told, ",
        dag_columns!(),
        " FROM d"
    );
    let statement = query(SQL)
        .bind(dag_id)
        .bind(paused)
        .bind(store.inner.clock.now())
        .bind(CHANNEL);
    decode_optional(store.optional(statement).await?)?.ok_or_else(|| not_found(dag_id))
}

fn not_found(dag_id: &str) -> StoreError {
    StoreError::NotFound {
        what: "DAG",
        name: dag_id.to_owned(),
    }
}

pub(super) async fn delete_dag(store: &PgStore, dag_id: &str) -> StoreResult<()> {
    // A new run's foreign key waits for this lock, hence none is made in between.
    const LOCK: &str = "SELECT 1 FROM dags WHERE dag_id = $1 FOR UPDATE";
    const UNFINISHED: &str =
        "SELECT count(*) AS total FROM dag_runs WHERE dag_id = $1 AND ended_at IS NULL";
    const RUNS: &str = "SELECT pk FROM dag_runs WHERE dag_id = $1";
    // A task's limit is named DAG/TASK: all of a DAG lie between DAG/ and DAG0, the character after the slash.
    const LIMITS: &str = "
        DELETE FROM limits WHERE (kind = 'dag_runs' AND name = $1)
            OR (kind = 'task' AND name > $1 || '/' AND name < $1 || '0')
            OR (kind = 'backfill' AND name IN (SELECT id::text FROM backfills WHERE dag_id = $1))";
    let mut tx = store.begin().await?;
    if tx.optional(query(LOCK).bind(dag_id)).await?.is_none() {
        return Err(not_found(dag_id));
    }
    let unfinished = total(tx.optional(query(UNFINISHED).bind(dag_id)).await?)?;
    if unfinished > 0 {
        return Err(StoreError::Refused(format!(
            "DAG {dag_id:?} has {unfinished} unfinished runs: cancel them, or wait for their end"
        )));
    }
    let runs: Vec<i64> = tx
        .all(query(RUNS).bind(dag_id))
        .await?
        .iter()
        .map(|row| get(row, "pk"))
        .collect::<StoreResult<_>>()?;
    tx.delete_runs(&runs).await?;
    tx.execute(query(LIMITS).bind(dag_id)).await?;
    // The DAG's row names its version and its versions name the DAG: the versions go by cascade, after the row.
    tx.execute(query("DELETE FROM dags WHERE dag_id = $1").bind(dag_id))
        .await?;
    tx.commit().await
}

pub(super) async fn mark_stale(store: &PgStore, prefix: &str, keep: &[String]) -> StoreResult<u64> {
    const SQL: &str = "
        UPDATE dags SET is_stale = true, updated_at = $3
        WHERE NOT is_stale AND starts_with(fileloc, $1) AND dag_id <> ALL ($2)";
    let statement = query(SQL)
        .bind(text(prefix))
        .bind(keep)
        .bind(store.inner.clock.now());
    store.execute(statement).await
}

pub(super) async fn put_import_errors(
    store: &PgStore,
    prefix: &str,
    errors: &[(String, String)],
) -> StoreResult<()> {
    const DELETE: &str = "DELETE FROM import_errors WHERE starts_with(filename, $1)";
    const INSERT: &str = "
        INSERT INTO import_errors (filename, error, at)
        SELECT v.*, $3 FROM unnest($1::text[], $2::text[]) AS v";
    let mut tx = store.begin().await?;
    tx.execute(query(DELETE).bind(text(prefix))).await?;
    let insert = query(INSERT)
        .bind(column(errors, |(file, _)| text(file)))
        .bind(column(errors, |(_, error)| text(error)))
        .bind(tx.now());
    tx.execute(insert).await?;
    tx.commit().await
}

pub(super) async fn import_errors(store: &PgStore) -> StoreResult<Vec<ImportErrorRow>> {
    const SQL: &str = "SELECT id, filename, error, at FROM import_errors ORDER BY filename, id";
    decode(&store.all(query(SQL)).await?)
}
