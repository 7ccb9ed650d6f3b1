-- Callbacks that are called, written with what they tell of and delivered later; deadlines that were missed.

CREATE TABLE callbacks (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_pk     bigint NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    -- NULL: of the run itself.
    ti_pk      bigint,
    map_index  integer NOT NULL,
    try_number integer NOT NULL,
    position   integer NOT NULL,
    attempts   integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- The status of the last answer, if there was one.
    status     integer,
    created_at timestamptz NOT NULL,
    -- Of one that is pending: when it is delivered next, or when whoever is at it has given up.
    next_at    timestamptz,
    give_up_at timestamptz NOT NULL,
    ended_at   timestamptz,
    task_id    text COLLATE "C",
    event      text COLLATE "C" NOT NULL
        CHECK (event IN ('on_success', 'on_failure', 'on_retry', 'on_skipped', 'on_waiting', 'deadline')),
    state      text COLLATE "C" NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    -- What deliveries share that one server answers, or does not.
    target     text COLLATE "C" NOT NULL,
    error      text,
    -- NULL: it could not be made, see `error`.
    webhook    json,
    body       json NOT NULL,
    CHECK ((state = 'pending') = (next_at IS NOT NULL)),
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK (state = 'failed' OR webhook IS NOT NULL)
);
CREATE INDEX callbacks_due ON callbacks (next_at, id) WHERE state = 'pending';
CREATE INDEX callbacks_by_run ON callbacks (run_pk, id);

-- The earliest deadline of the run that has not been looked at; a run keeps it beyond its end until then.
ALTER TABLE dag_runs ADD COLUMN next_deadline timestamptz;
CREATE INDEX dag_runs_next_deadline ON dag_runs (next_deadline, pk) WHERE next_deadline IS NOT NULL;

CREATE TABLE missed_deadlines (
    run_pk    bigint NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    -- Which of the DAG's deadlines, or of the task's.
    position  integer NOT NULL,
    due_at    timestamptz NOT NULL,
    missed_at timestamptz NOT NULL,
    -- Empty: the run's own.
    task_id   text COLLATE "C" NOT NULL,
    PRIMARY KEY (run_pk, task_id, position)
);
