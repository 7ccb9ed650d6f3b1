//! Waits without a worker.

use super::shared_limits::waits;
use crate::{
    codec::{Document, Flag, Micros, Named, encode, time},
    session::{Session, args},
};
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{RunPk, TaskIdx, TiPk, VersionPk},
    state::{RunState, TaskState},
};
use gristmill_store::{
    ApprovalFilter, ApprovalRow, AwaitedEnd, DueWait, EarlierRun, OtherRun, Page, StoreResult,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The columns of an approval `a` of an instance `t`, in the order of [`ApprovalRecord`].
macro_rules! approval_row {
    () => {
        "json_array(a.run, a.ti, t.task_id, t.map_index, a.try_number, a.prompt, a.options, a.who, a.default_answer, a.created_at, a.due_at, \
         a.answer, a.answered_by, a.answered_at)"
    };
}

#[derive(Deserialize)]
struct ApprovalRecord {
    run: RunPk,
    ti: TiPk,
    task_id: String,
    map_index: i32,
    try_number: i32,
    prompt: String,
    options: Document<Vec<String>>,
    who: Document<Vec<String>>,
    default: Option<String>,
    created_at: Micros,
    due_at: Option<Micros>,
    answer: Option<String>,
    answered_by: Option<String>,
    answered_at: Option<Micros>,
}

impl From<ApprovalRecord> for ApprovalRow {
    fn from(r: ApprovalRecord) -> Self {
        Self {
            run: r.run,
            ti: r.ti,
            task_id: r.task_id,
            map_index: r.map_index,
            try_number: r.try_number,
            prompt: r.prompt,
            options: r.options.0,
            who: r.who.0,
            default: r.default,
            created_at: r.created_at.0,
            due_at: time(r.due_at),
            answer: r.answer,
            answered_by: r.answered_by,
            answered_at: time(r.answered_at),
        }
    }
}

impl Session {
    pub(crate) async fn due_waits(&mut self, max: i64) -> StoreResult<Vec<DueWait>> {
        // Of pools in which waits count, of which there may be none: what is free as it stands.
        const SQL: &str = concat!(
            "WITH counted AS MATERIALIZED (
                SELECT l.name, CASE WHEN l.cap < 0 THEN 2147483647 ELSE l.cap - l.used - (
                    SELECT coalesce(sum(w.pool_slots), 0) FROM task_instances AS w WHERE w.pool = l.name AND ",
            waits!(),
            ") END AS free FROM limits AS l WHERE l.include_deferred = 1)
            SELECT json_array(t.pk, t.run, c.name IS NOT NULL)
            FROM task_instances AS t
            LEFT JOIN counted AS c ON c.name = t.pool AND t.state = 'deferred' AND coalesce(t.wait ->> 'open', 0) = 0
            WHERE t.state IN ('none', 'up_for_reschedule', 'deferred', 'awaiting_input') AND t.next_at <= ?1
                AND (c.name IS NULL OR c.free >= t.pool_slots)
            ORDER BY t.next_at, t.pk LIMIT ?2"
        );
        let rows: Vec<(TiPk, RunPk, Flag)> = self.rows(SQL, args![self.now, max]).await?;
        let due = |(ti, run, admit): (_, _, Flag)| DueWait {
            ti,
            run,
            admit: admit.0,
        };
        Ok(rows.into_iter().map(due).collect())
    }

    pub(crate) async fn awaited_ends(&mut self, max: i64) -> StoreResult<Vec<AwaitedEnd>> {
        const SQL: &str = "
            SELECT json_array(r.pk, r.waiter, t.run)
            FROM dag_runs AS r LEFT JOIN task_instances AS t ON t.pk = r.waiter
            WHERE r.waiter IS NOT NULL AND r.ended_at IS NOT NULL
            ORDER BY r.pk LIMIT ?1";
        let rows: Vec<(RunPk, TiPk, Option<RunPk>)> = self.rows(SQL, args![max]).await?;
        let end = |(run, waiter, waiting_run)| AwaitedEnd {
            run,
            waiter,
            waiting_run,
        };
        Ok(rows.into_iter().map(end).collect())
    }

    pub(crate) async fn note_trigger(
        &mut self,
        run: RunPk,
        depth: i32,
        waiter: Option<TiPk>,
    ) -> StoreResult<()> {
        const SQL: &str = "UPDATE dag_runs SET trigger_depth = ?2, waiter = ?3 WHERE pk = ?1";
        let args = args![run.0, depth, waiter.map(|ti| ti.0)];
        self.execute(SQL, args).await.map(drop)
    }

    pub(crate) async fn forget_waiters(&mut self, runs: &[RunPk]) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE dag_runs SET waiter = NULL WHERE pk IN (SELECT value FROM jsonb_each(?1))";
        if runs.is_empty() {
            return Ok(());
        }
        self.execute(SQL, args![encode(runs)?]).await.map(drop)
    }

    pub(crate) async fn trigger_depth(&mut self, run: RunPk) -> StoreResult<Option<i32>> {
        const SQL: &str = "SELECT json_array(trigger_depth) FROM dag_runs WHERE pk = ?1";
        let depth: Option<(i32,)> = self.row(SQL, args![run.0]).await?;
        Ok(depth.map(|(depth,)| depth))
    }

    pub(crate) async fn runs_of_dates(
        &mut self,
        wanted: &[(String, DateTime<Utc>)],
    ) -> StoreResult<Vec<Option<OtherRun>>> {
        const SQL: &str = "
            SELECT json_array(pk, version, state) FROM dag_runs
            WHERE dag_id = ?1 AND logical_date = ?2 ORDER BY pk DESC LIMIT 1";
        let mut found = Vec::with_capacity(wanted.len());
        for (dag_id, date) in wanted {
            let run: Option<(RunPk, VersionPk, Named<RunState>)> =
                self.row(SQL, args![dag_id.as_str(), *date]).await?;
            found.push(run.map(|(run, version, state)| OtherRun {
                run,
                version,
                state: state.0,
            }));
        }
        Ok(found)
    }

    pub(crate) async fn runs_before(
        &mut self,
        of: &[(RunPk, bool)],
    ) -> StoreResult<Vec<Option<EarlierRun>>> {
        const SQL: &str = "
            SELECT json_array(p.pk, p.run_id, p.version, p.logical_date, p.state, p.started_at IS NOT NULL)
            FROM dag_runs AS r CROSS JOIN dag_runs AS p
                ON p.dag_id = r.dag_id AND p.logical_date < r.logical_date
                    AND (NOT ?2 OR p.run_type <> 'manual')
            WHERE r.pk = ?1 AND (r.backfill_id IS NULL
                OR EXISTS (SELECT 1 FROM dag_runs AS o
                    WHERE o.backfill_id = r.backfill_id AND o.logical_date < r.logical_date))
            ORDER BY p.logical_date DESC, p.pk DESC LIMIT 1";
        type Record = (RunPk, String, VersionPk, Micros, Named<RunState>, Flag);
        let mut found = Vec::with_capacity(of.len());
        for (run, catches_up) in of {
            let before: Option<Record> = self.row(SQL, args![run.0, *catches_up]).await?;
            found.push(
                before.map(|(run, run_id, version, date, state, started)| EarlierRun {
                    run,
                    run_id,
                    version,
                    logical_date: date.0,
                    state: state.0,
                    has_started: started.0,
                }),
            );
        }
        Ok(found)
    }

    pub(crate) async fn runs_after(&mut self, of: &[(RunPk, bool)]) -> StoreResult<Vec<RunPk>> {
        // All up to the next date that has this run before it: where manual runs are left out, also those in between.
        const SQL: &str = "
            SELECT json_array(f.pk)
            FROM dag_runs AS r CROSS JOIN dag_runs AS f
                ON f.dag_id = r.dag_id AND f.logical_date > r.logical_date AND f.ended_at IS NULL
            WHERE r.pk = ?1 AND f.logical_date <= COALESCE(
                (SELECT min(n.logical_date) FROM dag_runs AS n
                 WHERE n.dag_id = r.dag_id AND n.logical_date > r.logical_date
                    AND (NOT ?2 OR n.run_type <> 'manual')), f.logical_date)";
        let mut found = Vec::new();
        for (run, catches_up) in of {
            let after: Vec<(RunPk,)> = self.rows(SQL, args![run.0, *catches_up]).await?;
            found.extend(after.into_iter().map(|(run,)| run));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    pub(crate) async fn task_states(
        &mut self,
        wanted: &[(RunPk, TaskIdx)],
    ) -> StoreResult<Vec<BTreeMap<TaskState, i64>>> {
        const SQL: &str = concat!(
            "SELECT json_array(t.state, count(*)) FROM task_instances AS t
             WHERE t.run = ?1 AND t.task_idx = ?2 AND ",
            super::task_instances::visible!(),
            " GROUP BY t.state"
        );
        let mut found = Vec::with_capacity(wanted.len());
        for (run, task) in wanted {
            let states: Vec<(Named<TaskState>, i64)> = self.rows(SQL, args![run.0, *task]).await?;
            found.push(states.into_iter().map(|(state, n)| (state.0, n)).collect());
        }
        Ok(found)
    }

    pub(crate) async fn put_approval(&mut self, approval: &ApprovalRow) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO approvals (run, ti, try_number, prompt, options, who, default_answer, created_at, due_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let args = args![
            approval.run.0,
            approval.ti.0,
            approval.try_number,
            approval.prompt.as_str(),
            encode(&approval.options)?,
            encode(&approval.who)?,
            approval.default.as_deref(),
            approval.created_at,
            approval.due_at,
        ];
        self.execute(SQL, args).await.map(drop)
    }

    pub(crate) async fn approval(&mut self, ti: TiPk) -> StoreResult<Option<ApprovalRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            approval_row!(),
            " FROM approvals AS a JOIN task_instances AS t ON t.pk = a.ti WHERE a.ti = ?1 ORDER BY a.try_number DESC LIMIT 1"
        );
        let record: Option<ApprovalRecord> = self.row(SQL, args![ti.0]).await?;
        Ok(record.map(ApprovalRow::from))
    }

    pub(crate) async fn put_answer(
        &mut self,
        ti: TiPk,
        try_number: i32,
        answer: &str,
        by: &str,
        at: DateTime<Utc>,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE approvals SET answer = ?3, answered_by = ?4, answered_at = ?5
            WHERE ti = ?1 AND try_number = ?2 AND answer IS NULL";
        let written = self
            .execute(SQL, args![ti.0, try_number, answer, by, at])
            .await?;
        Ok(written > 0)
    }

    pub(crate) async fn approvals(
        &mut self,
        filter: &ApprovalFilter,
    ) -> StoreResult<Page<ApprovalRow>> {
        macro_rules! matching {
            () => {
                " FROM approvals AS a JOIN dag_runs AS r ON r.pk = a.run JOIN task_instances AS t ON t.pk = a.ti
                  WHERE (?1 IS NULL OR a.run = ?1) AND (?2 IS NULL OR r.dag_id = ?2) AND (?3 IS NULL OR a.ti = ?3)
                    AND (?4 IS NULL OR (a.answer IS NOT NULL) = ?4)"
            };
        }
        const ROWS: &str = concat!(
            "SELECT ",
            approval_row!(),
            matching!(),
            " ORDER BY a.created_at DESC, a.ti DESC, a.try_number DESC LIMIT ?5 OFFSET ?6"
        );
        const TOTAL: &str = concat!("SELECT json_array(count(*))", matching!());
        let args = args![
            filter.run.map(|run| run.0),
            filter.dag_id.as_deref(),
            filter.ti.map(|ti| ti.0),
            filter.answered,
        ];
        let (total,): (i64,) = self.one(TOTAL, args.clone()).await?;
        let mut paged = args;
        paged.extend(args![filter.limit, filter.offset]);
        let records: Vec<ApprovalRecord> = self.rows(ROWS, paged).await?;
        Ok(Page {
            rows: records.into_iter().map(ApprovalRow::from).collect(),
            total,
        })
    }
}
