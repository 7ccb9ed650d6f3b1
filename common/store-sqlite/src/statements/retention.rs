//! What is deleted when its time is over.

use super::runs::IDEMPOTENCY;
use crate::{
    codec::encode,
    session::{Session, args},
};
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::ids::RunPk;
use gristmill_store::{DeletedRun, StoreResult};

/// How long rows of workers, barriers and components outlive their last change.
const DAY: TimeDelta = TimeDelta::hours(24);

impl Session {
    pub(crate) async fn delete_old(
        &mut self,
        ended_before: DateTime<Utc>,
        max: i64,
    ) -> StoreResult<Vec<DeletedRun>> {
        // What belongs to a run goes with it: ON DELETE CASCADE.
        const RUNS: &str = "
            DELETE FROM dag_runs WHERE pk IN (
                SELECT pk FROM dag_runs WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2)
            RETURNING json_array(pk, dag_id, run_id)";
        // A worker that still holds a dispatch is needed to judge it.
        const WORKERS: &str = "
            DELETE FROM workers WHERE updated_at < ?1 AND incarnation NOT IN (
                SELECT worker FROM task_instances WHERE state IN ('queued', 'running', 'restarting') AND worker IS NOT NULL)";
        const KEYS: &str = "
            UPDATE dag_runs SET idempotency_key = NULL, idempotency_hash = NULL
            WHERE idempotency_key IS NOT NULL AND queued_at < ?1";
        let day_ago = self.now - DAY;
        let runs: Vec<(i64, String, String)> = self.rows(RUNS, args![ended_before, max]).await?;
        self.delete_leavings(runs.iter().map(|(pk, ..)| *pk).collect())
            .await?;
        self.execute(WORKERS, args![day_ago]).await?;
        // Of keys that nobody holds at the moment.
        self.execute(
            "DELETE FROM limits WHERE kind IN ('dag_run_key', 'task_key') AND used = 0",
            args![],
        )
        .await?;
        self.execute("DELETE FROM barriers WHERE applied_at < ?1", args![day_ago])
            .await?;
        self.execute(
            "DELETE FROM components WHERE heartbeat_at < ?1",
            args![day_ago],
        )
        .await?;
        self.execute(KEYS, args![self.now - IDEMPOTENCY]).await?;
        // The runs that an event made, and the queues that it stands in, let go of it by cascade.
        self.execute(
            "DELETE FROM asset_events WHERE at < ?1",
            args![ended_before],
        )
        .await?;
        let deleted = runs.into_iter().map(|(pk, dag_id, run_id)| DeletedRun {
            run: RunPk(pk),
            dag_id,
            run_id,
        });
        Ok(deleted.collect())
    }

    /// What names deleted runs without a foreign key: limits of tasks in runs (`<run>/<task>`) and unsent messages.
    pub(super) async fn delete_leavings(&mut self, runs: Vec<i64>) -> StoreResult<()> {
        // '0' follows '/': all names that start with the run's key and a slash.
        const LIMITS: &str = "
            DELETE FROM limits WHERE (kind, name) IN (
                SELECT l.kind, l.name FROM jsonb_each(?1) AS r CROSS JOIN limits AS l
                    ON l.kind = 'task_in_run' AND l.name > r.value || '/' AND l.name < r.value || '0')";
        const MESSAGES: &str = "DELETE FROM outbox WHERE run IN (SELECT value FROM jsonb_each(?1))";
        if runs.is_empty() {
            return Ok(());
        }
        let runs = encode(&runs)?;
        self.execute(LIMITS, args![runs.as_str()]).await?;
        self.execute(MESSAGES, args![runs]).await?;
        Ok(())
    }
}
