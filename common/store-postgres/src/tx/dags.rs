//! DAGs and their versions.

use super::PgTx;
use crate::{
    bind::{json, opt_text, text},
    rows::{dag_columns, decode, decode_optional, get, version_columns},
};
use gristmill_common::{ids::VersionPk, spec::DagSpec};
use gristmill_store::{
    DagRow, LimitKey, NewDagVersion, StoreError, StoreResult, Tx, Unfinished, VersionRow,
};
use sqlx::query;
use uuid::Uuid;

pub(super) async fn put_version(
    tx: &mut PgTx,
    new: &NewDagVersion,
) -> StoreResult<(VersionRow, bool)> {
    let dag_id = &new.spec.dag_id;
    // The DAG's row serialises deployments of one DAG.
    let exists = tx
        .optional(query("SELECT 1 FROM dags WHERE dag_id = $1 FOR NO KEY UPDATE").bind(dag_id))
        .await?
        .is_some();
    let newest = match exists {
        true => newest_version(tx, dag_id).await?,
        false => None,
    };
    let (version, is_new) = match newest {
        Some(v) if v.spec_hash == new.spec_hash && v.bundle == new.bundle => (v, false),
        newest => {
            let number = newest.map_or(0, |v| v.version_number) + 1;
            (insert_version(tx, new, number).await?, true)
        }
    };
    upsert_dag(tx, new, &version).await?;
    let cap = i64::from(new.spec.max_active_runs);
    let key = LimitKey::DagRuns {
        dag_id: dag_id.clone(),
    };
    tx.ensure_limits(&[(key, cap)], true).await?;
    Ok((version, is_new))
}

async fn newest_version(tx: &mut PgTx, dag_id: &str) -> StoreResult<Option<VersionRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        version_columns!(),
        " FROM dag_versions v WHERE v.dag_id = $1 ORDER BY v.version_number DESC LIMIT 1"
    );
    decode_optional(tx.optional(query(SQL).bind(dag_id)).await?)
}

async fn insert_version(
    tx: &mut PgTx,
    new: &NewDagVersion,
    number: i32,
) -> StoreResult<VersionRow> {
    // Two first deployments of one DAG at once: the second waits here for the first, and is then told to try again.
    const SQL: &str = concat!(
        "INSERT INTO dag_versions AS v
             (id, dag_id, version_number, spec, spec_hash, source, bundle, limited_tasks, created_at)
         VALUES ($1, $2, $3, $4::json, $5, $6, $7, $8, $9)
         ON CONFLICT (dag_id, version_number) DO NOTHING
         RETURNING ",
        version_columns!()
    );
    let statement = query(SQL)
        .bind(Uuid::now_v7())
        .bind(&new.spec.dag_id)
        .bind(number)
        .bind(json(&new.spec))
        .bind(&new.spec_hash)
        .bind(text(&new.source))
        .bind(&new.bundle)
        .bind(limited_tasks(&new.spec))
        .bind(tx.now);
    decode_optional(tx.optional(statement).await?)?
        .ok_or_else(|| StoreError::Conflict(format!("DAG {:?} is being deployed", new.spec.dag_id)))
}

/// Positions of tasks with limits of their own.
fn limited_tasks(spec: &DagSpec) -> Vec<i32> {
    (0..)
        .zip(&spec.tasks)
        .filter(|(_, task)| {
            task.max_active_tis_per_dag.is_some()
                || task.max_active_tis_per_dagrun.is_some()
                || task.concurrency.is_some()
        })
        .map(|(idx, _)| idx)
        .collect()
}

async fn upsert_dag(tx: &mut PgTx, new: &NewDagVersion, version: &VersionRow) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO dags (dag_id, version_pk, version_number, is_paused, is_stale, description, owner, tags, fileloc, schedule,
                          max_active_runs, max_active_tasks, created_at, updated_at, overlap)
        VALUES ($1, $2, $3, $4, false, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13)
        ON CONFLICT (dag_id) DO UPDATE SET
            version_pk = excluded.version_pk, version_number = excluded.version_number, is_stale = false, description = excluded.description,
            owner = excluded.owner, tags = excluded.tags, fileloc = excluded.fileloc, schedule = excluded.schedule,
            max_active_runs = excluded.max_active_runs, max_active_tasks = excluded.max_active_tasks,
            updated_at = excluded.updated_at, overlap = excluded.overlap";
    let spec = &new.spec;
    let statement = query(SQL)
        .bind(&spec.dag_id)
        .bind(version.pk.0)
        .bind(version.version_number)
        .bind(spec.is_paused_upon_creation)
        .bind(opt_text(spec.description.as_deref()))
        .bind(opt_text(spec.owner.as_deref()))
        .bind(&spec.tags)
        .bind(text(&new.fileloc))
        .bind(opt_text(new.schedule.as_deref()))
        .bind(clamp(spec.max_active_runs))
        .bind(clamp(spec.max_active_tasks))
        .bind(tx.now)
        .bind(spec.overlap.as_str());
    tx.execute(statement).await.map(drop)
}

fn clamp(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) async fn lock_due(tx: &mut PgTx, max: i64) -> StoreResult<Vec<DagRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        dag_columns!(),
        " FROM dags d
         WHERE d.next_run_after <= $1 AND NOT d.is_paused AND NOT d.is_stale
         ORDER BY d.next_run_after, d.dag_id LIMIT $2
         FOR NO KEY UPDATE SKIP LOCKED"
    );
    decode(&tx.all(query(SQL).bind(tx.now).bind(max)).await?)
}

pub(super) async fn lock(tx: &mut PgTx, dag_id: &str) -> StoreResult<Option<DagRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        dag_columns!(),
        " FROM dags d
         WHERE d.dag_id = $1 FOR NO KEY UPDATE"
    );
    decode_optional(tx.optional(query(SQL).bind(dag_id)).await?)
}

pub(super) async fn update(tx: &mut PgTx, dag: &DagRow) -> StoreResult<()> {
    const SQL: &str = "
        UPDATE dags SET next_run_after = $2, next_logical_date = $3, next_interval_start = $4,
            next_interval_end = $5, last_run_after = $6, is_paused = $7, is_stale = $8, updated_at = $9,
            pause_reason = $10
        WHERE dag_id = $1";
    let statement = query(SQL)
        .bind(&dag.dag_id)
        .bind(dag.next_run_after)
        .bind(dag.next_logical_date)
        .bind(dag.next_interval_start)
        .bind(dag.next_interval_end)
        .bind(dag.last_run_after)
        .bind(dag.is_paused)
        .bind(dag.is_stale)
        .bind(tx.now)
        .bind(opt_text(dag.pause_reason.as_deref()));
    match tx.execute(statement).await?.rows_affected() {
        0 => Err(StoreError::NotFound {
            what: "DAG",
            name: dag.dag_id.clone(),
        }),
        _ => Ok(()),
    }
}

pub(super) async fn version(tx: &mut PgTx, version: VersionPk) -> StoreResult<Option<VersionRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        version_columns!(),
        " FROM dag_versions v WHERE v.pk = $1"
    );
    decode_optional(tx.optional(query(SQL).bind(version.0)).await?)
}

pub(super) async fn unfinished_runs(tx: &mut PgTx, dag_id: &str) -> StoreResult<Unfinished> {
    const SQL: &str = "
        SELECT count(*) AS total, count(*) FILTER (WHERE run_type = 'scheduled') AS scheduled
        FROM dag_runs WHERE dag_id = $1 AND ended_at IS NULL AND backfill_id IS NULL";
    match tx.optional(query(SQL).bind(dag_id)).await? {
        Some(row) => Ok(Unfinished {
            scheduled: get(&row, "scheduled")?,
            all: get(&row, "total")?,
        }),
        None => Ok(Unfinished::default()),
    }
}

pub(super) async fn failures_in_a_row(
    tx: &mut PgTx,
    dag_id: &str,
    at_most: u32,
) -> StoreResult<u32> {
    const SQL: &str = "
        SELECT r.state FROM dag_runs r JOIN dags d ON d.dag_id = r.dag_id
        WHERE r.dag_id = $1 AND r.ended_at IS NOT NULL AND NOT r.cancelled AND r.backfill_id IS NULL
          AND r.ended_at > COALESCE(d.unpaused_at, '-infinity')
        ORDER BY r.ended_at DESC, r.pk DESC LIMIT $2";
    let rows = tx
        .all(query(SQL).bind(dag_id).bind(i64::from(at_most)))
        .await?;
    let mut failures = 0;
    for row in &rows {
        if get::<&str>(row, "state")? != "failed" {
            break;
        }
        failures += 1;
    }
    Ok(failures)
}
