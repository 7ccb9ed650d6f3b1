-- Rates of queues, the deployment's parallelism, and limits shared by runs of one key.

ALTER TABLE limits DROP CONSTRAINT limits_kind_check;
ALTER TABLE limits ADD CONSTRAINT limits_kind_check
    CHECK (kind IN ('backfill', 'dag_run_key', 'dag_runs', 'parallelism', 'pool', 'queue', 'task', 'task_in_run'));

-- A queue's rate: at most rate_count dispatches in rate_seconds, as a bucket of so many tokens. It is full again at
-- rate_full_at; what is missing until then is what was taken.
ALTER TABLE limits
    ADD COLUMN rate_count   bigint CHECK (rate_count IS NULL OR (rate_count > 0 AND kind = 'queue')),
    ADD COLUMN rate_seconds bigint CHECK (rate_seconds > 0),
    ADD COLUMN rate_full_at timestamptz;

-- The key of the limit (`concurrency`) that a run shares with others, once it was rendered; empty: it shares none. And the
-- one that it was found to wait for.
ALTER TABLE dag_runs ADD COLUMN concurrency_key text COLLATE "C";
ALTER TABLE dag_runs ADD COLUMN waits_for_key text COLLATE "C";
