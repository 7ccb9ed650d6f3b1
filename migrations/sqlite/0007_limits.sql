-- Rates of queues, the deployment's parallelism, and limits shared by runs of one key. A CHECK cannot be widened in place: the table is made anew.

CREATE TABLE limits_new (
    kind         TEXT NOT NULL CHECK (kind IN
        ('backfill', 'dag_run_key', 'dag_runs', 'parallelism', 'pool', 'queue', 'task', 'task_in_run')),
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
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

INSERT INTO limits_new (kind, name, cap, used, paused, description)
SELECT kind, name, cap, used, paused, description FROM limits;
DROP TABLE limits;
ALTER TABLE limits_new RENAME TO limits;

-- The key of the limit (`concurrency`) that a run shares with others, once it was rendered; empty: it shares none. And the
-- one that it was found to wait for.
ALTER TABLE dag_runs ADD COLUMN concurrency_key TEXT;
ALTER TABLE dag_runs ADD COLUMN waits_for_key TEXT;
