-- Callbacks that are called, written with what they tell of and delivered later; deadlines that were missed.

CREATE TABLE callbacks (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    run        INTEGER NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    -- NULL: of the run itself.
    ti         INTEGER,
    map_index  INTEGER NOT NULL,
    try_number INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- The status of the last answer, if there was one.
    status     INTEGER,
    created_at INTEGER NOT NULL,
    -- Of one that is pending: when it is delivered next, or when whoever is at it has given up.
    next_at    INTEGER,
    give_up_at INTEGER NOT NULL,
    ended_at   INTEGER,
    task_id    TEXT,
    event      TEXT NOT NULL
        CHECK (event IN ('on_success', 'on_failure', 'on_retry', 'on_skipped', 'on_waiting', 'deadline')),
    state      TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    -- What deliveries share that one server answers, or does not.
    target     TEXT NOT NULL,
    error      TEXT,
    -- JSON; NULL: it could not be made, see `error`.
    webhook    TEXT,
    body       TEXT NOT NULL,
    CHECK ((state = 'pending') = (next_at IS NOT NULL)),
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK (state = 'failed' OR webhook IS NOT NULL)
) STRICT;
CREATE INDEX callbacks_due ON callbacks (next_at, id) WHERE state = 'pending';
CREATE INDEX callbacks_by_run ON callbacks (run, id);

-- The earliest deadline of the run that has not been looked at; a run keeps it beyond its end until then.
ALTER TABLE dag_runs ADD COLUMN next_deadline INTEGER;
CREATE INDEX dag_runs_next_deadline ON dag_runs (next_deadline, pk) WHERE next_deadline IS NOT NULL;

CREATE TABLE missed_deadlines (
    run       INTEGER NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    -- Empty: the run's own.
    task_id   TEXT NOT NULL,
    -- Which of the DAG's deadlines, or of the task's.
    position  INTEGER NOT NULL,
    due_at    INTEGER NOT NULL,
    missed_at INTEGER NOT NULL,
    PRIMARY KEY (run, task_id, position)
) STRICT, WITHOUT ROWID;
