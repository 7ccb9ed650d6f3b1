//! Waits without a worker.

use super::{PgTx, shared_limits::waits};
use crate::{
    bind::{column, text},
    rows::{FromPg, approval_columns, dag_columns, decode_optional, get, named, ti_and_run},
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{RunPk, TaskIdx, TiPk, VersionPk},
    state::TaskState,
};
use gristmill_store::{
    ApprovalRow, AwaitedEnd, DagRow, DueWait, EarlierRun, OtherRun, StoreResult, WaitTx,
};
use sqlx::query;
use std::collections::BTreeMap;

#[async_trait]
impl WaitTx for PgTx {
    async fn due_waits(&mut self, max: i64) -> StoreResult<Vec<DueWait>> {
        // Of pools in which waits count, of which there may be none: what is free as it stands.
        const SQL: &str = concat!(
            "WITH counted AS MATERIALIZED (
                SELECT l.name, CASE WHEN l.cap < 0 THEN 2147483647 ELSE l.cap - l.used - (
                    SELECT COALESCE(sum(w.pool_slots), 0) FROM task_instances w WHERE w.pool = l.name AND ",
            waits!(),
            ") END AS free FROM limits l WHERE l.include_deferred)
            SELECT t.pk, t.run_pk, c.name IS NOT NULL AS admit
            FROM task_instances t
            LEFT JOIN counted c ON c.name = t.pool AND t.state = 'deferred'
                AND NOT COALESCE((t.wait ->> 'open')::boolean, false)
            WHERE t.state IN ('none', 'up_for_reschedule', 'deferred', 'awaiting_input') AND t.next_at <= $1
              AND (c.name IS NULL OR c.free >= t.pool_slots)
            ORDER BY t.next_at, t.pk LIMIT $2"
        );
        let rows = self.all(query(SQL).bind(self.now).bind(max)).await?;
        let due = |row| {
            let (ti, run) = ti_and_run(row)?;
            let admit = get(row, "admit")?;
            Ok(DueWait { ti, run, admit })
        };
        rows.iter().map(due).collect()
    }

    async fn awaited_ends(&mut self, max: i64) -> StoreResult<Vec<AwaitedEnd>> {
        const SQL: &str = "
            SELECT r.pk, r.waiter_pk, t.run_pk AS waiting_run
            FROM dag_runs r LEFT JOIN task_instances t ON t.pk = r.waiter_pk
            WHERE r.waiter_pk IS NOT NULL AND r.ended_at IS NOT NULL
            ORDER BY r.pk LIMIT $1";
        let rows = self.all(query(SQL).bind(max)).await?;
        let end = |row| {
            Ok(AwaitedEnd {
                run: RunPk(get(row, "pk")?),
                waiter: TiPk(get(row, "waiter_pk")?),
                waiting_run: get::<Option<i64>>(row, "waiting_run")?.map(RunPk),
            })
        };
        rows.iter().map(end).collect()
    }

    async fn note_trigger(
        &mut self,
        run: RunPk,
        depth: i32,
        waiter: Option<TiPk>,
    ) -> StoreResult<()> {
        const SQL: &str = "UPDATE dag_runs SET trigger_depth = $2, waiter_pk = $3 WHERE pk = $1";
        let statement = query(SQL)
            .bind(run.0)
            .bind(depth)
            .bind(waiter.map(|ti| ti.0));
        self.execute(statement).await.map(drop)
    }

    async fn forget_waiters(&mut self, runs: &[RunPk]) -> StoreResult<()> {
        const SQL: &str = "UPDATE dag_runs SET waiter_pk = NULL WHERE pk = ANY ($1)";
        if runs.is_empty() {
            return Ok(());
        }
        let statement = query(SQL).bind(column(runs, |run| run.0));
        self.execute(statement).await.map(drop)
    }

    async fn trigger_depth(&mut self, run: RunPk) -> StoreResult<Option<i32>> {
        const SQL: &str = "SELECT trigger_depth FROM dag_runs WHERE pk = $1";
        let row = self.optional(query(SQL).bind(run.0)).await?;
        row.map(|row| get(&row, "trigger_depth")).transpose()
    }

    async fn dag(&mut self, dag_id: &str) -> StoreResult<Option<DagRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            dag_columns!(),
            " FROM dags d WHERE d.dag_id = $1"
        );
        decode_optional(self.optional(query(SQL).bind(text(dag_id))).await?)
    }

    async fn runs_of_dates(
        &mut self,
        wanted: &[(String, DateTime<Utc>)],
    ) -> StoreResult<Vec<Option<OtherRun>>> {
        const SQL: &str = "
            SELECT w.position, r.pk, r.version_pk, r.state
            FROM unnest($1::text[], $2::timestamptz[]) WITH ORDINALITY AS w (dag_id, date, position)
            CROSS JOIN LATERAL (
                SELECT pk, version_pk, state FROM dag_runs
                WHERE dag_id = w.dag_id AND logical_date = w.date ORDER BY pk DESC LIMIT 1) r";
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let statement = query(SQL)
            .bind(column(wanted, |(dag, _)| text(dag)))
            .bind(column(wanted, |(_, date)| *date));
        let mut found = vec![None; wanted.len()];
        for row in self.all(statement).await? {
            if let Some(place) = place(get(&row, "position")?, &mut found) {
                *place = Some(OtherRun {
                    run: RunPk(get(&row, "pk")?),
                    version: VersionPk(get(&row, "version_pk")?),
                    state: named(&row, "state")?,
                });
            }
        }
        Ok(found)
    }

    async fn runs_before(&mut self, of: &[(RunPk, bool)]) -> StoreResult<Vec<Option<EarlierRun>>> {
        const SQL: &str = "
            SELECT w.position, b.pk, b.run_id, b.version_pk, b.logical_date, b.state, b.started_at IS NOT NULL AS has_started
            FROM unnest($1::bigint[], $2::boolean[]) WITH ORDINALITY AS w (run_pk, catches_up, position)
            JOIN dag_runs r ON r.pk = w.run_pk
            CROSS JOIN LATERAL (
                SELECT * FROM dag_runs p
                WHERE p.dag_id = r.dag_id AND p.logical_date < r.logical_date
                  AND (NOT w.catches_up OR p.run_type <> 'manual')
                ORDER BY p.logical_date DESC, p.pk DESC LIMIT 1) b
            WHERE r.backfill_id IS NULL
               OR EXISTS (SELECT FROM dag_runs o
                          WHERE o.backfill_id = r.backfill_id AND o.logical_date < r.logical_date)";
        let statement = query(SQL)
            .bind(column(of, |(run, _)| run.0))
            .bind(column(of, |(_, catches_up)| *catches_up));
        let mut found = vec![None; of.len()];
        for row in self.all(statement).await? {
            if let Some(place) = place(get(&row, "position")?, &mut found) {
                *place = Some(EarlierRun {
                    run: RunPk(get(&row, "pk")?),
                    run_id: get(&row, "run_id")?,
                    version: VersionPk(get(&row, "version_pk")?),
                    logical_date: get(&row, "logical_date")?,
                    state: named(&row, "state")?,
                    has_started: get(&row, "has_started")?,
                });
            }
        }
        Ok(found)
    }

    async fn runs_after(&mut self, of: &[(RunPk, bool)]) -> StoreResult<Vec<RunPk>> {
        // All up to the next date that has this run before it: where manual runs are left out, also those in between.
        const SQL: &str = "
            SELECT DISTINCT f.pk
            FROM unnest($1::bigint[], $2::boolean[]) AS w (run_pk, catches_up)
            JOIN dag_runs r ON r.pk = w.run_pk
            JOIN dag_runs f ON f.dag_id = r.dag_id AND f.logical_date > r.logical_date AND f.ended_at IS NULL
            WHERE f.logical_date <= COALESCE(
                (SELECT min(n.logical_date) FROM dag_runs n
                 WHERE n.dag_id = r.dag_id AND n.logical_date > r.logical_date
                   AND (NOT w.catches_up OR n.run_type <> 'manual')), 'infinity')
            ORDER BY f.pk";
        let statement = query(SQL)
            .bind(column(of, |(run, _)| run.0))
            .bind(column(of, |(_, catches_up)| *catches_up));
        let rows = self.all(statement).await?;
        rows.iter().map(|row| get(row, "pk").map(RunPk)).collect()
    }

    async fn task_states(
        &mut self,
        wanted: &[(RunPk, TaskIdx)],
    ) -> StoreResult<Vec<BTreeMap<TaskState, i64>>> {
        const SQL: &str = "
            SELECT w.position, t.state, count(*) AS n
            FROM unnest($1::bigint[], $2::integer[]) WITH ORDINALITY AS w (run_pk, task_idx, position)
            JOIN task_instances t ON t.run_pk = w.run_pk AND t.task_idx = w.task_idx
            WHERE NOT (t.map_index = -1 AND COALESCE(t.expanded_len, 0) > 0)
            GROUP BY w.position, t.state";
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let statement = query(SQL)
            .bind(column(wanted, |(run, _)| run.0))
            .bind(column(wanted, |(_, task)| *task));
        let mut found = vec![BTreeMap::new(); wanted.len()];
        for row in self.all(statement).await? {
            if let Some(states) = place(get(&row, "position")?, &mut found) {
                states.insert(named(&row, "state")?, get(&row, "n")?);
            }
        }
        Ok(found)
    }

    async fn put_approval(&mut self, approval: &ApprovalRow) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO approvals (run_pk, ti_pk, try_number, prompt, options, who, default_answer, created_at, due_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let statement = query(SQL)
            .bind(approval.run.0)
            .bind(approval.ti.0)
            .bind(approval.try_number)
            .bind(text(&approval.prompt))
            .bind(column(&approval.options, |o| text(o)))
            .bind(column(&approval.who, |w| text(w)))
            .bind(approval.default.as_deref().map(text))
            .bind(approval.created_at)
            .bind(approval.due_at);
        self.execute(statement).await.map(drop)
    }

    async fn approval(&mut self, ti: TiPk) -> StoreResult<Option<ApprovalRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            approval_columns!(),
            " FROM approvals a JOIN task_instances t ON t.pk = a.ti_pk WHERE a.ti_pk = $1 ORDER BY a.try_number DESC LIMIT 1"
        );
        let row = self.optional(query(SQL).bind(ti.0)).await?;
        row.as_ref().map(ApprovalRow::from_pg).transpose()
    }

    async fn put_answer(
        &mut self,
        ti: TiPk,
        try_number: i32,
        answer: &str,
        by: &str,
        at: DateTime<Utc>,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE approvals SET answer = $3, answered_by = $4, answered_at = $5
            WHERE ti_pk = $1 AND try_number = $2 AND answer IS NULL";
        let statement = query(SQL)
            .bind(ti.0)
            .bind(try_number)
            .bind(text(answer))
            .bind(text(by))
            .bind(at);
        Ok(self.execute(statement).await?.rows_affected() > 0)
    }
}

/// The place of a row whose `position` counts from 1.
fn place<T>(position: i64, places: &mut [T]) -> Option<&mut T> {
    usize::try_from(position - 1)
        .ok()
        .and_then(|i| places.get_mut(i))
}
