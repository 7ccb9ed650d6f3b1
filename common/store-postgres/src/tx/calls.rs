//! Callbacks and deadlines, in transactions.

use super::PgTx;
use crate::{
    bind::{column, json, opt_text, text},
    rows::get,
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{callback::NewCall, ids::RunPk};
use gristmill_store::{CallTx, GIVE_UP_AFTER, MissedDeadline, StoreResult};
use sqlx::query;

#[async_trait]
impl CallTx for PgTx {
    async fn put_calls(&mut self, calls: &[NewCall]) -> StoreResult<()> {
        // What could not be made has ended before it began.
        const SQL: &str = "
            INSERT INTO callbacks (run_pk, ti_pk, task_id, map_index, try_number, event, position, target, webhook, body,
                error, state, created_at, next_at, give_up_at, ended_at)
            SELECT run_pk, ti_pk, task_id, map_index, try_number, event, position, target, webhook::json, body::json,
                error, CASE WHEN error IS NULL THEN 'pending' ELSE 'failed' END, $1,
                CASE WHEN error IS NULL THEN $1 END, $2, CASE WHEN error IS NULL THEN NULL ELSE $1 END
            FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::integer[], $7::integer[], $8::text[], $9::integer[],
                        $10::text[], $11::text[], $12::text[], $13::text[])
                 AS c (run_pk, ti_pk, task_id, map_index, try_number, event, position, target, webhook, body, error)";
        if calls.is_empty() {
            return Ok(());
        }
        let statement = query(SQL)
            .bind(self.now)
            .bind(self.now + GIVE_UP_AFTER)
            .bind(column(calls, |c| c.run.0))
            .bind(column(calls, |c| c.ti.map(|ti| ti.0)))
            .bind(column(calls, |c| opt_text(c.task_id.as_deref())))
            .bind(column(calls, |c| c.map_index))
            .bind(column(calls, |c| c.try_number))
            .bind(column(calls, |c| c.event.as_str()))
            .bind(column(calls, |c| c.position))
            .bind(column(calls, |c| text(&c.target)))
            .bind(column(calls, |c| c.webhook.as_ref().ok().map(json)))
            .bind(column(calls, |c| json(&c.body)))
            .bind(column(calls, |c| {
                opt_text(c.webhook.as_ref().err().map(String::as_str))
            }));
        self.execute(statement).await.map(drop)
    }

    async fn due_deadlines(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        const SQL: &str = "
            SELECT pk FROM dag_runs WHERE next_deadline <= $1 ORDER BY next_deadline, pk LIMIT $2";
        let rows = self.all(query(SQL).bind(self.now).bind(max)).await?;
        rows.iter().map(|row| get(row, "pk").map(RunPk)).collect()
    }

    async fn set_next_deadlines(
        &mut self,
        next: &[(RunPk, Option<DateTime<Utc>>)],
    ) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE dag_runs r SET next_deadline = n.at
            FROM unnest($1::bigint[], $2::timestamptz[]) AS n (pk, at) WHERE r.pk = n.pk";
        if next.is_empty() {
            return Ok(());
        }
        let statement = query(SQL)
            .bind(column(next, |(run, _)| run.0))
            .bind(column(next, |(_, at)| *at));
        self.execute(statement).await.map(drop)
    }

    async fn put_missed(&mut self, missed: &MissedDeadline) -> StoreResult<bool> {
        const SQL: &str = "
            INSERT INTO missed_deadlines (run_pk, task_id, position, due_at, missed_at)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let statement = query(SQL)
            .bind(missed.run.0)
            .bind(text(missed.task_id.as_deref().unwrap_or_default()))
            .bind(missed.position)
            .bind(missed.due_at)
            .bind(missed.missed_at);
        Ok(self.execute(statement).await?.rows_affected() > 0)
    }

    async fn average_runtime(&mut self, dag_id: &str) -> StoreResult<Option<TimeDelta>> {
        const SQL: &str = "
            SELECT (extract(epoch FROM avg(ended_at - started_at)) * 1000)::bigint AS ms
            FROM (SELECT started_at, ended_at FROM dag_runs
                  WHERE dag_id = $1 AND state = 'success' AND started_at IS NOT NULL
                  ORDER BY pk DESC LIMIT 10) r";
        let row = self.optional(query(SQL).bind(text(dag_id))).await?;
        let ms: Option<i64> = row.map(|row| get(&row, "ms")).transpose()?.flatten();
        Ok(ms.and_then(TimeDelta::try_milliseconds))
    }
}
