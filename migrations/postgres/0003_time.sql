-- Schedules that skip, cancel or pause; backfills; assets.

ALTER TABLE dags
    ADD COLUMN overlap      text COLLATE "C" NOT NULL DEFAULT 'queue' CHECK (overlap IN ('queue', 'skip', 'cancel')),
    -- Why it is paused, if it was not a user.
    ADD COLUMN pause_reason text,
    -- Failed runs in a row are counted from here on.
    ADD COLUMN unpaused_at  timestamptz;

CREATE INDEX dags_overlapping ON dags (dag_id) WHERE overlap = 'cancel' AND NOT is_paused;

-- ---- Backfills

CREATE TABLE backfills (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id             text COLLATE "C" NOT NULL REFERENCES dags (dag_id) ON DELETE CASCADE,
    from_date          timestamptz NOT NULL,
    to_date            timestamptz NOT NULL,
    run_backwards      boolean NOT NULL,
    max_active_runs    integer NOT NULL CHECK (max_active_runs > 0),
    reprocess_behavior text COLLATE "C" NOT NULL CHECK (reprocess_behavior IN ('none', 'failed', 'completed')),
    conf               json NOT NULL,
    is_paused          boolean NOT NULL DEFAULT false,
    -- Dates for which no run was made, because they have one.
    left_out           integer NOT NULL CHECK (left_out >= 0),
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    cancelled_at       timestamptz,
    CHECK (from_date <= to_date)
);
CREATE INDEX backfills_by_dag ON backfills (dag_id, id);

ALTER TABLE dag_runs
    -- Never changes. No foreign key: a backfill is deleted with its DAG, and so are its runs.
    ADD COLUMN backfill_id bigint CHECK (backfill_id IS NULL OR run_type = 'backfill'),
    DROP CONSTRAINT dag_runs_run_type_check,
    ADD CONSTRAINT dag_runs_run_type_check CHECK (run_type IN
        ('manual', 'scheduled', 'backfill', 'operator_triggered', 'asset_triggered', 'asset_materialization'));

-- Runs of backfills start by another rule, and there may be many: apart from the others.
DROP INDEX dag_runs_queued;
CREATE INDEX dag_runs_queued ON dag_runs (dag_id, run_after, pk) WHERE state = 'queued' AND backfill_id IS NULL;
CREATE INDEX dag_runs_backfill_queued ON dag_runs (backfill_id, pk) WHERE state = 'queued' AND backfill_id IS NOT NULL;
CREATE INDEX dag_runs_by_backfill ON dag_runs (backfill_id, pk) WHERE backfill_id IS NOT NULL;

ALTER TABLE limits
    DROP CONSTRAINT limits_kind_check,
    ADD CONSTRAINT limits_kind_check CHECK (kind IN ('backfill', 'dag_runs', 'pool', 'queue', 'task', 'task_in_run'));

-- ---- Assets

CREATE TABLE assets (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    name       text COLLATE "C" NOT NULL UNIQUE,
    uri        text NOT NULL,
    grp        text NOT NULL,
    extra      json NOT NULL
);

-- What the current version of each DAG says of assets: who waits for them, reads them, updates them.
CREATE TABLE asset_references (
    asset_id   bigint NOT NULL REFERENCES assets (id),
    created_at timestamptz NOT NULL,
    dag_id     text COLLATE "C" NOT NULL REFERENCES dags (dag_id) ON DELETE CASCADE,
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('schedule', 'inlet', 'outlet')),
    -- Empty for a schedule.
    task_id    text COLLATE "C" NOT NULL CHECK ((task_id = '') = (kind = 'schedule')),
    PRIMARY KEY (asset_id, kind, dag_id, task_id)
);
CREATE INDEX asset_references_by_dag ON asset_references (dag_id);

CREATE TABLE asset_events (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset_id  bigint NOT NULL REFERENCES assets (id),
    at        timestamptz NOT NULL,
    map_index integer,
    -- The task instance that updated it; absent: a user.
    dag_id    text COLLATE "C",
    run_id    text COLLATE "C",
    task_id   text COLLATE "C",
    extra     json NOT NULL,
    CHECK ((dag_id IS NULL) = (run_id IS NULL) AND (dag_id IS NULL) = (task_id IS NULL))
);
CREATE INDEX asset_events_by_asset ON asset_events (asset_id, id);
CREATE INDEX asset_events_by_age ON asset_events (at);

-- Events that wait for the next run of a DAG with a schedule by assets.
CREATE TABLE asset_queue (
    event_id bigint NOT NULL REFERENCES asset_events (id) ON DELETE CASCADE,
    asset_id bigint NOT NULL,
    -- The schedule's condition was evaluated with it, and did not hold.
    looked   boolean NOT NULL DEFAULT false,
    -- No foreign key: an ending must not meet the deletion of a DAG that waits for its assets.
    dag_id   text COLLATE "C" NOT NULL,
    PRIMARY KEY (dag_id, event_id)
);
CREATE INDEX asset_queue_new ON asset_queue (dag_id) WHERE NOT looked;
CREATE INDEX asset_queue_by_event ON asset_queue (event_id);

-- The events that made a run.
CREATE TABLE run_asset_events (
    run_pk   bigint NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    event_id bigint NOT NULL REFERENCES asset_events (id) ON DELETE CASCADE,
    PRIMARY KEY (run_pk, event_id)
);
CREATE INDEX run_asset_events_by_event ON run_asset_events (event_id);
