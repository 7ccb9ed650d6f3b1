//! Backfills.

use crate::{
    codec::{Document, Flag, Micros, Named, encode, time},
    session::{Session, args},
};
use chrono::{DateTime, Utc};
use gristmill_common::{ids::BackfillPk, state::RunState};
use gristmill_store::{BackfillFilter, BackfillRow, NewBackfill, Page, Reprocess, StoreResult};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A backfill `b` with the counts of its runs, in the order of [`BackfillRecord`].
macro_rules! backfills {
    () => {
        "SELECT json_array(b.id, b.dag_id, b.from_date, b.to_date, b.run_backwards, b.max_active_runs,
            b.reprocess_behavior, b.conf, b.is_paused, b.left_out, b.created_at, b.updated_at, b.cancelled_at,
            count(*) FILTER (WHERE r.state = 'queued'), count(*) FILTER (WHERE r.state = 'running'),
            count(*) FILTER (WHERE r.state = 'success'), count(*) FILTER (WHERE r.state = 'failed'), max(r.ended_at))
         FROM backfills AS b LEFT JOIN dag_runs AS r ON r.backfill_id = b.id "
    };
}

/// Whether a backfill `b` has runs that have not ended.
macro_rules! is_active {
    () => {
        "EXISTS (SELECT 1 FROM dag_runs WHERE backfill_id = b.id AND ended_at IS NULL)"
    };
}

#[derive(Deserialize)]
struct BackfillRecord {
    id: BackfillPk,
    dag_id: String,
    from_date: Micros,
    to_date: Micros,
    run_backwards: Flag,
    max_active_runs: i32,
    reprocess: Named<Reprocess>,
    conf: Document<Map<String, Value>>,
    is_paused: Flag,
    left_out: i32,
    created_at: Micros,
    updated_at: Micros,
    cancelled_at: Option<Micros>,
    queued: i64,
    running: i64,
    success: i64,
    failed: i64,
    ended_at: Option<Micros>,
}

impl From<BackfillRecord> for BackfillRow {
    fn from(r: BackfillRecord) -> Self {
        let ended_at = time(r.ended_at).unwrap_or(r.created_at.0);
        Self {
            id: r.id,
            dag_id: r.dag_id,
            from_date: r.from_date.0,
            to_date: r.to_date.0,
            run_backwards: r.run_backwards.0,
            max_active_runs: r.max_active_runs,
            reprocess: r.reprocess.0,
            conf: r.conf.0,
            is_paused: r.is_paused.0,
            left_out: r.left_out,
            created_at: r.created_at.0,
            updated_at: r.updated_at.0,
            cancelled_at: time(r.cancelled_at),
            completed_at: (r.queued + r.running == 0).then_some(ended_at),
            queued: r.queued,
            running: r.running,
            success: r.success,
            failed: r.failed,
        }
    }
}

impl Session {
    pub(crate) async fn insert_backfill(
        &mut self,
        new: &NewBackfill,
        left_out: i32,
    ) -> StoreResult<BackfillPk> {
        const SQL: &str = "
            INSERT INTO backfills (dag_id, from_date, to_date, run_backwards, max_active_runs, reprocess_behavior, conf,
                left_out, created_at, updated_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9) RETURNING json_array(id)";
        let (id,) = self
            .one(
                SQL,
                args![
                    new.dag_id.as_str(),
                    new.from_date,
                    new.to_date,
                    new.run_backwards,
                    new.max_active_runs,
                    new.reprocess.as_str(),
                    encode(&new.conf)?,
                    left_out,
                    self.now,
                ],
            )
            .await?;
        Ok(id)
    }

    pub(crate) async fn active_backfill(
        &mut self,
        dag_id: &str,
    ) -> StoreResult<Option<BackfillPk>> {
        const SQL: &str = concat!(
            "SELECT json_array(b.id) FROM backfills AS b WHERE b.dag_id = ?1 AND ",
            is_active!(),
            " ORDER BY b.id DESC LIMIT 1"
        );
        let found: Option<(BackfillPk,)> = self.row(SQL, args![dag_id]).await?;
        Ok(found.map(|(id,)| id))
    }

    pub(crate) async fn newest_runs(
        &mut self,
        dag_id: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> StoreResult<Vec<(DateTime<Utc>, RunState)>> {
        // The columns beside max() are those of the row that has it.
        const SQL: &str = "
            SELECT json_array(logical_date, state) FROM (
                SELECT logical_date, state, max(pk) FROM dag_runs
                WHERE dag_id = ?1 AND logical_date BETWEEN ?2 AND ?3 GROUP BY logical_date)";
        let rows: Vec<(Micros, Named<RunState>)> = self.rows(SQL, args![dag_id, from, to]).await?;
        Ok(rows
            .into_iter()
            .map(|(date, state)| (date.0, state.0))
            .collect())
    }

    pub(crate) async fn pause_backfill(
        &mut self,
        id: BackfillPk,
        paused: bool,
    ) -> StoreResult<bool> {
        const SQL: &str = "UPDATE backfills SET is_paused = ?2, updated_at = ?3 WHERE id = ?1";
        // Its runs that waited may start now.
        self.announces |= !paused;
        Ok(self.execute(SQL, args![id.0, paused, self.now]).await? > 0)
    }

    pub(crate) async fn cancel_backfill(
        &mut self,
        id: BackfillPk,
        reason: &str,
    ) -> StoreResult<Option<i64>> {
        const NOTE: &str = "
            UPDATE backfills SET cancelled_at = coalesce(cancelled_at, ?2), updated_at = ?2 WHERE id = ?1";
        const RUNS: &str = "
            UPDATE dag_runs SET state = 'failed', cancelled = 1, stop_reason = ?3, ended_at = ?2
            WHERE backfill_id = ?1 AND state = 'queued'";
        if self.execute(NOTE, args![id.0, self.now]).await? == 0 {
            return Ok(None);
        }
        let cancelled = self.execute(RUNS, args![id.0, self.now, reason]).await?;
        self.announces = true;
        Ok(Some(i64::try_from(cancelled).unwrap_or(i64::MAX)))
    }

    pub(crate) async fn backfill(&mut self, id: BackfillPk) -> StoreResult<Option<BackfillRow>> {
        const SQL: &str = concat!(backfills!(), "WHERE b.id = ?1 GROUP BY b.id");
        let record: Option<BackfillRecord> = self.row(SQL, args![id.0]).await?;
        Ok(record.map(BackfillRow::from))
    }

    pub(crate) async fn backfills(
        &mut self,
        filter: &BackfillFilter,
    ) -> StoreResult<Page<BackfillRow>> {
        macro_rules! matching {
            () => {
                concat!(
                    "WHERE (?1 IS NULL OR b.dag_id = ?1) AND (NOT ?2 OR ",
                    is_active!(),
                    ")"
                )
            };
        }
        const ROWS: &str = concat!(
            backfills!(),
            matching!(),
            " GROUP BY b.id ORDER BY b.id DESC LIMIT ?3 OFFSET ?4"
        );
        const TOTAL: &str = concat!(
            "SELECT json_array(count(*)) FROM backfills AS b ",
            matching!()
        );
        let dag_id = filter.dag_id.as_deref();
        let (total,) = self.one(TOTAL, args![dag_id, filter.active]).await?;
        let records: Vec<BackfillRecord> = self
            .rows(
                ROWS,
                args![dag_id, filter.active, filter.limit, filter.offset],
            )
            .await?;
        let rows = records.into_iter().map(BackfillRow::from).collect();
        Ok(Page { rows, total })
    }
}
