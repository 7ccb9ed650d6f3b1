//! Queues and pools by what is in them. All numbers come from the instances of running runs: an instance that has not
//! ended is in one.

use crate::{
    codec::{Flag, Micros, encode, time},
    session::{Session, args},
};
use gristmill_common::limit::RateLimit;
use gristmill_store::{PoolUse, QueueCounts, StoreResult};
use serde::Deserialize;

impl Session {
    pub(crate) async fn queue_counts(&mut self) -> StoreResult<Vec<QueueCounts>> {
        // Hidden nodes of expanded tasks have no state of these.
        const SQL: &str = "
            WITH
                live AS MATERIALIZED (
                    SELECT t.queue, count(*) FILTER (WHERE t.state = 'scheduled') AS scheduled,
                        count(*) FILTER (WHERE t.state = 'queued') AS queued,
                        count(*) FILTER (WHERE t.state IN ('running', 'restarting')) AS running,
                        min(t.scheduled_at) FILTER (WHERE t.state IN ('scheduled', 'queued')) AS oldest
                    FROM dag_runs AS r CROSS JOIN task_instances AS t ON t.run = r.pk
                    WHERE r.state = 'running'
                        AND t.state NOT IN ('success', 'failed', 'upstream_failed', 'skipped', 'removed')
                    GROUP BY t.queue
                ),
                dead AS MATERIALIZED (
                    SELECT queue, count(*) AS n FROM task_instances
                    WHERE state = 'failed' AND infra_losses > 0 GROUP BY queue
                )
            SELECT json_array(q.name, coalesce(live.scheduled, 0), coalesce(live.queued, 0),
                coalesce(live.running, 0), live.oldest, coalesce(l.paused, 0), l.rate_count, l.rate_seconds,
                coalesce(dead.n, 0))
            FROM (SELECT name FROM limits WHERE kind = 'queue' UNION SELECT queue FROM live) AS q
            LEFT JOIN live ON live.queue = q.name
            LEFT JOIN dead ON dead.queue = q.name
            LEFT JOIN limits AS l ON l.kind = 'queue' AND l.name = q.name
            ORDER BY q.name";
        #[derive(Deserialize)]
        struct Record {
            queue: String,
            scheduled: i64,
            queued: i64,
            running: i64,
            oldest: Option<Micros>,
            paused: Flag,
            rate_count: Option<i64>,
            rate_seconds: Option<i64>,
            dead: i64,
        }
        let records: Vec<Record> = self.rows(SQL, args![]).await?;
        Ok(records
            .into_iter()
            .map(|r| QueueCounts {
                queue: r.queue,
                scheduled: r.scheduled,
                queued: r.queued,
                running: r.running,
                oldest_ready_at: time(r.oldest),
                paused: r.paused.0,
                rate_limit: r
                    .rate_count
                    .zip(r.rate_seconds)
                    .and_then(|(count, seconds)| RateLimit::new(count, seconds)),
                dead: r.dead,
            })
            .collect())
    }

    pub(crate) async fn pool_use(&mut self, name: &str) -> StoreResult<PoolUse> {
        const SQL: &str = concat!(
            "SELECT json_array(count(*) FILTER (WHERE t.state = 'queued'),
                count(*) FILTER (WHERE t.state IN ('running', 'restarting')),
                count(*) FILTER (WHERE t.state = 'scheduled'),
                (SELECT coalesce(sum(w.pool_slots), 0) FROM task_instances AS w WHERE w.pool = ?1 AND ",
            super::shared_limits::waits!(),
            "))
             FROM dag_runs AS r CROSS JOIN task_instances AS t ON t.run = r.pk
             WHERE r.state = 'running' AND t.pool = ?1"
        );
        let (queued, running, scheduled, deferred_slots) = self.one(SQL, args![name]).await?;
        Ok(PoolUse {
            queued,
            running,
            scheduled,
            deferred_slots,
        })
    }

    pub(crate) async fn set_queue_paused(&mut self, queue: &str, paused: bool) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO limits (kind, name, cap, paused) VALUES ('queue', ?1, ?3, ?2)
            ON CONFLICT (kind, name) DO UPDATE SET paused = excluded.paused";
        self.execute(SQL, args![queue, paused, DEFAULT_CAP]).await?;
        Ok(())
    }

    pub(crate) async fn set_queue_caps(&mut self, caps: &[(String, i64)]) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO limits (kind, name, cap)
            SELECT 'queue', value ->> 0, value ->> 1 FROM jsonb_each(?1) WHERE true
            ON CONFLICT (kind, name) DO UPDATE SET cap = excluded.cap WHERE cap <> excluded.cap";
        if caps.is_empty() {
            return Ok(());
        }
        self.execute(SQL, args![encode(caps)?]).await?;
        Ok(())
    }

    pub(crate) async fn queues(&mut self) -> StoreResult<Vec<String>> {
        const SQL: &str = "
            SELECT json_array(name) FROM (
                SELECT name FROM limits WHERE kind = 'queue'
                UNION
                SELECT t.queue FROM dag_runs AS r CROSS JOIN task_instances AS t ON t.run = r.pk
                WHERE r.state = 'running'
            ) ORDER BY name";
        let rows: Vec<(String,)> = self.rows(SQL, args![]).await?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }
}

/// Publish cap of a queue that no worker has registered for yet.
const DEFAULT_CAP: i64 = 1000;
