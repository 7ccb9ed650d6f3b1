//! Waits until a deployment is at rest: some things are done right after a run has ended, the last acknowledgements, claims
//! and outbox rows among them. What is still there when the patience is over is a breach.

use super::{
    CheckError, Database, Evidence, Verdict,
    broker::{self, Broker},
    presence::Presence,
};
use gristmill_common::invariant::Invariant;
use sqlx::Row;
use std::time::{Duration, Instant};

type Left = Vec<(Invariant, String)>;

/// Rows that are listed at most.
const LISTED: i64 = 100;

/// Runs and instances that have not ended, each a text.
const UNFINISHED: &str = "
    SELECT format('run %s/%s is %s', dag_id, run_id, state) FROM dag_runs WHERE ended_at IS NULL
    UNION ALL
    SELECT format('%s/%s %s[%s] is %s and its run has ended', r.dag_id, r.run_id, t.task_id, t.map_index, t.state)
    FROM task_instances t JOIN dag_runs r ON r.pk = t.run_pk
    WHERE r.ended_at IS NOT NULL AND NOT (t.map_index = -1 AND coalesce(t.expanded_len, 0) > 0)
      AND t.state NOT IN ('success', 'failed', 'upstream_failed', 'skipped', 'removed')
    LIMIT $1";

/// Messages that were not published.
const OUTBOX: &str = "
    SELECT format('dispatch %s#%s for queue %s, since %s', ti_pk, fence, queue, created_at) FROM outbox
    ORDER BY created_at LIMIT $1";

/// Slots of what is not dispatched.
const SLOTS: &str = "
    SELECT format('%s/%s %s[%s] is %s and occupies its slots', r.dag_id, r.run_id, t.task_id, t.map_index, t.state)
    FROM task_instances t JOIN dag_runs r ON r.pk = t.run_pk
    WHERE t.occupies AND t.state NOT IN ('queued', 'running', 'restarting')
    LIMIT $1";

/// Waits, and judges what is left.
pub(super) async fn check(
    evidence: &Evidence,
    database: &Database,
    verdict: &mut Verdict,
) -> Result<(), CheckError> {
    let broker = Broker::open(evidence).await?;
    let mut presence = Presence::open(&evidence.redis_url).await?;
    let until = Instant::now() + evidence.patience;
    let mut pause = Duration::from_millis(50);
    let left = loop {
        let in_time = Instant::now() < until;
        let mut left = in_database(database).await?;
        // The others are asked when the database is at rest, or for the last time.
        if left.is_empty() || !in_time {
            let held = presence.held().await?;
            left.extend(held.into_iter().map(|held| (Invariant::NothingHeld, held)));
            let (queues, asked) = broker.left(&work_queues(database).await?).await?;
            verdict.counted.queues = asked;
            left.extend(
                queues
                    .into_iter()
                    .map(|(queue, what)| (Invariant::QueuesEmpty, format!("{queue}: {what}"))),
            );
        }
        let settled = left.is_empty() && statistics_are_new(evidence, database).await?;
        if settled || !in_time {
            break left;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    };
    for (invariant, what) in left {
        verdict.breach(invariant, what);
    }
    Ok(())
}

async fn in_database(database: &Database) -> Result<Left, CheckError> {
    let mut left = Left::new();
    for (invariant, statement) in [
        (Invariant::EveryRunEnds, UNFINISHED),
        (Invariant::OutboxEmpty, OUTBOX),
        (Invariant::NothingHeld, SLOTS),
    ] {
        let rows = sqlx::query(statement)
            .bind(LISTED)
            .fetch_all(&database.pool)
            .await?;
        for row in rows {
            left.push((invariant, row.try_get(0)?));
        }
    }
    Ok(left)
}

/// Whether what the management API says is newer than the last run's end.
async fn statistics_are_new(evidence: &Evidence, database: &Database) -> Result<bool, CheckError> {
    if evidence.management_url.is_none() {
        return Ok(true);
    }
    let row = sqlx::query("SELECT extract(epoch FROM now() - max(ended_at))::float8 FROM dag_runs")
        .fetch_one(&database.pool)
        .await?;
    let age: Option<f64> = row.try_get(0)?;
    // Below 0: a clock was moved; then the patience is what is waited for.
    Ok(age.is_none_or(|age| age > broker::STATISTICS.as_secs_f64()))
}

async fn work_queues(database: &Database) -> Result<Vec<String>, CheckError> {
    let rows = sqlx::query("SELECT name FROM limits WHERE kind = 'queue'")
        .fetch_all(&database.pool)
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
