-- Limits shared by task instances of one key, and pools in which also counts what waits without a worker.

ALTER TABLE limits DROP CONSTRAINT limits_kind_check;
ALTER TABLE limits ADD CONSTRAINT limits_kind_check CHECK (kind IN (
    'backfill', 'dag_run_key', 'dag_runs', 'parallelism', 'pool', 'queue', 'task', 'task_in_run', 'task_key'));

ALTER TABLE limits ADD COLUMN include_deferred boolean NOT NULL DEFAULT false
    CHECK (NOT include_deferred OR kind = 'pool');
CREATE INDEX limits_include_deferred ON limits (name) WHERE include_deferred;

-- The key (`concurrency`) that an instance shares with others, once it was rendered (empty: it shares none), how many may hold
-- it, and what becomes of one more: null if it waits, else cancel_running or cancel_new.
ALTER TABLE task_instances
    ADD COLUMN concurrency_key text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN concurrency_limit integer,
    ADD COLUMN concurrency_strategy text;

-- The key belongs to a lane: see candidates.sql of the store.
DROP INDEX task_instances_ready;
CREATE INDEX task_instances_ready ON task_instances
    (run_pk, limit_lane, pool, queue, pool_slots, concurrency_key, priority_weight DESC, scheduled_at, pk)
    WHERE state = 'scheduled';
-- Who holds a key, and who does not just wait for one.
CREATE INDEX task_instances_holding ON task_instances (concurrency_key)
    WHERE concurrency_key <> '' AND state IN ('queued', 'running', 'restarting');
CREATE INDEX task_instances_pushing ON task_instances (concurrency_key, scheduled_at, pk)
    WHERE concurrency_strategy IS NOT NULL AND state = 'scheduled';
-- What waits in a pool without a worker.
CREATE INDEX task_instances_waiting_in_pool ON task_instances (pool)
    WHERE state IN ('up_for_reschedule', 'deferred', 'awaiting_input');
