-- Limits shared by task instances of one key, and pools in which also counts what waits without a worker. A CHECK cannot be
-- widened in place: the table is made anew.

CREATE TABLE limits_new (
    kind         TEXT NOT NULL CHECK (kind IN
        ('backfill', 'dag_run_key', 'dag_runs', 'parallelism', 'pool', 'queue', 'task', 'task_in_run', 'task_key')),
    name         TEXT NOT NULL,
    -- -1: unlimited. A cap may be lowered below what is used.
    cap          INTEGER NOT NULL CHECK (cap >= -1),
    used         INTEGER NOT NULL DEFAULT 0 CHECK (used >= 0),
    paused       INTEGER NOT NULL DEFAULT 0 CHECK (paused = 0 OR kind = 'queue'),
    description  TEXT,
    -- A queue's rate: at most rate_count dispatches in rate_seconds, as a bucket of so many tokens. It is full again at
    -- rate_full_at (microseconds); what is missing until then is what was taken.
    rate_count   INTEGER CHECK (rate_count IS NULL OR (rate_count > 0 AND kind = 'queue')),
    rate_seconds INTEGER CHECK (rate_seconds > 0),
    rate_full_at INTEGER,
    include_deferred INTEGER NOT NULL DEFAULT 0 CHECK (include_deferred = 0 OR kind = 'pool'),
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

INSERT INTO limits_new (kind, name, cap, used, paused, description, rate_count, rate_seconds, rate_full_at)
SELECT kind, name, cap, used, paused, description, rate_count, rate_seconds, rate_full_at FROM limits;
DROP TABLE limits;
ALTER TABLE limits_new RENAME TO limits;
CREATE INDEX limits_include_deferred ON limits (name) WHERE include_deferred = 1;

-- The key (`concurrency`) that an instance shares with others, once it was rendered (empty: it shares none), how many may hold
-- it, and what becomes of one more: null if it waits, else cancel_running or cancel_new.
ALTER TABLE task_instances ADD COLUMN concurrency_key TEXT NOT NULL DEFAULT '';
ALTER TABLE task_instances ADD COLUMN concurrency_limit INTEGER;
ALTER TABLE task_instances ADD COLUMN concurrency_strategy TEXT;

-- The key belongs to a lane: see src/statements/candidates.rs of the store.
DROP INDEX task_instances_ready;
CREATE INDEX task_instances_ready ON task_instances
    (run, task_idx, pool, queue, concurrency_key, pool_slots, priority_weight DESC, scheduled_at, pk)
    WHERE state = 'scheduled';
-- Who holds a key, and who does not just wait for one.
CREATE INDEX task_instances_holding ON task_instances (concurrency_key)
    WHERE concurrency_key <> '' AND state IN ('queued', 'running', 'restarting');
CREATE INDEX task_instances_pushing ON task_instances (concurrency_key, scheduled_at, pk)
    WHERE concurrency_strategy IS NOT NULL AND state = 'scheduled';
-- What waits in a pool without a worker.
CREATE INDEX task_instances_waiting_in_pool ON task_instances (pool)
    WHERE state IN ('up_for_reschedule', 'deferred', 'awaiting_input');
