-- The metadata schema of `gristmill standalone`. Table and column names are those of the Postgres schema.
--
-- Conventions
--   times      INTEGER, microseconds since the Unix epoch, UTC
--   flags      INTEGER, 0 or 1
--   documents  TEXT holding JSON
--   UUIDs      TEXT, hyphenated, lower case
--   keys       AUTOINCREMENT where a key must never be used again: messages, leases and XCom objects outlive rows

CREATE TABLE dags (
    dag_id              TEXT NOT NULL PRIMARY KEY,
    is_paused           INTEGER NOT NULL CHECK (is_paused IN (0, 1)),
    is_stale            INTEGER NOT NULL DEFAULT 0 CHECK (is_stale IN (0, 1)),
    description         TEXT,
    owner               TEXT,
    tags                TEXT NOT NULL DEFAULT '[]',
    fileloc             TEXT NOT NULL,
    schedule            TEXT,
    max_active_runs     INTEGER NOT NULL,
    max_active_tasks    INTEGER NOT NULL,
    next_run_after      INTEGER,
    next_logical_date   INTEGER,
    next_interval_start INTEGER,
    next_interval_end   INTEGER,
    last_run_after      INTEGER,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX dags_due ON dags (next_run_after) WHERE is_paused = 0 AND is_stale = 0;

-- The newest version of a DAG is its current one.
CREATE TABLE dag_versions (
    pk             INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE,
    dag_id         TEXT NOT NULL REFERENCES dags (dag_id),
    version_number INTEGER NOT NULL CHECK (version_number > 0),
    spec           TEXT NOT NULL,
    spec_hash      TEXT NOT NULL,
    source         TEXT NOT NULL,
    bundle         TEXT,
    created_at     INTEGER NOT NULL,
    UNIQUE (dag_id, version_number)
) STRICT;

CREATE TABLE dag_runs (
    pk                  INTEGER PRIMARY KEY AUTOINCREMENT,
    dag_id              TEXT NOT NULL REFERENCES dags (dag_id),
    run_id              TEXT NOT NULL,
    version             INTEGER NOT NULL REFERENCES dag_versions (pk),
    state               TEXT NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed')),
    run_type            TEXT NOT NULL CHECK (run_type IN (
                            'manual', 'scheduled', 'backfill', 'operator_triggered', 'asset_triggered',
                            'asset_materialization')),
    triggered_by        TEXT NOT NULL,
    logical_date        INTEGER,
    data_interval_start INTEGER,
    data_interval_end   INTEGER,
    run_after           INTEGER NOT NULL,
    queued_at           INTEGER NOT NULL,
    started_at          INTEGER,
    ended_at            INTEGER,
    -- Milliseconds from the start after which the run is stopped; deadline_at follows from it when the run starts.
    timeout_ms          INTEGER,
    deadline_at         INTEGER,
    conf                TEXT NOT NULL,
    params              TEXT NOT NULL,
    note                TEXT,
    cancelled           INTEGER NOT NULL DEFAULT 0 CHECK (cancelled IN (0, 1)),
    stop_reason         TEXT,
    max_active_tasks    INTEGER NOT NULL,
    active_tasks        INTEGER NOT NULL DEFAULT 0 CHECK (active_tasks >= 0),
    ready_tasks         INTEGER NOT NULL DEFAULT 0 CHECK (ready_tasks >= 0),
    unfinished_tasks    INTEGER NOT NULL DEFAULT 0 CHECK (unfinished_tasks >= 0),
    failed_leaves       INTEGER NOT NULL DEFAULT 0 CHECK (failed_leaves >= 0),
    -- The request's idempotency key and the hash of its body; cleared after 24 hours.
    idempotency_key     TEXT,
    idempotency_hash    TEXT,
    UNIQUE (dag_id, run_id),
    CHECK ((state IN ('success', 'failed')) = (ended_at IS NOT NULL)),
    CHECK ((idempotency_key IS NULL) = (idempotency_hash IS NULL))
) STRICT;

CREATE UNIQUE INDEX dag_runs_scheduled ON dag_runs (dag_id, logical_date) WHERE run_type = 'scheduled';
CREATE UNIQUE INDEX dag_runs_idempotency ON dag_runs (dag_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX dag_runs_queued ON dag_runs (run_after, pk) WHERE state = 'queued';
CREATE INDEX dag_runs_running ON dag_runs (pk) WHERE state = 'running';
CREATE INDEX dag_runs_version ON dag_runs (version);
-- Retention, oldest ending first.
CREATE INDEX dag_runs_ended ON dag_runs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE task_instances (
    pk              INTEGER PRIMARY KEY AUTOINCREMENT,
    run             INTEGER NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    task_idx        INTEGER NOT NULL,
    task_id         TEXT NOT NULL,
    map_index       INTEGER NOT NULL CHECK (map_index >= -1),
    state           TEXT NOT NULL CHECK (state IN (
                        'none', 'scheduled', 'queued', 'running', 'success', 'restarting', 'failed', 'up_for_retry',
                        'up_for_reschedule', 'upstream_failed', 'skipped', 'deferred', 'removed', 'awaiting_input')),
    fence           INTEGER NOT NULL CHECK (fence >= 0),
    try_number      INTEGER NOT NULL CHECK (try_number >= 0),
    max_tries       INTEGER NOT NULL,
    user_failures   INTEGER NOT NULL,
    infra_losses    INTEGER NOT NULL,
    attempt         TEXT,
    epoch           INTEGER NOT NULL,
    queue           TEXT NOT NULL,
    pool            TEXT NOT NULL,
    pool_slots      INTEGER NOT NULL CHECK (pool_slots >= 0),
    priority_weight INTEGER NOT NULL,
    occupies        INTEGER NOT NULL CHECK (occupies IN (0, 1)),
    -- JSON array: total, success, failed, upstream_failed, skipped, removed, setups, setup_success, setup_skipped.
    counters        TEXT NOT NULL,
    expanded_len    INTEGER,
    map_values      TEXT,
    scheduled_at    INTEGER,
    queued_at       INTEGER,
    claim_by        INTEGER,
    started_at      INTEGER,
    -- Of the last attempt; an instance that waits for its next try keeps it.
    ended_at        INTEGER,
    next_at         INTEGER,
    worker          TEXT,
    hostname        TEXT,
    pid             INTEGER,
    exit_code       INTEGER,
    reason          TEXT,
    UNIQUE (run, task_idx, map_index),
    CHECK (occupies = 0 OR fence > 0),
    CHECK (ended_at IS NOT NULL OR state NOT IN ('success', 'failed', 'upstream_failed', 'skipped', 'removed')),
    CHECK (ended_at IS NULL OR state NOT IN ('queued', 'running')),
    CHECK (state <> 'scheduled' OR scheduled_at IS NOT NULL),
    CHECK (state <> 'queued' OR claim_by IS NOT NULL),
    CHECK (state <> 'up_for_retry' OR next_at IS NOT NULL)
) STRICT;

-- By lane (what may be blocked apart), then the best of each first: see src/statements/candidates.rs of the store.
CREATE INDEX task_instances_ready ON task_instances
    (run, task_idx, pool, queue, pool_slots, priority_weight DESC, scheduled_at, pk) WHERE state = 'scheduled';
CREATE INDEX task_instances_retry ON task_instances (next_at) WHERE state = 'up_for_retry';
CREATE INDEX task_instances_claim ON task_instances (claim_by) WHERE state = 'queued';
CREATE INDEX task_instances_worker ON task_instances (worker) WHERE state IN ('queued', 'running');
-- The dead list.
CREATE INDEX task_instances_dead ON task_instances (ended_at) WHERE state = 'failed' AND infra_losses > 0;

CREATE TABLE task_attempts (
    ti         INTEGER NOT NULL REFERENCES task_instances (pk) ON DELETE CASCADE,
    try_number INTEGER NOT NULL,
    attempt    TEXT NOT NULL UNIQUE,
    fence      INTEGER NOT NULL CHECK (fence > 0),
    ending     TEXT NOT NULL,
    started_at INTEGER,
    ended_at   INTEGER NOT NULL,
    worker     TEXT,
    hostname   TEXT,
    pid        INTEGER,
    exit_code  INTEGER,
    reason     TEXT,
    -- An attempt ends once.
    PRIMARY KEY (ti, try_number)
) STRICT, WITHOUT ROWID;

-- Values are up to 32 KiB: a rowid table, so that the unique index stays dense.
CREATE TABLE xcoms (
    run       INTEGER NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    ti        INTEGER NOT NULL,
    task_idx  INTEGER NOT NULL,
    map_index INTEGER NOT NULL,
    key       TEXT NOT NULL,
    fence     INTEGER NOT NULL,
    value     TEXT,
    object    TEXT,
    size      INTEGER,
    -- (run, task_idx, map_index) is one task instance.
    UNIQUE (run, task_idx, map_index, key),
    CHECK ((value IS NULL) = (object IS NOT NULL)),
    CHECK ((object IS NULL) = (size IS NULL))
) STRICT;

-- Small: a row is deleted as soon as the broker has confirmed its message, or with its run. No foreign key: it would be
-- checked on every dispatch.
CREATE TABLE outbox (
    run        INTEGER NOT NULL,
    ti         INTEGER NOT NULL,
    fence      INTEGER NOT NULL CHECK (fence > 0),
    queue      TEXT NOT NULL,
    body       TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    claim_by   INTEGER NOT NULL,
    priority   INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    PRIMARY KEY (ti, fence)
) STRICT;

CREATE TABLE limits (
    kind        TEXT NOT NULL CHECK (kind IN ('backfill', 'dag_runs', 'pool', 'queue', 'task', 'task_in_run')),
    name        TEXT NOT NULL,
    -- -1: unlimited. A cap may be lowered below what is used.
    cap         INTEGER NOT NULL CHECK (cap >= -1),
    used        INTEGER NOT NULL DEFAULT 0 CHECK (used >= 0),
    paused      INTEGER NOT NULL DEFAULT 0 CHECK (paused = 0 OR kind = 'queue'),
    description TEXT,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

INSERT INTO limits (kind, name, cap, description)
VALUES ('pool', 'default_pool', 128, 'Tasks that name no pool');

CREATE TABLE workers (
    incarnation TEXT NOT NULL PRIMARY KEY,
    state       TEXT NOT NULL CHECK (state IN ('alive', 'lost')),
    held_until  INTEGER,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE barriers (
    barrier    TEXT NOT NULL,
    shard      INTEGER NOT NULL,
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (barrier, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE components (
    kind         TEXT NOT NULL,
    id           TEXT NOT NULL,
    hostname     TEXT NOT NULL,
    started_at   INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    username      TEXT NOT NULL PRIMARY KEY,
    password_hash TEXT NOT NULL,
    role          TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_tokens (
    hash       TEXT NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    role       TEXT NOT NULL,
    dag_id     TEXT,
    expires_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
    kind       TEXT NOT NULL CHECK (kind IN ('connection', 'variable')),
    name       TEXT NOT NULL,
    sealed     TEXT NOT NULL,
    meta       TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE import_errors (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    filename TEXT NOT NULL,
    error    TEXT NOT NULL,
    at       INTEGER NOT NULL
) STRICT;

CREATE TABLE dead_letters (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    body   TEXT NOT NULL,
    at     INTEGER NOT NULL
) STRICT;

CREATE TABLE audit_log (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    event   TEXT NOT NULL,
    dag_id  TEXT,
    run_id  TEXT,
    task_id TEXT,
    extra   TEXT NOT NULL
) STRICT;
