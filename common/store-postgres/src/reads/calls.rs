//! Callbacks: what is due, what came of it, and what is shown.

use super::total;
use crate::{
    PgStore,
    bind::{column, opt_text, text},
    rows::{FromPg, decode, get, json, named, optional_json},
};
use async_trait::async_trait;
use chrono::TimeDelta;
use gristmill_common::ids::RunPk;
use gristmill_store::{
    CallFilter, CallReads, CallRow, Claim, Delivery, GIVE_UP_AFTER, MissedDeadline, Page,
    StoreResult,
};
use sqlx::{postgres::PgRow, query};

/// Columns of [`CallRow`], of `callbacks c` and its run `r`.
macro_rules! call_columns {
    () => {
        "c.id, c.run_pk, r.dag_id, r.run_id, c.task_id, c.map_index, c.try_number, c.event, c.position, c.state, c.target,
         c.webhook, c.body, c.attempts, c.created_at, c.next_at, c.give_up_at, c.ended_at, c.error, c.status"
    };
}

impl FromPg for CallRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            id: get(row, "id")?,
            run: RunPk(get(row, "run_pk")?),
            dag_id: get(row, "dag_id")?,
            run_id: get(row, "run_id")?,
            task_id: get(row, "task_id")?,
            map_index: get(row, "map_index")?,
            try_number: get(row, "try_number")?,
            event: named(row, "event")?,
            position: get(row, "position")?,
            state: named(row, "state")?,
            target: get(row, "target")?,
            webhook: optional_json(row, "webhook")?,
            body: json(row, "body")?,
            attempts: get(row, "attempts")?,
            created_at: get(row, "created_at")?,
            next_at: get(row, "next_at")?,
            give_up_at: get(row, "give_up_at")?,
            ended_at: get(row, "ended_at")?,
            error: get(row, "error")?,
            status: get(row, "status")?,
        })
    }
}

#[async_trait]
impl CallReads for PgStore {
    async fn claim_calls(&self, claim: &Claim<'_>) -> StoreResult<Vec<CallRow>> {
        // What another has taken meanwhile is not due any more: the outer condition is looked at under the row's lock.
        const SQL: &str = concat!(
            "WITH due AS (
                SELECT id FROM (
                    SELECT id, next_at, row_number() OVER (PARTITION BY target ORDER BY next_at, id) AS turn
                    FROM callbacks WHERE state = 'pending' AND next_at <= $1 AND target <> ALL($2)) d
                WHERE turn <= $3 ORDER BY next_at, id LIMIT $4)
             UPDATE callbacks c SET attempts = c.attempts + 1, next_at = $5
             FROM due, dag_runs r
             WHERE c.id = due.id AND r.pk = c.run_pk AND c.state = 'pending' AND c.next_at <= $1
             RETURNING ",
            call_columns!()
        );
        let now = self.inner.clock.now();
        let lease = TimeDelta::from_std(claim.lease).unwrap_or(TimeDelta::minutes(1));
        let statement = query(SQL)
            .bind(now)
            .bind(column(claim.busy, |target| text(target)))
            .bind(claim.of_one_target)
            .bind(claim.max)
            .bind(now + lease);
        decode(&self.all(statement).await?)
    }

    async fn delivered(&self, deliveries: &[Delivery]) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE callbacks c SET state = d.state, next_at = d.next_at, error = d.error, status = d.status,
                ended_at = CASE WHEN d.state <> 'pending' THEN $1 END
            FROM unnest($2::bigint[], $3::integer[], $4::text[], $5::timestamptz[], $6::text[], $7::integer[])
                 AS d (id, attempts, state, next_at, error, status)
            WHERE c.id = d.id AND c.attempts = d.attempts AND c.state = 'pending'";
        if deliveries.is_empty() {
            return Ok(());
        }
        let statement = query(SQL)
            .bind(self.inner.clock.now())
            .bind(column(deliveries, |d| d.id))
            .bind(column(deliveries, |d| d.attempts))
            .bind(column(deliveries, |d| d.state.as_str()))
            .bind(column(deliveries, |d| d.next_at))
            .bind(column(deliveries, |d| opt_text(d.error.as_deref())))
            .bind(column(deliveries, |d| d.status));
        self.execute(statement).await.map(drop)
    }

    async fn calls(&self, filter: &CallFilter) -> StoreResult<Page<CallRow>> {
        macro_rules! matching {
            () => {
                " FROM callbacks c JOIN dag_runs r ON r.pk = c.run_pk
                  WHERE ($1::bigint IS NULL OR c.id = $1) AND ($2::text IS NULL OR r.dag_id = $2)
                    AND ($3::bigint IS NULL OR c.run_pk = $3) AND ($4::text IS NULL OR c.state = $4)"
            };
        }
        const ROWS: &str = concat!(
            "SELECT ",
            call_columns!(),
            matching!(),
            " ORDER BY c.id DESC LIMIT $5 OFFSET $6"
        );
        const TOTAL: &str = concat!("SELECT count(*) AS total", matching!());
        let bound = |sql| {
            query(sql)
                .bind(filter.id)
                .bind(filter.dag_id.as_deref().map(text))
                .bind(filter.run.map(|run| run.0))
                .bind(filter.state.map(|state| state.as_str()))
        };
        let rows = bound(ROWS).bind(filter.limit).bind(filter.offset);
        Ok(Page {
            rows: decode(&self.all(rows).await?)?,
            total: total(self.optional(bound(TOTAL)).await?)?,
        })
    }

    async fn retry_call(&self, id: i64) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE callbacks SET state = 'pending', next_at = $2, give_up_at = $3, ended_at = NULL
            WHERE id = $1 AND webhook IS NOT NULL";
        let now = self.inner.clock.now();
        let statement = query(SQL).bind(id).bind(now).bind(now + GIVE_UP_AFTER);
        Ok(self.execute(statement).await? > 0)
    }

    async fn missed_deadlines(&self, run: RunPk) -> StoreResult<Vec<MissedDeadline>> {
        const SQL: &str = "
            SELECT task_id, position, due_at, missed_at FROM missed_deadlines
            WHERE run_pk = $1 ORDER BY due_at, task_id, position";
        let rows = self.all(query(SQL).bind(run.0)).await?;
        let missed = |row| {
            let task_id: String = get(row, "task_id")?;
            Ok(MissedDeadline {
                run,
                task_id: (!task_id.is_empty()).then_some(task_id),
                position: get(row, "position")?,
                due_at: get(row, "due_at")?,
                missed_at: get(row, "missed_at")?,
            })
        };
        rows.iter().map(missed).collect()
    }
}
