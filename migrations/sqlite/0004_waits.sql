-- Instances that wait without a worker: sensors between looks, triggered DAGs, approvals. The widened CHECKs stand in 0001.

-- What an instance remembers from look to look, see `Wait`; JSON.
ALTER TABLE task_instances ADD COLUMN wait TEXT;

CREATE INDEX task_instances_waiting ON task_instances (next_at, pk)
    WHERE state IN ('up_for_reschedule', 'deferred', 'awaiting_input') AND next_at IS NOT NULL;

-- The instance that waits for this run's end; cleared once it was told.
ALTER TABLE dag_runs ADD COLUMN waiter INTEGER;
-- How many runs made each other before this one (`trigger_dag`).
ALTER TABLE dag_runs ADD COLUMN trigger_depth INTEGER NOT NULL DEFAULT 0 CHECK (trigger_depth >= 0);

CREATE INDEX dag_runs_awaited ON dag_runs (pk) WHERE waiter IS NOT NULL AND ended_at IS NOT NULL;
-- Sensors of other DAGs ask by date.
CREATE INDEX dag_runs_by_date ON dag_runs (dag_id, logical_date) WHERE logical_date IS NOT NULL;

-- What is asked of people, one row a try.
CREATE TABLE approvals (
    ti             INTEGER NOT NULL REFERENCES task_instances (pk) ON DELETE CASCADE,
    try_number     INTEGER NOT NULL CHECK (try_number > 0),
    run            INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    due_at         INTEGER,
    answered_at    INTEGER,
    prompt         TEXT NOT NULL,
    -- JSON arrays.
    options        TEXT NOT NULL,
    who            TEXT NOT NULL,
    default_answer TEXT,
    answer         TEXT,
    answered_by    TEXT,
    PRIMARY KEY (ti, try_number),
    CHECK ((answer IS NULL) = (answered_at IS NULL)),
    CHECK ((answer IS NULL) = (answered_by IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX approvals_by_run ON approvals (run);
CREATE INDEX approvals_by_age ON approvals (created_at);
