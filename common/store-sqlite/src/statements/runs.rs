//! Runs, as transactions write them.

use crate::{
    codec::{Document, Flag, Micros, Named, encode, micros, time},
    session::{Arg, Session, args},
};
use gristmill_common::{
    ids::{BackfillPk, RunPk, VersionPk},
    row::{RunRow, RunType},
    state::RunState,
};
use gristmill_store::{NewRun, RunKeyNote, StoreError, StoreResult};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The columns of a run `r`, in the order of [`RunRecord`].
macro_rules! run_row {
    () => {
        "json_array(r.pk, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.triggered_by, r.backfill_id, r.logical_date, \
         r.data_interval_start, r.data_interval_end, r.run_after, r.queued_at, r.started_at, r.ended_at, r.conf, \
         r.params, r.note, r.cancelled, r.stop_reason, r.max_active_tasks, r.active_tasks, r.ready_tasks, \
         r.unfinished_tasks, r.failed_leaves, r.concurrency_key, r.clean_up)"
    };
}
pub(super) use run_row;

#[derive(Deserialize)]
pub(super) struct RunRecord {
    pk: RunPk,
    dag_id: String,
    run_id: String,
    version: VersionPk,
    state: Named<RunState>,
    run_type: Named<RunType>,
    triggered_by: String,
    backfill: Option<BackfillPk>,
    logical_date: Option<Micros>,
    data_interval_start: Option<Micros>,
    data_interval_end: Option<Micros>,
    run_after: Micros,
    queued_at: Micros,
    started_at: Option<Micros>,
    ended_at: Option<Micros>,
    conf: Document<Map<String, Value>>,
    params: Document<Map<String, Value>>,
    note: Option<String>,
    cancelled: Flag,
    stop_reason: Option<String>,
    max_active_tasks: i32,
    active_tasks: i32,
    ready_tasks: i32,
    unfinished_tasks: i32,
    failed_leaves: i32,
    concurrency_key: Option<String>,
    clean_up: Option<String>,
}

impl From<RunRecord> for RunRow {
    fn from(r: RunRecord) -> Self {
        Self {
            pk: r.pk,
            dag_id: r.dag_id,
            run_id: r.run_id,
            version: r.version,
            state: r.state.0,
            run_type: r.run_type.0,
            triggered_by: r.triggered_by,
            backfill: r.backfill,
            logical_date: time(r.logical_date),
            data_interval_start: time(r.data_interval_start),
            data_interval_end: time(r.data_interval_end),
            run_after: r.run_after.0,
            queued_at: r.queued_at.0,
            started_at: time(r.started_at),
            ended_at: time(r.ended_at),
            conf: r.conf.0,
            params: r.params.0,
            note: r.note,
            cancelled: r.cancelled.0,
            stop_reason: r.stop_reason,
            clean_up: r.clean_up,
            max_active_tasks: r.max_active_tasks,
            active_tasks: r.active_tasks,
            ready_tasks: r.ready_tasks,
            unfinished_tasks: r.unfinished_tasks,
            failed_leaves: r.failed_leaves,
            concurrency_key: r.concurrency_key,
        }
    }
}

/// How long an idempotency key counts.
pub(super) const IDEMPOTENCY: chrono::TimeDelta = chrono::TimeDelta::hours(24);

impl Session {
    pub(crate) async fn insert_runs(&mut self, runs: &[NewRun]) -> StoreResult<Vec<Option<RunPk>>> {
        let mut inserted = Vec::with_capacity(runs.len());
        for run in runs {
            inserted.push(match self.insert_run(run).await {
                Err(StoreError::Exists { .. }) => None,
                other => Some(other?),
            });
        }
        Ok(inserted)
    }

    async fn insert_run(&mut self, run: &NewRun) -> StoreResult<RunPk> {
        const INSERT: &str = "
            INSERT INTO dag_runs (dag_id, run_id, version, state, run_type, triggered_by, logical_date,
                data_interval_start, data_interval_end, run_after, queued_at, timeout_ms, conf, params, note,
                max_active_tasks, idempotency_key, idempotency_hash, backfill_id, next_deadline)
            VALUES (?1, ?2, ?3, 'queued', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
            RETURNING json_array(pk)";
        // An expired key gives way before retention comes by.
        const EXPIRE: &str = "
            UPDATE dag_runs SET idempotency_key = NULL, idempotency_hash = NULL
            WHERE dag_id = ?1 AND idempotency_key = ?2 AND queued_at < ?3";
        let (key, hash) = match &run.idempotency {
            Some((key, hash)) => {
                self.execute(
                    EXPIRE,
                    args![run.dag_id.as_str(), key.as_str(), self.now - IDEMPOTENCY],
                )
                .await?;
                (Some(key.as_str()), Some(hash.as_str()))
            }
            None => (None, None),
        };
        let args = args![
            run.dag_id.as_str(),
            run.run_id.as_str(),
            run.version.0,
            run.run_type.as_str(),
            run.triggered_by.as_str(),
            run.logical_date,
            run.data_interval_start,
            run.data_interval_end,
            run.run_after,
            self.now,
            run.timeout_ms,
            encode(&run.conf)?,
            encode(&run.params)?,
            run.note.as_deref(),
            run.max_active_tasks,
            key,
            hash,
            run.backfill.map(|id| id.0),
            run.next_deadline,
        ];
        let taken = || StoreError::Exists {
            what: "run",
            name: run.run_id.clone(),
        };
        let inserted: Vec<(RunPk,)> = self.rows_unless_taken(INSERT, args, taken).await?;
        self.announces = true;
        inserted
            .first()
            .map(|(pk,)| *pk)
            .ok_or_else(|| StoreError::Corrupt("a run was inserted without a key".to_owned()))
    }

    pub(crate) async fn run_by_idempotency_key(
        &mut self,
        dag_id: &str,
        key: &str,
    ) -> StoreResult<Option<(RunPk, String)>> {
        const SQL: &str = "
            SELECT json_array(pk, idempotency_hash) FROM dag_runs
            WHERE dag_id = ?1 AND idempotency_key = ?2 AND queued_at >= ?3";
        self.row(SQL, args![dag_id, key, self.now - IDEMPOTENCY])
            .await
    }

    pub(crate) async fn load_runs(&mut self, runs: &[RunPk]) -> StoreResult<Vec<RunRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            run_row!(),
            " FROM dag_runs AS r WHERE r.pk IN (SELECT value FROM jsonb_each(?1)) ORDER BY r.pk"
        );
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        self.run_rows(SQL, args![encode(runs)?]).await
    }

    pub(crate) async fn startable_runs(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        // Queued runs come first (`CROSS JOIN`): a DAG's ended ones are never touched. A DAG without room drops out before
        // its queue of runs is numbered. Runs of a backfill go by its limit, in the order in which they were made.
        const SQL: &str = "
            SELECT json_array(pk) FROM (
                SELECT r.pk, r.run_after, l.cap, l.used,
                    row_number() OVER (PARTITION BY l.kind, l.name
                        ORDER BY iif(r.backfill_id IS NULL, r.run_after, 0), r.pk) AS nth
                FROM dag_runs AS r
                CROSS JOIN dags AS d ON d.dag_id = r.dag_id
                LEFT JOIN backfills AS b ON b.id = r.backfill_id
                CROSS JOIN limits AS l ON l.kind = iif(r.backfill_id IS NULL, 'dag_runs', 'backfill')
                    AND l.name = coalesce(CAST(r.backfill_id AS TEXT), r.dag_id)
                WHERE r.state = 'queued' AND d.is_paused = 0 AND (l.cap < 0 OR l.used < l.cap)
                    AND (r.backfill_id IS NULL AND r.run_after <= ?1 OR b.is_paused = 0)
                    AND (r.waits_for_key IS NULL OR NOT EXISTS (
                        SELECT 1 FROM limits AS k
                        WHERE k.kind = 'dag_run_key' AND k.name = r.dag_id || '/' || r.waits_for_key
                            AND k.cap >= 0 AND k.used >= k.cap))
            )
            WHERE cap < 0 OR nth <= cap - used
            ORDER BY run_after, pk LIMIT ?2";
        let keys: Vec<(RunPk,)> = self.rows(SQL, args![self.now, max]).await?;
        Ok(keys.into_iter().map(|(pk,)| pk).collect())
    }

    pub(crate) async fn set_run_keys(&mut self, keys: &[RunKeyNote]) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE dag_runs SET concurrency_key = v.value ->> 1,
                waits_for_key = CASE WHEN v.value ->> 2 THEN v.value ->> 1 END
            FROM jsonb_each(?1) AS v WHERE pk = v.value ->> 0";
        let rows: Vec<_> = keys
            .iter()
            .map(|note| (note.run, &note.key, Flag(note.waits)))
            .collect();
        self.execute(SQL, args![encode(&rows)?]).await?;
        Ok(())
    }

    pub(crate) async fn running_with_key(
        &mut self,
        dag_id: &str,
        key: &str,
    ) -> StoreResult<Vec<(RunPk, bool)>> {
        const SQL: &str = "
            SELECT json_array(pk, stop_reason IS NOT NULL) FROM dag_runs
            WHERE state = 'running' AND dag_id = ?1 AND concurrency_key = ?2 ORDER BY started_at, pk";
        let rows: Vec<(RunPk, Flag)> = self.rows(SQL, args![dag_id, key]).await?;
        Ok(rows
            .into_iter()
            .map(|(run, stopping)| (run, stopping.0))
            .collect())
    }

    pub(crate) async fn cap_run_keys(&mut self, dag_id: &str, cap: i64) -> StoreResult<()> {
        // All names that begin with the DAG's, by the index: '0' follows '/'.
        const SQL: &str = "
            UPDATE limits SET cap = ?2
            WHERE kind = 'dag_run_key' AND name >= ?1 || '/' AND name < ?1 || '0' AND cap <> ?2";
        self.execute(SQL, args![dag_id, cap]).await?;
        Ok(())
    }

    pub(crate) async fn update_runs(&mut self, runs: &[RunRow]) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE dag_runs AS r SET
                state = w.value ->> 'state', active_tasks = w.value ->> 'active_tasks',
                ready_tasks = w.value ->> 'ready_tasks', unfinished_tasks = w.value ->> 'unfinished_tasks',
                failed_leaves = w.value ->> 'failed_leaves', max_active_tasks = w.value ->> 'max_active_tasks',
                cancelled = w.value ->> 'cancelled', run_after = w.value ->> 'run_after',
                queued_at = w.value ->> 'queued_at', started_at = w.value ->> 'started_at',
                ended_at = w.value ->> 'ended_at', stop_reason = w.value ->> 'stop_reason', note = w.value ->> 'note',
                clean_up = w.value ->> 'clean_up',
                deadline_at = (w.value ->> 'started_at') + timeout_ms * 1000
            FROM jsonb_each(?1) AS w
            WHERE r.pk = w.value ->> 'pk'";
        #[derive(Serialize)]
        struct Json<'a> {
            pk: RunPk,
            state: &'static str,
            active_tasks: i32,
            ready_tasks: i32,
            unfinished_tasks: i32,
            failed_leaves: i32,
            max_active_tasks: i32,
            cancelled: Flag,
            run_after: Micros,
            queued_at: Micros,
            started_at: Option<Micros>,
            ended_at: Option<Micros>,
            stop_reason: Option<&'a str>,
            clean_up: Option<&'a str>,
            note: Option<&'a str>,
        }
        if runs.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = runs
            .iter()
            .map(|run| Json {
                pk: run.pk,
                state: run.state.as_str(),
                active_tasks: run.active_tasks,
                ready_tasks: run.ready_tasks,
                unfinished_tasks: run.unfinished_tasks,
                failed_leaves: run.failed_leaves,
                max_active_tasks: run.max_active_tasks,
                cancelled: Flag(run.cancelled),
                run_after: Micros(run.run_after),
                queued_at: Micros(run.queued_at),
                started_at: micros(run.started_at),
                ended_at: micros(run.ended_at),
                stop_reason: run.stop_reason.as_deref(),
                clean_up: run.clean_up.as_deref(),
                note: run.note.as_deref(),
            })
            .collect();
        self.execute(SQL, args![encode(&rows)?]).await?;
        // Ended, or being stopped: a scheduler has something to do, or somebody who waits to see.
        self.announces |= runs
            .iter()
            .any(|run| run.state.is_finished() || run.stop_reason.is_some());
        Ok(())
    }

    pub(crate) async fn runs_to_stop(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        const SQL: &str = "
            SELECT json_array(pk) FROM dag_runs
            WHERE state = 'running' AND (stop_reason IS NOT NULL AND unfinished_tasks > 0 OR deadline_at <= ?1)
            ORDER BY pk LIMIT ?2";
        let keys: Vec<(RunPk,)> = self.rows(SQL, args![self.now, max]).await?;
        Ok(keys.into_iter().map(|(pk,)| pk).collect())
    }

    pub(crate) async fn overlapped_runs(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        const SQL: &str = "
            SELECT json_array(pk) FROM (
                SELECT r.pk, l.cap,
                    row_number() OVER (PARTITION BY r.dag_id ORDER BY r.run_after, r.pk) AS nth,
                    count(*) OVER (PARTITION BY r.dag_id) AS active,
                    count(*) FILTER (WHERE r.state = 'queued') OVER (PARTITION BY r.dag_id) AS waiting
                FROM dags AS d
                CROSS JOIN limits AS l ON l.kind = 'dag_runs' AND l.name = d.dag_id AND l.cap >= 0
                CROSS JOIN dag_runs AS r ON r.dag_id = d.dag_id
                WHERE d.overlap = 'cancel' AND d.is_paused = 0 AND r.backfill_id IS NULL
                    AND (r.state = 'running' AND r.stop_reason IS NULL
                        OR r.state = 'queued' AND r.run_type = 'scheduled' AND r.run_after <= ?1)
            )
            WHERE waiting > 0 AND nth <= active - cap
            ORDER BY pk LIMIT ?2";
        let keys: Vec<(RunPk,)> = self.rows(SQL, args![self.now, max]).await?;
        Ok(keys.into_iter().map(|(pk,)| pk).collect())
    }

    pub(super) async fn run_rows(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
    ) -> StoreResult<Vec<RunRow>> {
        let records: Vec<RunRecord> = self.rows(sql, args).await?;
        Ok(records.into_iter().map(RunRow::from).collect())
    }
}
