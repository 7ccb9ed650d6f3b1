//! Ready instances that fit, best first.

use crate::session::{Session, args};
use gristmill_common::ids::{RunPk, TiPk};
use gristmill_store::StoreResult;
use serde::Deserialize;
use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    ops::ControlFlow,
};

/// Inside: what no full limit stands against, in order. `LIMIT -1` keeps it apart from the outside, which looks at limits
/// row by row: the reader stops as soon as it has enough, so only what it looks at is paid for.
///
/// A run comes first (`CROSS JOIN`), so that the instances of runs without room are never touched. A pool without a row
/// has no room; a queue or task without a row has no limit. A run that is being stopped starts nothing.
const READY: &str = "
SELECT json_array(c.pk, c.run, c.room, c.pool, c.pool_slots, c.queue, c.dag_id, c.task_id,
    (SELECT CASE WHEN cap < 0 THEN NULL ELSE cap - used END FROM limits WHERE kind = 'pool' AND name = c.pool),
    (SELECT CASE WHEN cap < 0 THEN NULL ELSE cap - used END FROM limits WHERE kind = 'queue' AND name = c.queue),
    (SELECT CASE WHEN cap < 0 THEN NULL ELSE cap - used END FROM limits
        WHERE kind = 'task' AND name = c.dag_id || '/' || c.task_id),
    (SELECT CASE WHEN cap < 0 THEN NULL ELSE cap - used END FROM limits
        WHERE kind = 'task_in_run' AND name = c.run || '/' || c.task_id))
FROM (
    SELECT t.pk, t.run, r.max_active_tasks - r.active_tasks AS room, t.pool, t.pool_slots, t.queue, r.dag_id, t.task_id
    FROM dag_runs AS r CROSS JOIN task_instances AS t ON t.run = r.pk
    WHERE r.state = 'running' AND r.ready_tasks > 0 AND r.active_tasks < r.max_active_tasks AND r.stop_reason IS NULL
        AND t.state = 'scheduled'
        AND t.pool IN (SELECT name FROM limits WHERE kind = 'pool' AND (cap < 0 OR used < cap))
        AND t.queue NOT IN (SELECT name FROM limits WHERE kind = 'queue' AND (paused = 1 OR (cap >= 0 AND used >= cap)))
    ORDER BY t.priority_weight DESC, t.scheduled_at, t.pk
    LIMIT -1
) AS c";

/// A ready instance with what is free of its limits; an absent one is unlimited.
#[derive(Deserialize)]
struct Ready {
    pk: TiPk,
    run: RunPk,
    room: i64,
    pool: String,
    pool_slots: i64,
    queue: String,
    dag_id: String,
    task_id: String,
    pool_free: Option<i64>,
    queue_free: Option<i64>,
    task_free: Option<i64>,
    task_in_run_free: Option<i64>,
}

/// What the instances chosen so far leave of each limit.
#[derive(Default)]
struct Left {
    runs: HashMap<RunPk, i64>,
    pools: HashMap<String, i64>,
    queues: HashMap<String, i64>,
    tasks: HashMap<(String, String), i64>,
    tasks_in_runs: HashMap<(RunPk, String), i64>,
}

impl Left {
    /// Takes an instance's share of every limit, or of none.
    fn take(&mut self, ready: Ready) -> bool {
        let task = (ready.dag_id, ready.task_id.clone());
        let task_in_run = (ready.run, ready.task_id);
        let mut of = [
            left(&mut self.runs, ready.run, Some(ready.room)),
            left(&mut self.pools, ready.pool, ready.pool_free),
            left(&mut self.queues, ready.queue, ready.queue_free),
            left(&mut self.tasks, task, ready.task_free),
            left(&mut self.tasks_in_runs, task_in_run, ready.task_in_run_free),
        ];
        let shares = [1, ready.pool_slots, 1, 1, 1];
        let fits = of
            .iter()
            .zip(shares)
            .all(|(left, share)| left.as_ref().is_none_or(|left| **left >= share));
        if fits {
            for (left, share) in of.iter_mut().zip(shares) {
                if let Some(left) = left {
                    **left -= share;
                }
            }
        }
        fits
    }
}

fn left<K: Hash + Eq>(map: &mut HashMap<K, i64>, key: K, free: Option<i64>) -> Option<&mut i64> {
    match (map.entry(key), free) {
        (Entry::Occupied(entry), _) => Some(entry.into_mut()),
        (Entry::Vacant(entry), Some(free)) => Some(entry.insert(free)),
        (Entry::Vacant(_), None) => None,
    }
}

impl Session {
    pub(crate) async fn ready_candidates(&mut self, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>> {
        let max = usize::try_from(max).unwrap_or(0);
        let mut chosen = Vec::new();
        let mut left = Left::default();
        if max == 0 {
            return Ok(chosen);
        }
        self.each(READY, args![], |ready: Ready| {
            let key = (ready.pk, ready.run);
            if left.take(ready) {
                chosen.push(key);
            }
            if chosen.len() < max {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .await?;
        Ok(chosen)
    }

    pub(crate) async fn others_wait(&mut self, except: &[RunPk]) -> StoreResult<bool> {
        const SQL: &str = "
            SELECT json_array(EXISTS (
                SELECT 1 FROM dag_runs
                WHERE state = 'running' AND ready_tasks > 0 AND active_tasks < max_active_tasks
                    AND stop_reason IS NULL AND pk NOT IN (SELECT value FROM jsonb_each(?1))))";
        let (found,): (crate::codec::Flag,) =
            self.one(SQL, args![crate::codec::encode(except)?]).await?;
        Ok(found.0)
    }

    pub(crate) async fn due_retries(&mut self, max: i64) -> StoreResult<Vec<(TiPk, RunPk)>> {
        const SQL: &str = "
            SELECT json_array(pk, run) FROM task_instances
            WHERE state = 'up_for_retry' AND next_at <= ?1 ORDER BY next_at, pk LIMIT ?2";
        self.rows(SQL, args![self.now, max]).await
    }
}
