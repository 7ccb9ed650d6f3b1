-- The metadata store on PostgreSQL 15+. Rules for changes: ../README.md.
--
-- Names are compared byte by byte (COLLATE "C"): faster in indexes, and the same order as the code's when rows are locked.
-- JSON that belongs to users is `json`, not `jsonb`: it keeps the order of keys, every number as written, and `\u0000`.

-- ---- DAGs

CREATE TABLE dag_versions (
    pk             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id             uuid NOT NULL UNIQUE,
    dag_id         text COLLATE "C" NOT NULL,
    version_number integer NOT NULL CHECK (version_number > 0),
    spec           json NOT NULL,
    spec_hash      text NOT NULL,
    source         text NOT NULL,
    bundle         text,
    -- Positions of tasks that have limits of their own (`max_active_tis_per_dag`, `…_per_dagrun`): their instances are
    -- kept apart in the index of ready instances, see task_instances.limit_lane.
    limited_tasks  integer[] NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL,
    UNIQUE (dag_id, version_number)
);

CREATE TABLE dags (
    dag_id              text COLLATE "C" PRIMARY KEY,
    version_pk          bigint NOT NULL REFERENCES dag_versions (pk),
    -- Here too, because a join would miss a row that was waited for: its new version is not in the snapshot.
    version_number      integer NOT NULL,
    is_paused           boolean NOT NULL,
    is_stale            boolean NOT NULL DEFAULT false,
    description         text,
    owner               text,
    tags                text[] NOT NULL DEFAULT '{}',
    fileloc             text NOT NULL,
    schedule            text,
    max_active_runs     integer NOT NULL CHECK (max_active_runs >= 0),
    max_active_tasks    integer NOT NULL CHECK (max_active_tasks >= 0),
    next_run_after      timestamptz,
    next_logical_date   timestamptz,
    next_interval_start timestamptz,
    next_interval_end   timestamptz,
    last_run_after      timestamptz,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL
);

-- A new DAG's version is inserted before the DAG's row, which names it.
ALTER TABLE dag_versions
    ADD FOREIGN KEY (dag_id) REFERENCES dags (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;

CREATE INDEX dags_due ON dags (next_run_after)
    WHERE next_run_after IS NOT NULL AND NOT is_paused AND NOT is_stale;

CREATE TABLE import_errors (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    filename text COLLATE "C" NOT NULL,
    error    text NOT NULL,
    at       timestamptz NOT NULL
);

-- ---- Runs

CREATE TABLE dag_runs (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version_pk          bigint NOT NULL REFERENCES dag_versions (pk),
    logical_date        timestamptz,
    data_interval_start timestamptz,
    data_interval_end   timestamptz,
    run_after           timestamptz NOT NULL,
    queued_at           timestamptz NOT NULL,
    started_at          timestamptz,
    ended_at            timestamptz,
    -- started_at + timeout_ms, from the run's start on.
    deadline_at         timestamptz,
    timeout_ms          bigint CHECK (timeout_ms > 0),
    max_active_tasks    integer NOT NULL,
    active_tasks        integer NOT NULL DEFAULT 0 CHECK (active_tasks >= 0),
    ready_tasks         integer NOT NULL DEFAULT 0 CHECK (ready_tasks >= 0),
    unfinished_tasks    integer NOT NULL DEFAULT 0 CHECK (unfinished_tasks >= 0),
    failed_leaves       integer NOT NULL DEFAULT 0 CHECK (failed_leaves >= 0),
    cancelled           boolean NOT NULL DEFAULT false,
    -- Has ready instances and room for one, and is not being stopped. Indexes are built on this and not on the counters: an update that leaves it as
    -- it was stays heap-only (HOT), and nearly every update of a run is one.
    can_dispatch        boolean NOT NULL GENERATED ALWAYS AS
        (state = 'running' AND stop_reason IS NULL AND ready_tasks > 0 AND active_tasks < max_active_tasks) STORED,
    dag_id              text COLLATE "C" NOT NULL REFERENCES dags (dag_id),
    run_id              text COLLATE "C" NOT NULL,
    state               text COLLATE "C" NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed')),
    run_type            text COLLATE "C" NOT NULL CHECK (run_type IN ('manual', 'scheduled', 'backfill')),
    triggered_by        text NOT NULL,
    note                text,
    stop_reason         text,
    conf                json NOT NULL,
    params              json NOT NULL,
    UNIQUE (dag_id, run_id),
    CHECK ((state IN ('success', 'failed')) = (ended_at IS NOT NULL))
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05);

CREATE UNIQUE INDEX dag_runs_scheduled_once ON dag_runs (dag_id, logical_date)
    WHERE run_type = 'scheduled' AND logical_date IS NOT NULL;
-- Listings, newest first.
CREATE INDEX dag_runs_by_dag ON dag_runs (dag_id, pk);
CREATE INDEX dag_runs_by_version ON dag_runs (version_pk);
CREATE INDEX dag_runs_dispatchable ON dag_runs (pk) WHERE can_dispatch;
CREATE INDEX dag_runs_queued ON dag_runs (dag_id, run_after, pk) WHERE state = 'queued';
CREATE INDEX dag_runs_unfinished ON dag_runs (pk) WHERE ended_at IS NULL;
CREATE INDEX dag_runs_stopping ON dag_runs (pk) WHERE state = 'running' AND (cancelled OR stop_reason IS NOT NULL);
CREATE INDEX dag_runs_deadline ON dag_runs (deadline_at) WHERE state = 'running' AND deadline_at IS NOT NULL;
CREATE INDEX dag_runs_ended ON dag_runs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE idempotency_keys (
    dag_id       text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    request_hash text NOT NULL,
    run_pk       bigint NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (dag_id, key)
);
CREATE INDEX idempotency_keys_by_run ON idempotency_keys (run_pk);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- ---- Task instances
--
-- Every change of a state writes new entries into those indexes whose predicate it then meets (a column of a predicate
-- defeats HOT), so there are few, and each state is in at most one of the partial ones.

CREATE TABLE task_instances (
    pk              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_pk          bigint NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    fence           bigint NOT NULL CHECK (fence >= 0),
    epoch           bigint NOT NULL,
    scheduled_at    timestamptz,
    queued_at       timestamptz,
    claim_by        timestamptz,
    started_at      timestamptz,
    ended_at        timestamptz,
    next_at         timestamptz,
    attempt         uuid,
    task_idx        integer NOT NULL CHECK (task_idx >= 0),
    map_index       integer NOT NULL CHECK (map_index >= -1),
    try_number      integer NOT NULL CHECK (try_number >= 0),
    max_tries       integer NOT NULL,
    user_failures   integer NOT NULL,
    infra_losses    integer NOT NULL,
    pool_slots      integer NOT NULL CHECK (pool_slots >= 0),
    priority_weight integer NOT NULL,
    expanded_len    integer,
    pid             integer,
    exit_code       integer,
    -- Upstream endings, see `Counters`.
    up_total           integer NOT NULL,
    up_success         integer NOT NULL,
    up_failed          integer NOT NULL,
    up_upstream_failed integer NOT NULL,
    up_skipped         integer NOT NULL,
    up_removed         integer NOT NULL,
    up_setups          integer NOT NULL,
    up_setup_success   integer NOT NULL,
    up_setup_skipped   integer NOT NULL,
    -- The task's position if the task has limits of its own, else -1: an exhausted limit is skipped as one range of the
    -- index of ready instances.
    limit_lane      integer NOT NULL,
    occupies        boolean NOT NULL,
    state           text COLLATE "C" NOT NULL CHECK (state IN (
        'none', 'scheduled', 'queued', 'running', 'success', 'restarting', 'failed', 'up_for_retry', 'up_for_reschedule',
        'upstream_failed', 'skipped', 'deferred', 'removed', 'awaiting_input')),
    task_id         text COLLATE "C" NOT NULL,
    queue           text COLLATE "C" NOT NULL,
    pool            text COLLATE "C" NOT NULL,
    worker          text COLLATE "C",
    hostname        text,
    reason          text,
    map_values      json,
    UNIQUE (run_pk, task_idx, map_index),
    -- An instance between two tries shows when its last one ended.
    CHECK (CASE
        WHEN state IN ('success', 'failed', 'upstream_failed', 'skipped', 'removed') THEN ended_at IS NOT NULL
        WHEN state IN ('scheduled', 'up_for_retry', 'up_for_reschedule') THEN true
        ELSE ended_at IS NULL END),
    CHECK (NOT occupies OR fence > 0),
    CHECK (state <> 'scheduled' OR scheduled_at IS NOT NULL),
    CHECK (state <> 'up_for_retry' OR next_at IS NOT NULL),
    CHECK (state <> 'queued' OR claim_by IS NOT NULL)
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1,
        autovacuum_analyze_scale_factor = 0.05);

-- Lanes of a run, then the best of each lane first: see src/tx/candidates.sql.
CREATE INDEX task_instances_ready ON task_instances
    (run_pk, limit_lane, pool, queue, pool_slots, priority_weight DESC, scheduled_at, pk) WHERE state = 'scheduled';
CREATE INDEX task_instances_retry ON task_instances (next_at, pk) WHERE state = 'up_for_retry';
CREATE INDEX task_instances_queued ON task_instances (claim_by, pk) WHERE state = 'queued';
CREATE INDEX task_instances_running ON task_instances (worker) WHERE state = 'running';
CREATE INDEX task_instances_dead ON task_instances (ended_at) WHERE state = 'failed' AND infra_losses >= 3;

-- Ended attempts. The run stands in it so that a run's attempts are deleted by one range.
CREATE TABLE task_attempts (
    run_pk     bigint NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    ti_pk      bigint NOT NULL,
    fence      bigint NOT NULL CHECK (fence > 0),
    started_at timestamptz,
    ended_at   timestamptz NOT NULL,
    attempt    uuid NOT NULL UNIQUE,
    try_number integer NOT NULL CHECK (try_number > 0),
    pid        integer,
    exit_code  integer,
    ending     text COLLATE "C" NOT NULL
        CHECK (ending IN ('success', 'failed', 'skipped', 'up_for_retry', 'lost', 'requeued')),
    worker     text,
    hostname   text,
    reason     text,
    PRIMARY KEY (run_pk, ti_pk, try_number)
);

CREATE TABLE xcoms (
    run_pk      bigint NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    ti_pk       bigint NOT NULL,
    fence       bigint NOT NULL CHECK (fence >= 0),
    object_size bigint CHECK (object_size >= 0),
    task_idx    integer NOT NULL,
    map_index   integer NOT NULL,
    key         text COLLATE "C" NOT NULL,
    object_key  text,
    value       json,
    -- (run, task, map index) names the instance.
    PRIMARY KEY (run_pk, task_idx, map_index, key),
    CHECK ((value IS NULL) = (object_key IS NOT NULL)),
    CHECK ((object_key IS NULL) = (object_size IS NULL))
);

-- ---- Messages, limits, workers

-- Messages on their way to the broker; short-lived, hence vacuumed often and without further indexes.
CREATE TABLE outbox (
    ti_pk      bigint NOT NULL,
    run_pk     bigint NOT NULL,
    fence      bigint NOT NULL CHECK (fence > 0),
    epoch      bigint NOT NULL,
    claim_by   timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    priority   integer NOT NULL,
    queue      text COLLATE "C" NOT NULL,
    body       text NOT NULL,
    PRIMARY KEY (ti_pk, fence)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

CREATE TABLE limits (
    cap         bigint NOT NULL,
    used        bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    paused      boolean NOT NULL DEFAULT false CHECK (NOT paused OR kind = 'queue'),
    kind        text COLLATE "C" NOT NULL CHECK (kind IN ('dag_runs', 'pool', 'queue', 'task', 'task_in_run')),
    name        text COLLATE "C" NOT NULL,
    description text,
    PRIMARY KEY (kind, name)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

INSERT INTO limits (kind, name, cap, description)
VALUES ('pool', 'default_pool', 128, 'Default pool'), ('queue', 'default', 1000, NULL);

CREATE TABLE workers (
    incarnation text COLLATE "C" PRIMARY KEY,
    state       text COLLATE "C" NOT NULL CHECK (state IN ('alive', 'lost')),
    held_until  timestamptz,
    updated_at  timestamptz NOT NULL
);

CREATE TABLE barriers (
    barrier    uuid NOT NULL,
    shard      integer NOT NULL CHECK (shard >= 0),
    applied_at timestamptz NOT NULL,
    PRIMARY KEY (barrier, shard)
);

-- ---- Parts, users, secrets, records

CREATE TABLE components (
    kind         text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    hostname     text NOT NULL,
    started_at   timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    PRIMARY KEY (kind, id)
) WITH (fillfactor = 50);

CREATE TABLE users (
    username      text COLLATE "C" PRIMARY KEY,
    password_hash text NOT NULL,
    role          text NOT NULL
);

CREATE TABLE api_tokens (
    hash       text COLLATE "C" PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE,
    role       text NOT NULL,
    dag_id     text,
    expires_at timestamptz,
    created_at timestamptz NOT NULL
);

CREATE TABLE secrets (
    kind   text COLLATE "C" NOT NULL CHECK (kind IN ('connection', 'variable')),
    name   text COLLATE "C" NOT NULL,
    sealed text NOT NULL,
    meta   json NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE dead_letters (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL,
    source text NOT NULL,
    reason text NOT NULL,
    body   bytea NOT NULL
);

CREATE TABLE audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    actor   text NOT NULL,
    event   text NOT NULL,
    dag_id  text,
    run_id  text,
    task_id text,
    extra   json NOT NULL
);
