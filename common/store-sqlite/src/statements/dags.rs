//! DAGs and their versions, as transactions write them.

use crate::{
    codec::{Document, Flag, Micros, encode, time},
    session::{Arg, Session, args},
};
use gristmill_common::{ids::VersionPk, spec::DagSpec};
use gristmill_store::{DagRow, LimitKey, NewDagVersion, StoreResult, Unfinished, VersionRow};
use serde::Deserialize;
use uuid::Uuid;

/// A DAG `d` with its current version `v`, in the order of [`DagRecord`].
macro_rules! dag_row {
    () => {
        "json_array(d.dag_id, v.pk, v.version_number, d.is_paused, d.pause_reason, d.is_stale, d.description, d.owner, d.tags, \
         d.fileloc, d.schedule, d.max_active_runs, d.max_active_tasks, d.next_run_after, d.next_logical_date, \
         d.next_interval_start, d.next_interval_end, d.last_run_after, d.created_at, d.updated_at)"
    };
}
pub(super) use dag_row;

/// The newest version of each DAG is its current one.
macro_rules! dags_with_version {
    () => {
        " FROM dags AS d CROSS JOIN dag_versions AS v ON v.pk = (
            SELECT pk FROM dag_versions WHERE dag_id = d.dag_id ORDER BY version_number DESC LIMIT 1) "
    };
}
pub(super) use dags_with_version;

/// A version `v`, in the order of [`VersionRecord`].
macro_rules! version_row {
    () => {
        "json_array(v.pk, v.id, v.dag_id, v.version_number, v.spec, v.spec_hash, v.source, v.bundle, v.created_at)"
    };
}
pub(super) use version_row;

#[derive(Deserialize)]
struct DagRecord {
    dag_id: String,
    version: VersionPk,
    version_number: i32,
    is_paused: Flag,
    pause_reason: Option<String>,
    is_stale: Flag,
    description: Option<String>,
    owner: Option<String>,
    tags: Document<Vec<String>>,
    fileloc: String,
    schedule: Option<String>,
    max_active_runs: i32,
    max_active_tasks: i32,
    next_run_after: Option<Micros>,
    next_logical_date: Option<Micros>,
    next_interval_start: Option<Micros>,
    next_interval_end: Option<Micros>,
    last_run_after: Option<Micros>,
    created_at: Micros,
    updated_at: Micros,
}

impl From<DagRecord> for DagRow {
    fn from(r: DagRecord) -> Self {
        Self {
            dag_id: r.dag_id,
            version: r.version,
            version_number: r.version_number,
            is_paused: r.is_paused.0,
            pause_reason: r.pause_reason,
            is_stale: r.is_stale.0,
            description: r.description,
            owner: r.owner,
            tags: r.tags.0,
            fileloc: r.fileloc,
            schedule: r.schedule,
            max_active_runs: r.max_active_runs,
            max_active_tasks: r.max_active_tasks,
            next_run_after: time(r.next_run_after),
            next_logical_date: time(r.next_logical_date),
            next_interval_start: time(r.next_interval_start),
            next_interval_end: time(r.next_interval_end),
            last_run_after: time(r.last_run_after),
            created_at: r.created_at.0,
            updated_at: r.updated_at.0,
        }
    }
}

#[derive(Deserialize)]
struct VersionRecord {
    pk: VersionPk,
    id: Uuid,
    dag_id: String,
    version_number: i32,
    spec: Document<DagSpec>,
    spec_hash: String,
    source: String,
    bundle: Option<String>,
    created_at: Micros,
}

impl From<VersionRecord> for VersionRow {
    fn from(r: VersionRecord) -> Self {
        Self {
            pk: r.pk,
            id: r.id,
            dag_id: r.dag_id,
            version_number: r.version_number,
            spec: r.spec.0,
            spec_hash: r.spec_hash,
            source: r.source,
            bundle: r.bundle,
            created_at: r.created_at.0,
        }
    }
}

impl Session {
    pub(crate) async fn put_dag_version(
        &mut self,
        new: &NewDagVersion,
    ) -> StoreResult<(VersionRow, bool)> {
        const PUT_DAG: &str = "
            INSERT INTO dags (dag_id, is_paused, description, owner, tags, fileloc, schedule, max_active_runs,
                max_active_tasks, created_at, updated_at, overlap)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11)
            ON CONFLICT (dag_id) DO UPDATE SET
                is_stale = 0, description = excluded.description, owner = excluded.owner, tags = excluded.tags,
                fileloc = excluded.fileloc, schedule = excluded.schedule, max_active_runs = excluded.max_active_runs,
                max_active_tasks = excluded.max_active_tasks, updated_at = excluded.updated_at,
                overlap = excluded.overlap";
        // `bundle IS`: absent equals absent.
        const NEWEST: &str = concat!(
            "SELECT ",
            version_row!(),
            " FROM dag_versions AS v
              WHERE v.dag_id = ?1 AND v.spec_hash = ?2 AND v.bundle IS ?3 AND NOT EXISTS (
                SELECT 1 FROM dag_versions WHERE dag_id = ?1 AND version_number > v.version_number)"
        );
        const INSERT: &str = "
            INSERT INTO dag_versions (id, dag_id, version_number, spec, spec_hash, source, bundle, created_at)
            SELECT ?1, ?2, 1 + coalesce(max(version_number), 0), ?3, ?4, ?5, ?6, ?7
            FROM dag_versions WHERE dag_id = ?2
            RETURNING json_array(pk, version_number)";
        let spec = &new.spec;
        let max_active_runs = i64::from(spec.max_active_runs);
        self.execute(
            PUT_DAG,
            args![
                spec.dag_id.as_str(),
                spec.is_paused_upon_creation,
                spec.description.as_deref(),
                spec.owner.as_deref(),
                encode(&spec.tags)?,
                new.fileloc.as_str(),
                new.schedule.as_deref(),
                max_active_runs,
                i64::from(spec.max_active_tasks),
                self.now,
                spec.overlap.as_str(),
            ],
        )
        .await?;
        let runs = LimitKey::DagRuns {
            dag_id: spec.dag_id.clone(),
        };
        self.ensure_limits(&[(runs, max_active_runs)], true).await?;
        let newest: Option<VersionRecord> = self
            .row(
                NEWEST,
                args![
                    spec.dag_id.as_str(),
                    new.spec_hash.as_str(),
                    new.bundle.as_deref()
                ],
            )
            .await?;
        if let Some(version) = newest {
            return Ok((version.into(), false));
        }
        let id = Uuid::now_v7();
        let (pk, version_number) = self
            .one(
                INSERT,
                args![
                    id.to_string(),
                    spec.dag_id.as_str(),
                    encode(spec)?,
                    new.spec_hash.as_str(),
                    new.source.as_str(),
                    new.bundle.as_deref(),
                    self.now,
                ],
            )
            .await?;
        let version = VersionRow {
            pk,
            id,
            dag_id: spec.dag_id.clone(),
            version_number,
            spec: spec.clone(),
            spec_hash: new.spec_hash.clone(),
            source: new.source.clone(),
            bundle: new.bundle.clone(),
            created_at: self.now,
        };
        Ok((version, true))
    }

    pub(crate) async fn lock_due_dags(&mut self, max: i64) -> StoreResult<Vec<DagRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            dag_row!(),
            dags_with_version!(),
            "WHERE d.next_run_after <= ?1 AND d.is_paused = 0 AND d.is_stale = 0
             ORDER BY d.next_run_after, d.dag_id LIMIT ?2"
        );
        self.dag_rows(SQL, args![self.now, max]).await
    }

    pub(crate) async fn dag(&mut self, dag_id: &str) -> StoreResult<Option<DagRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            dag_row!(),
            dags_with_version!(),
            "WHERE d.dag_id = ?1"
        );
        Ok(self.dag_rows(SQL, args![dag_id]).await?.pop())
    }

    pub(crate) async fn update_dag(&mut self, dag: &DagRow) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE dags SET is_paused = ?2, is_stale = ?3, next_run_after = ?4, next_logical_date = ?5,
                next_interval_start = ?6, next_interval_end = ?7, last_run_after = ?8, updated_at = ?9,
                pause_reason = ?10
            WHERE dag_id = ?1";
        self.execute(
            SQL,
            args![
                dag.dag_id.as_str(),
                dag.is_paused,
                dag.is_stale,
                dag.next_run_after,
                dag.next_logical_date,
                dag.next_interval_start,
                dag.next_interval_end,
                dag.last_run_after,
                self.now,
                dag.pause_reason.as_deref(),
            ],
        )
        .await?;
        Ok(())
    }

    pub(crate) async fn unfinished_runs(&mut self, dag_id: &str) -> StoreResult<Unfinished> {
        const SQL: &str = "
            SELECT json_array(count(*), count(*) FILTER (WHERE run_type = 'scheduled')) FROM dag_runs
            WHERE dag_id = ?1 AND state IN ('queued', 'running') AND backfill_id IS NULL";
        let (all, scheduled) = self.one(SQL, args![dag_id]).await?;
        Ok(Unfinished { scheduled, all })
    }

    pub(crate) async fn failures_in_a_row(
        &mut self,
        dag_id: &str,
        at_most: u32,
    ) -> StoreResult<u32> {
        const SQL: &str = "
            SELECT json_array(r.state = 'failed') FROM dag_runs AS r CROSS JOIN dags AS d ON d.dag_id = r.dag_id
            WHERE r.dag_id = ?1 AND r.ended_at IS NOT NULL AND r.cancelled = 0 AND r.backfill_id IS NULL
                AND r.ended_at > coalesce(d.unpaused_at, 0)
            ORDER BY r.ended_at DESC, r.pk DESC LIMIT ?2";
        let newest: Vec<(Flag,)> = self.rows(SQL, args![dag_id, i64::from(at_most)]).await?;
        let failed = newest.iter().take_while(|(failed,)| failed.0);
        Ok(failed.map(|_| 1).sum())
    }

    pub(crate) async fn version(&mut self, version: VersionPk) -> StoreResult<Option<VersionRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            version_row!(),
            " FROM dag_versions AS v WHERE v.pk = ?1"
        );
        Ok(self.version_rows(SQL, args![version.0]).await?.pop())
    }

    pub(super) async fn dag_rows(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
    ) -> StoreResult<Vec<DagRow>> {
        let records: Vec<DagRecord> = self.rows(sql, args).await?;
        Ok(records.into_iter().map(DagRow::from).collect())
    }

    pub(super) async fn version_rows(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
    ) -> StoreResult<Vec<VersionRow>> {
        let records: Vec<VersionRecord> = self.rows(sql, args).await?;
        Ok(records.into_iter().map(VersionRow::from).collect())
    }
}
