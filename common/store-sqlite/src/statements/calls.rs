//! Callbacks and deadlines.

use crate::{
    codec::{Document, Micros, Named, encode, time},
    session::{Session, args},
};
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{
    callback::{CallOn, NewCall, Webhook},
    ids::RunPk,
};
use gristmill_store::{
    CallFilter, CallRow, CallState, Claim, Delivery, GIVE_UP_AFTER, MissedDeadline, Page,
    StoreResult,
};
use serde::Deserialize;
use serde_json::Value;

/// The columns of a call, in the order of [`CallRecord`]; its run is looked up, as a write's answer can join nothing.
macro_rules! call_row {
    () => {
        "json_array(callbacks.id, callbacks.run, (SELECT dag_id FROM dag_runs WHERE pk = callbacks.run), (SELECT run_id FROM dag_runs WHERE pk = callbacks.run), \
         callbacks.task_id, callbacks.map_index, callbacks.try_number, callbacks.event, callbacks.position, callbacks.state, callbacks.target, callbacks.webhook, callbacks.body, callbacks.attempts, \
         callbacks.created_at, callbacks.next_at, callbacks.give_up_at, callbacks.ended_at, callbacks.error, callbacks.status)"
    };
}

#[derive(Deserialize)]
struct CallRecord {
    id: i64,
    run: RunPk,
    dag_id: String,
    run_id: String,
    task_id: Option<String>,
    map_index: i32,
    try_number: i32,
    event: Named<CallOn>,
    position: i32,
    state: Named<CallState>,
    target: String,
    webhook: Option<Document<Webhook>>,
    body: Document<Value>,
    attempts: i32,
    created_at: Micros,
    next_at: Option<Micros>,
    give_up_at: Micros,
    ended_at: Option<Micros>,
    error: Option<String>,
    status: Option<i32>,
}

impl From<CallRecord> for CallRow {
    fn from(r: CallRecord) -> Self {
        Self {
            id: r.id,
            run: r.run,
            dag_id: r.dag_id,
            run_id: r.run_id,
            task_id: r.task_id,
            map_index: r.map_index,
            try_number: r.try_number,
            event: r.event.0,
            position: r.position,
            state: r.state.0,
            target: r.target,
            webhook: r.webhook.map(|webhook| webhook.0),
            body: r.body.0,
            attempts: r.attempts,
            created_at: r.created_at.0,
            next_at: time(r.next_at),
            give_up_at: r.give_up_at.0,
            ended_at: time(r.ended_at),
            error: r.error,
            status: r.status,
        }
    }
}

impl Session {
    pub(crate) async fn put_calls(&mut self, calls: &[NewCall]) -> StoreResult<()> {
        // What could not be made has ended before it began.
        const SQL: &str = "
            INSERT INTO callbacks (run, ti, task_id, map_index, try_number, event, position, target, webhook, body, error,
                state, created_at, next_at, give_up_at, ended_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
                CASE WHEN ?11 IS NULL THEN 'pending' ELSE 'failed' END, ?12, CASE WHEN ?11 IS NULL THEN ?12 END, ?13,
                CASE WHEN ?11 IS NULL THEN NULL ELSE ?12 END)";
        for call in calls {
            let webhook = call.webhook.as_ref().ok().map(encode).transpose()?;
            let args = args![
                call.run.0,
                call.ti.map(|ti| ti.0),
                call.task_id.as_deref(),
                call.map_index,
                call.try_number,
                call.event.as_str(),
                call.position,
                call.target.as_str(),
                webhook.as_deref(),
                encode(&call.body)?,
                call.webhook.as_ref().err().map(String::as_str),
                self.now,
                self.now + GIVE_UP_AFTER,
            ];
            self.execute(SQL, args).await?;
        }
        Ok(())
    }

    pub(crate) async fn claim_calls(&mut self, claim: &Claim<'_>) -> StoreResult<Vec<CallRow>> {
        const SQL: &str = concat!(
            "UPDATE callbacks SET attempts = attempts + 1, next_at = ?5
             WHERE id IN (
                SELECT id FROM (
                    SELECT id, next_at, row_number() OVER (PARTITION BY target ORDER BY next_at, id) AS turn
                    FROM callbacks WHERE state = 'pending' AND next_at <= ?1
                        AND target NOT IN (SELECT value FROM json_each(?2)))
                WHERE turn <= ?3 ORDER BY next_at, id LIMIT ?4)
             RETURNING ",
            call_row!()
        );
        let lease = TimeDelta::from_std(claim.lease).unwrap_or(TimeDelta::minutes(1));
        let args = args![
            self.now,
            encode(claim.busy)?,
            claim.of_one_target,
            claim.max,
            self.now + lease,
        ];
        let records: Vec<CallRecord> = self.rows(SQL, args).await?;
        Ok(records.into_iter().map(CallRow::from).collect())
    }

    pub(crate) async fn delivered(&mut self, deliveries: &[Delivery]) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE callbacks SET state = ?3, next_at = ?4, error = ?5, status = ?6,
                ended_at = CASE WHEN ?3 <> 'pending' THEN ?7 END
            WHERE id = ?1 AND attempts = ?2 AND state = 'pending'";
        for delivery in deliveries {
            let args = args![
                delivery.id,
                delivery.attempts,
                delivery.state.as_str(),
                delivery.next_at,
                delivery.error.as_deref(),
                delivery.status,
                self.now,
            ];
            self.execute(SQL, args).await?;
        }
        Ok(())
    }

    pub(crate) async fn calls(&mut self, filter: &CallFilter) -> StoreResult<Page<CallRow>> {
        macro_rules! matching {
            () => {
                " FROM callbacks JOIN dag_runs AS r ON r.pk = callbacks.run
                  WHERE (?1 IS NULL OR callbacks.id = ?1) AND (?2 IS NULL OR r.dag_id = ?2) AND (?3 IS NULL OR callbacks.run = ?3)
                    AND (?4 IS NULL OR callbacks.state = ?4)"
            };
        }
        const ROWS: &str = concat!(
            "SELECT ",
            call_row!(),
            matching!(),
            " ORDER BY callbacks.id DESC LIMIT ?5 OFFSET ?6"
        );
        const TOTAL: &str = concat!("SELECT json_array(count(*))", matching!());
        let args = args![
            filter.id,
            filter.dag_id.as_deref(),
            filter.run.map(|run| run.0),
            filter.state.map(|state| state.as_str()),
        ];
        let (total,): (i64,) = self.one(TOTAL, args.clone()).await?;
        let mut paged = args;
        paged.extend(args![filter.limit, filter.offset]);
        let records: Vec<CallRecord> = self.rows(ROWS, paged).await?;
        Ok(Page {
            rows: records.into_iter().map(CallRow::from).collect(),
            total,
        })
    }

    pub(crate) async fn retry_call(&mut self, id: i64) -> StoreResult<bool> {
        const SQL: &str = "
            UPDATE callbacks SET state = 'pending', next_at = ?2, give_up_at = ?3, ended_at = NULL
            WHERE id = ?1 AND webhook IS NOT NULL";
        let args = args![id, self.now, self.now + GIVE_UP_AFTER];
        Ok(self.execute(SQL, args).await? > 0)
    }

    pub(crate) async fn missed_deadlines(
        &mut self,
        run: RunPk,
    ) -> StoreResult<Vec<MissedDeadline>> {
        const SQL: &str = "
            SELECT json_array(task_id, position, due_at, missed_at) FROM missed_deadlines
            WHERE run = ?1 ORDER BY due_at, task_id, position";
        let rows: Vec<(String, i32, Micros, Micros)> = self.rows(SQL, args![run.0]).await?;
        let missed = |(task_id, position, due_at, missed_at): (String, i32, Micros, Micros)| {
            MissedDeadline {
                run,
                task_id: (!task_id.is_empty()).then_some(task_id),
                position,
                due_at: due_at.0,
                missed_at: missed_at.0,
            }
        };
        Ok(rows.into_iter().map(missed).collect())
    }

    pub(crate) async fn due_deadlines(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        const SQL: &str = "
            SELECT json_array(pk) FROM dag_runs WHERE next_deadline <= ?1 ORDER BY next_deadline, pk LIMIT ?2";
        let rows: Vec<(RunPk,)> = self.rows(SQL, args![self.now, max]).await?;
        Ok(rows.into_iter().map(|(run,)| run).collect())
    }

    pub(crate) async fn set_next_deadlines(
        &mut self,
        next: &[(RunPk, Option<DateTime<Utc>>)],
    ) -> StoreResult<()> {
        const SQL: &str = "UPDATE dag_runs SET next_deadline = ?2 WHERE pk = ?1";
        for (run, at) in next {
            self.execute(SQL, args![run.0, *at]).await?;
        }
        Ok(())
    }

    pub(crate) async fn put_missed(&mut self, missed: &MissedDeadline) -> StoreResult<bool> {
        const SQL: &str = "
            INSERT INTO missed_deadlines (run, task_id, position, due_at, missed_at)
            VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
        let args = args![
            missed.run.0,
            missed.task_id.as_deref().unwrap_or_default(),
            missed.position,
            missed.due_at,
            missed.missed_at,
        ];
        Ok(self.execute(SQL, args).await? > 0)
    }

    pub(crate) async fn average_runtime(&mut self, dag_id: &str) -> StoreResult<Option<TimeDelta>> {
        const SQL: &str = "
            SELECT json_array(CAST(avg(ended_at - started_at) AS INTEGER)) FROM (
                SELECT started_at, ended_at FROM dag_runs
                WHERE dag_id = ?1 AND state = 'success' AND started_at IS NOT NULL ORDER BY pk DESC LIMIT 10)";
        let (micros,): (Option<i64>,) = self.one(SQL, args![dag_id]).await?;
        Ok(micros.map(TimeDelta::microseconds))
    }
}
