-- Ready instances that fit every limit as it stands, best first. $1: how many at most.
--
-- Why this plan. A scan of all ready instances by priority reads the whole backlog before it meets one that fits: 100,000
-- instances of one run that may have 16 at a time, or 10,000 that wait for a full pool beside one for an empty pool. Instead
-- the index task_instances_ready keeps apart what can be blocked apart. A *lane* is a run's ready instances that agree in
-- everything that may block them: task (where it has limits of its own), pool, queue, number of slots and the key of the limit that it shares. Inside a lane
-- all fit or none does, and the index holds them best first. So:
--   1. open_runs: running runs with ready instances and room, by a partial index of just these;
--   2. lanes: each run's lanes, by jumping from one to the next in the index (one probe per lane, whatever its length);
--   3. open_lanes: lanes whose limits have room; a blocked lane has cost its one probe;
--   4. picked: of each open lane the best, never more than its run, pool, queue and task have room for;
--   5. within: among these, in the order of priority and age, each takes its share of what it has in common with others:
--      what lies beyond a limit's room is left out, so that a crowded pool does not take the places of others.
-- The cost is O(lanes + instances that could be dispatched), and independent of the backlog.
-- Limits are read as they stand: who dispatches locks and spends them, and asks again.
WITH RECURSIVE
open_runs AS MATERIALIZED (
    SELECT r.pk AS run_pk, r.dag_id, r.max_active_tasks - r.active_tasks AS room
    FROM dag_runs r WHERE r.can_dispatch
),
lanes AS (
    SELECT o.run_pk, o.dag_id, o.room, l.limit_lane, l.pool, l.queue, l.pool_slots, l.concurrency_key, l.concurrency_limit,
        l.task_id
    FROM open_runs o
    CROSS JOIN LATERAL (
        SELECT t.limit_lane, t.pool, t.queue, t.pool_slots, t.concurrency_key, t.concurrency_limit, t.task_id
        FROM task_instances t
        WHERE t.run_pk = o.run_pk AND t.state = 'scheduled'
        ORDER BY t.limit_lane, t.pool, t.queue, t.pool_slots, t.concurrency_key LIMIT 1) l
    UNION ALL
    SELECT o.run_pk, o.dag_id, o.room, l.limit_lane, l.pool, l.queue, l.pool_slots, l.concurrency_key, l.concurrency_limit,
        l.task_id
    FROM lanes o
    CROSS JOIN LATERAL (
        SELECT t.limit_lane, t.pool, t.queue, t.pool_slots, t.concurrency_key, t.concurrency_limit, t.task_id
        FROM task_instances t
        WHERE t.run_pk = o.run_pk AND t.state = 'scheduled'
          AND (t.limit_lane, t.pool, t.queue, t.pool_slots, t.concurrency_key)
            > (o.limit_lane, o.pool, o.queue, o.pool_slots, o.concurrency_key)
        ORDER BY t.limit_lane, t.pool, t.queue, t.pool_slots, t.concurrency_key LIMIT 1) l
),
-- A queue whose bucket of tokens is not full has what is in it (a full one: `share` and the engine bound it).
-- A negative cap is none. A pool must exist; other limits' rows are made when first needed, a queue's with cap 1000.
-- In some pools also counts what waits without a worker.
waiting AS MATERIALIZED (
    SELECT l.name, (
        SELECT COALESCE(sum(w.pool_slots), 0) FROM task_instances w
        WHERE w.pool = l.name AND w.state IN ('up_for_reschedule', 'deferred', 'awaiting_input')
          AND (w.state <> 'deferred' OR COALESCE((w.wait ->> 'open')::boolean, false)))::bigint AS slots
    FROM limits l WHERE l.include_deferred
),
free AS (
    SELECT n.*,
        CASE WHEN p.cap < 0 THEN 2147483647 ELSE p.cap - p.used - COALESCE(w.slots, 0) END AS pool_free,
        CASE WHEN q.paused THEN 0 WHEN q.cap IS NULL THEN 1000
             WHEN q.rate_full_at > now() THEN LEAST(CASE WHEN q.cap < 0 THEN 2147483647 ELSE q.cap - q.used END,
                 floor(q.rate_count - EXTRACT(EPOCH FROM q.rate_full_at - now()) * q.rate_count / q.rate_seconds)::bigint)
             WHEN q.cap < 0 THEN 2147483647 ELSE q.cap - q.used END AS queue_free,
        CASE WHEN d.cap IS NULL OR d.cap < 0 THEN 2147483647 ELSE d.cap - d.used END AS dag_task_free,
        CASE WHEN i.cap IS NULL OR i.cap < 0 THEN 2147483647 ELSE i.cap - i.used END AS run_task_free,
        CASE WHEN n.concurrency_key = '' THEN 2147483647 ELSE n.concurrency_limit - COALESCE(k.used, 0) END AS key_free
    FROM lanes n
    JOIN limits p ON p.kind = 'pool' AND p.name = n.pool
    LEFT JOIN waiting w ON w.name = n.pool
    LEFT JOIN limits q ON q.kind = 'queue' AND q.name = n.queue
    LEFT JOIN limits d ON n.limit_lane >= 0 AND d.kind = 'task' AND d.name = n.dag_id || '/' || n.task_id
    LEFT JOIN limits i ON n.limit_lane >= 0 AND i.kind = 'task_in_run' AND i.name = n.run_pk || '/' || n.task_id
    LEFT JOIN limits k ON n.concurrency_key <> '' AND k.kind = 'task_key' AND k.name = n.concurrency_key
),
open_lanes AS (
    SELECT f.*, LEAST(f.room, f.pool_free / GREATEST(f.pool_slots, 1), f.queue_free, f.dag_task_free, f.run_task_free, f.key_free,
            $1)
        AS share
    FROM free f
    WHERE f.pool_free >= f.pool_slots AND f.queue_free > 0 AND f.dag_task_free > 0 AND f.run_task_free > 0
      AND f.key_free > 0
),
picked AS (
    SELECT t.pk, t.priority_weight, t.scheduled_at, n.*
    FROM open_lanes n
    CROSS JOIN LATERAL (
        SELECT t.pk, t.priority_weight, t.scheduled_at FROM task_instances t
        WHERE t.run_pk = n.run_pk AND t.limit_lane = n.limit_lane AND t.pool = n.pool AND t.queue = n.queue
          AND t.pool_slots = n.pool_slots AND t.concurrency_key = n.concurrency_key AND t.state = 'scheduled'
        ORDER BY t.priority_weight DESC, t.scheduled_at, t.pk
        LIMIT GREATEST(n.share, 0)) t
),
within AS (
    SELECT p.*,
        sum(p.pool_slots) OVER (PARTITION BY p.pool ORDER BY p.priority_weight DESC, p.scheduled_at, p.pk) AS of_pool,
        row_number() OVER (PARTITION BY p.queue ORDER BY p.priority_weight DESC, p.scheduled_at, p.pk) AS of_queue,
        row_number() OVER (PARTITION BY p.dag_id, p.task_id, p.limit_lane
                           ORDER BY p.priority_weight DESC, p.scheduled_at, p.pk) AS of_dag_task,
        row_number() OVER (PARTITION BY p.run_pk, p.limit_lane
                           ORDER BY p.priority_weight DESC, p.scheduled_at, p.pk) AS of_run_task,
        row_number() OVER (PARTITION BY p.concurrency_key ORDER BY p.priority_weight DESC, p.scheduled_at, p.pk) AS of_key
    FROM picked p
),
of_runs AS (
    SELECT w.*,
        row_number() OVER (PARTITION BY w.run_pk ORDER BY w.priority_weight DESC, w.scheduled_at, w.pk) AS of_run
    FROM within w
    WHERE w.of_pool <= w.pool_free AND w.of_queue <= w.queue_free
      AND (w.limit_lane < 0 OR (w.of_dag_task <= w.dag_task_free AND w.of_run_task <= w.run_task_free))
      AND w.of_key <= w.key_free
)
SELECT pk, run_pk FROM of_runs WHERE of_run <= room
ORDER BY priority_weight DESC, scheduled_at, pk
LIMIT $1
