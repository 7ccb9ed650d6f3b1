//! Ready instances that fit, best first.
//!
//! As in the store on PostgreSQL, ready instances are looked at by *lane*: those of one run that agree in all that may
//! block them (task, pool, queue, key, slots). Inside a lane all fit or none does, and the index of ready instances holds them
//! best first. So a lane costs one probe, whatever its length, and an open one as many rows as may be dispatched.

use super::shared_limits::waits;
use crate::session::{Session, args};
use gristmill_common::ids::{RunPk, TaskIdx, TiPk, UNMAPPED};
use gristmill_store::StoreResult;
use serde::Deserialize;
use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

/// The best of every lane of runs that have room, with what is free of its limits. A pool without a row has no room; a queue
/// or task without a row has no limit. A run that is being stopped starts nothing.
///
/// `lanes` jumps from one to the next in the index: from beyond the last number of slots (`>` would read the whole lane before
/// it), and with a `+` (by which a column has no affinity; with one of its own the index is not used). ?1: now, in microseconds; a queue whose bucket of tokens is not full has what is in it.
const LANES: &str = concat!("
WITH RECURSIVE lanes (run, dag_id, room, head) AS (
    SELECT r.pk, r.dag_id, r.max_active_tasks - r.active_tasks,
        (SELECT t.pk FROM task_instances AS t WHERE t.run = r.pk AND t.state = 'scheduled'
         ORDER BY t.task_idx, t.pool, t.queue, t.concurrency_key, t.pool_slots, t.priority_weight DESC, t.scheduled_at, t.pk LIMIT 1)
    FROM dag_runs AS r
    WHERE r.state = 'running' AND r.ready_tasks > 0 AND r.active_tasks < r.max_active_tasks AND r.stop_reason IS NULL
    UNION ALL
    SELECT l.run, l.dag_id, l.room,
        (SELECT t.pk FROM task_instances AS t WHERE t.run = l.run AND t.state = 'scheduled'
            AND (t.task_idx, t.pool, t.queue, t.concurrency_key, t.pool_slots)
                >= (+h.task_idx, +h.pool, +h.queue, +h.concurrency_key, h.pool_slots + 1)
         ORDER BY t.task_idx, t.pool, t.queue, t.concurrency_key, t.pool_slots, t.priority_weight DESC, t.scheduled_at, t.pk LIMIT 1)
    FROM lanes AS l CROSS JOIN task_instances AS h ON h.pk = l.head
)
SELECT json_array(h.pk, l.run, h.priority_weight, h.scheduled_at, l.room, l.dag_id, h.task_idx, h.task_id, h.map_index,
    h.pool, h.pool_slots, h.queue,
    (SELECT CASE WHEN cap < 0 THEN NULL WHEN include_deferred = 0 THEN cap - used ELSE cap - used
            - (SELECT coalesce(sum(w.pool_slots), 0) FROM task_instances AS w WHERE w.pool = h.pool AND ", waits!(), ") END
        FROM limits WHERE kind = 'pool' AND name = h.pool),
    (SELECT CASE WHEN paused = 1 THEN 0
            WHEN rate_full_at > ?1 THEN min(CASE WHEN cap < 0 THEN 2147483647 ELSE cap - used END,
                rate_count - ((rate_full_at - ?1) * rate_count + rate_seconds * 1000000 - 1) / (rate_seconds * 1000000))
            WHEN cap < 0 THEN NULL ELSE cap - used END FROM limits
        WHERE kind = 'queue' AND name = h.queue),
    (SELECT CASE WHEN cap < 0 THEN NULL ELSE cap - used END FROM limits
        WHERE kind = 'task' AND name = l.dag_id || '/' || h.task_id),
    (SELECT CASE WHEN cap < 0 THEN NULL ELSE cap - used END FROM limits
        WHERE kind = 'task_in_run' AND name = l.run || '/' || h.task_id),
    h.concurrency_key,
    CASE WHEN h.concurrency_key = '' THEN NULL ELSE h.concurrency_limit
        - coalesce((SELECT used FROM limits WHERE kind = 'task_key' AND name = h.concurrency_key), 0) END)
FROM lanes AS l CROSS JOIN task_instances AS h ON h.pk = l.head
WHERE EXISTS (SELECT 1 FROM limits WHERE kind = 'pool' AND name = h.pool)");

/// The best of one lane.
const OF_LANE: &str = "
SELECT json_array(pk, priority_weight, scheduled_at) FROM task_instances
WHERE run = ?1 AND task_idx = ?2 AND pool = ?3 AND queue = ?4 AND concurrency_key = ?5 AND pool_slots = ?6 AND state = 'scheduled'
ORDER BY priority_weight DESC, scheduled_at, pk LIMIT ?7";

/// The best instance of a lane, with what is free of its limits; an absent one is unlimited.
#[derive(Deserialize)]
struct Lane {
    head: TiPk,
    run: RunPk,
    priority_weight: i64,
    /// Microseconds.
    scheduled_at: i64,
    room: i64,
    dag_id: String,
    task_idx: TaskIdx,
    task_id: String,
    map_index: i32,
    pool: String,
    pool_slots: i64,
    queue: String,
    pool_free: Option<i64>,
    queue_free: Option<i64>,
    task_free: Option<i64>,
    task_in_run_free: Option<i64>,
    key: String,
    key_free: Option<i64>,
}

impl Lane {
    /// How many of it every limit has room for.
    fn share(&self, max: i64) -> i64 {
        let pool = self.pool_free.map(|free| free / self.pool_slots.max(1));
        let of_task = [self.task_free, self.task_in_run_free, self.key_free];
        [pool, self.queue_free]
            .into_iter()
            .chain(of_task)
            .flatten()
            .chain([self.room, max])
            .min()
            .unwrap_or(0)
    }
}

/// A place in the order of ready instances: by priority, then age.
type Rank = (Reverse<i64>, i64, TiPk);

/// What the instances chosen so far leave of each limit.
#[derive(Default)]
struct Left<'l> {
    runs: HashMap<RunPk, i64>,
    pools: HashMap<&'l str, i64>,
    queues: HashMap<&'l str, i64>,
    tasks: HashMap<(&'l str, &'l str), i64>,
    tasks_in_runs: HashMap<(RunPk, &'l str), i64>,
    keys: HashMap<&'l str, i64>,
}

impl<'l> Left<'l> {
    /// Takes an instance's share of every limit, or of none.
    fn take(&mut self, lane: &'l Lane) -> bool {
        let task = (lane.dag_id.as_str(), lane.task_id.as_str());
        let task_in_run = (lane.run, lane.task_id.as_str());
        let mut of = [
            left(&mut self.runs, lane.run, Some(lane.room)),
            left(&mut self.pools, lane.pool.as_str(), lane.pool_free),
            left(&mut self.queues, lane.queue.as_str(), lane.queue_free),
            left(&mut self.tasks, task, lane.task_free),
            left(&mut self.tasks_in_runs, task_in_run, lane.task_in_run_free),
            left(&mut self.keys, lane.key.as_str(), lane.key_free),
        ];
        let shares = [1, lane.pool_slots, 1, 1, 1, 1];
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
        let lanes: Vec<Lane> = self.rows(LANES, args![self.now]).await?;
        let mut ready: Vec<(Rank, &Lane)> = Vec::new();
        for lane in &lanes {
            let share = lane.share(max);
            if share <= 0 {
                continue;
            }
            if share == 1 || lane.map_index == UNMAPPED {
                // A lane of one, or with room for one.
                let rank = (Reverse(lane.priority_weight), lane.scheduled_at, lane.head);
                ready.push((rank, lane));
                continue;
            }
            let args = args![
                lane.run.0,
                lane.task_idx,
                lane.pool.as_str(),
                lane.queue.as_str(),
                lane.key.as_str(),
                lane.pool_slots,
                share,
            ];
            let of_lane: Vec<(TiPk, i64, i64)> = self.rows(OF_LANE, args).await?;
            let ranked = of_lane
                .into_iter()
                .map(|(pk, priority, at)| ((Reverse(priority), at, pk), lane));
            ready.extend(ranked);
        }
        ready.sort_unstable_by_key(|(rank, _)| *rank);
        let mut left = Left::default();
        Ok(ready
            .into_iter()
            .filter(|(_, lane)| left.take(lane))
            .take(usize::try_from(max).unwrap_or(0))
            .map(|((_, _, pk), lane)| (pk, lane.run))
            .collect())
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
