-- Instances that wait without a worker: sensors between looks, triggered DAGs, approvals.

-- What an instance remembers from look to look, see `Wait`.
ALTER TABLE task_instances ADD COLUMN wait json;

CREATE INDEX task_instances_waiting ON task_instances (next_at, pk)
    WHERE state IN ('up_for_reschedule', 'deferred', 'awaiting_input') AND next_at IS NOT NULL;

ALTER TABLE dag_runs
    -- The instance that waits for this run's end; cleared once it was told.
    ADD COLUMN waiter_pk bigint,
    -- How many runs made each other before this one (`trigger_dag`).
    ADD COLUMN trigger_depth integer NOT NULL DEFAULT 0 CHECK (trigger_depth >= 0),
    DROP CONSTRAINT dag_runs_run_type_check,
    ADD CONSTRAINT dag_runs_run_type_check CHECK (run_type IN (
        'manual', 'scheduled', 'backfill', 'operator_triggered', 'asset_triggered', 'asset_materialization'));

CREATE INDEX dag_runs_awaited ON dag_runs (pk) WHERE waiter_pk IS NOT NULL AND ended_at IS NOT NULL;
-- Sensors of other DAGs ask by date.
CREATE INDEX dag_runs_by_date ON dag_runs (dag_id, logical_date) WHERE logical_date IS NOT NULL;

-- What is asked of people, one row a try.
CREATE TABLE approvals (
    run_pk         bigint NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    ti_pk          bigint NOT NULL,
    try_number     integer NOT NULL CHECK (try_number > 0),
    created_at     timestamptz NOT NULL,
    due_at         timestamptz,
    answered_at    timestamptz,
    prompt         text NOT NULL,
    options        text[] NOT NULL,
    who            text[] NOT NULL,
    default_answer text,
    answer         text,
    answered_by    text,
    PRIMARY KEY (run_pk, ti_pk, try_number),
    CHECK ((answer IS NULL) = (answered_at IS NULL)),
    CHECK ((answer IS NULL) = (answered_by IS NULL))
);
CREATE INDEX approvals_by_instance ON approvals (ti_pk, try_number);
CREATE INDEX approvals_by_age ON approvals (created_at);
