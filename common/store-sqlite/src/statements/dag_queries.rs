//! DAGs as the API shows and changes them; import errors.

use super::dags::{dag_row, dags_with_version, version_row};
use crate::{
    codec::{Micros, encode},
    session::{Session, args},
};
use gristmill_store::{DagRow, ImportErrorRow, Page, StoreError, StoreResult, VersionRow};

fn no_dag(dag_id: &str) -> StoreError {
    StoreError::NotFound {
        what: "DAG",
        name: dag_id.to_owned(),
    }
}

impl Session {
    pub(crate) async fn dags(
        &mut self,
        pattern: Option<&str>,
        include_stale: bool,
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<DagRow>> {
        const COUNT: &str = "
            SELECT json_array(count(*)) FROM dags
            WHERE (?1 IS NULL OR instr(dag_id, ?1) > 0) AND (?2 OR is_stale = 0)";
        const ROWS: &str = concat!(
            "SELECT ",
            dag_row!(),
            dags_with_version!(),
            "WHERE (?1 IS NULL OR instr(d.dag_id, ?1) > 0) AND (?2 OR d.is_stale = 0)
             ORDER BY d.dag_id LIMIT ?3 OFFSET ?4"
        );
        let (total,) = self.one(COUNT, args![pattern, include_stale]).await?;
        let rows = self
            .dag_rows(ROWS, args![pattern, include_stale, limit, offset])
            .await?;
        Ok(Page { rows, total })
    }

    pub(crate) async fn versions(
        &mut self,
        dag_id: &str,
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<VersionRow>> {
        const COUNT: &str = "SELECT json_array(count(*)) FROM dag_versions WHERE dag_id = ?1";
        const ROWS: &str = concat!(
            "SELECT ",
            version_row!(),
            " FROM dag_versions AS v WHERE v.dag_id = ?1 ORDER BY v.version_number DESC LIMIT ?2 OFFSET ?3"
        );
        let (total,) = self.one(COUNT, args![dag_id]).await?;
        let rows = self
            .version_rows(ROWS, args![dag_id, limit, offset])
            .await?;
        Ok(Page { rows, total })
    }

    pub(crate) async fn set_paused(&mut self, dag_id: &str, paused: bool) -> StoreResult<DagRow> {
        const SQL: &str = "
            UPDATE dags SET is_paused = ?2, updated_at = ?3, pause_reason = NULL,
                unpaused_at = iif(?2, unpaused_at, ?3)
            WHERE dag_id = ?1";
        self.execute(SQL, args![dag_id, paused, self.now]).await?;
        // Runs that waited for the unpausing may start now.
        self.announces = !paused;
        self.dag(dag_id).await?.ok_or_else(|| no_dag(dag_id))
    }

    pub(crate) async fn delete_dag(&mut self, dag_id: &str) -> StoreResult<()> {
        let (unfinished,): (i64,) = self
            .one(
                "SELECT json_array(count(*)) FROM dag_runs WHERE dag_id = ?1 AND ended_at IS NULL",
                args![dag_id],
            )
            .await?;
        if unfinished > 0 {
            return Err(StoreError::Refused(format!(
                "DAG {dag_id:?} cannot be deleted: {unfinished} of its runs have not ended; cancel them first"
            )));
        }
        let runs: Vec<(i64,)> = self
            .rows(
                "DELETE FROM dag_runs WHERE dag_id = ?1 RETURNING json_array(pk)",
                args![dag_id],
            )
            .await?;
        self.delete_leavings(runs.into_iter().map(|(pk,)| pk).collect())
            .await?;
        self.execute("DELETE FROM dag_versions WHERE dag_id = ?1", args![dag_id])
            .await?;
        // '0' follows '/': all names that start with the DAG's id and a slash.
        self.execute(
            "DELETE FROM limits WHERE kind = 'dag_runs' AND name = ?1
                OR kind = 'task' AND name > ?1 || '/' AND name < ?1 || '0'
                OR kind = 'backfill' AND name IN (SELECT id FROM backfills WHERE dag_id = ?1)",
            args![dag_id],
        )
        .await?;
        match self
            .execute("DELETE FROM dags WHERE dag_id = ?1", args![dag_id])
            .await?
        {
            0 => Err(no_dag(dag_id)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn mark_stale(&mut self, prefix: &str, keep: &[String]) -> StoreResult<u64> {
        const SQL: &str = "
            UPDATE dags SET is_stale = 1, updated_at = ?3
            WHERE is_stale = 0 AND substr(fileloc, 1, length(?1)) = ?1
                AND dag_id NOT IN (SELECT value FROM jsonb_each(?2))";
        self.execute(SQL, args![prefix, encode(keep)?, self.now])
            .await
    }

    pub(crate) async fn put_import_errors(
        &mut self,
        prefix: &str,
        errors: &[(String, String)],
    ) -> StoreResult<()> {
        const DELETE: &str = "DELETE FROM import_errors WHERE substr(filename, 1, length(?1)) = ?1";
        const INSERT: &str = "
            INSERT INTO import_errors (filename, error, at)
            SELECT value ->> 0, value ->> 1, ?2 FROM jsonb_each(?1)";
        self.execute(DELETE, args![prefix]).await?;
        self.execute(INSERT, args![encode(errors)?, self.now])
            .await?;
        Ok(())
    }

    pub(crate) async fn import_errors(&mut self) -> StoreResult<Vec<ImportErrorRow>> {
        const SQL: &str =
            "SELECT json_array(id, filename, error, at) FROM import_errors ORDER BY filename, id";
        let rows: Vec<(i64, String, String, Micros)> = self.rows(SQL, args![]).await?;
        Ok(rows
            .into_iter()
            .map(|(id, filename, error, at)| ImportErrorRow {
                id,
                filename,
                error,
                at: at.0,
            })
            .collect())
    }
}
