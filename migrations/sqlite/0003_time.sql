-- Schedules that skip, cancel or pause; backfills; assets.

ALTER TABLE dags ADD COLUMN overlap TEXT NOT NULL DEFAULT 'queue' CHECK (overlap IN ('queue', 'skip', 'cancel'));
-- Why it is paused, if it was not a user.
ALTER TABLE dags ADD COLUMN pause_reason TEXT;
-- Failed runs in a row are counted from here on.
ALTER TABLE dags ADD COLUMN unpaused_at INTEGER;

CREATE INDEX dags_overlapping ON dags (dag_id) WHERE overlap = 'cancel' AND is_paused = 0;

-- ---- Backfills

CREATE TABLE backfills (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    dag_id             TEXT NOT NULL REFERENCES dags (dag_id) ON DELETE CASCADE,
    from_date          INTEGER NOT NULL,
    to_date            INTEGER NOT NULL,
    run_backwards      INTEGER NOT NULL CHECK (run_backwards IN (0, 1)),
    max_active_runs    INTEGER NOT NULL CHECK (max_active_runs > 0),
    reprocess_behavior TEXT NOT NULL CHECK (reprocess_behavior IN ('none', 'failed', 'completed')),
    conf               TEXT NOT NULL,
    is_paused          INTEGER NOT NULL DEFAULT 0 CHECK (is_paused IN (0, 1)),
    -- Dates for which no run was made, because they have one.
    left_out           INTEGER NOT NULL CHECK (left_out >= 0),
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    cancelled_at       INTEGER,
    CHECK (from_date <= to_date)
) STRICT;
CREATE INDEX backfills_by_dag ON backfills (dag_id, id);

-- Never changes. No foreign key: a backfill is deleted with its DAG, and so are its runs.
ALTER TABLE dag_runs ADD COLUMN backfill_id INTEGER CHECK (backfill_id IS NULL OR run_type = 'backfill');
CREATE INDEX dag_runs_by_backfill ON dag_runs (backfill_id, pk) WHERE backfill_id IS NOT NULL;

-- ---- Assets

CREATE TABLE assets (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    uri        TEXT NOT NULL,
    grp        TEXT NOT NULL,
    extra      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- What the current version of each DAG says of assets: who waits for them, reads them, updates them.
CREATE TABLE asset_references (
    asset_id   INTEGER NOT NULL REFERENCES assets (id),
    kind       TEXT NOT NULL CHECK (kind IN ('schedule', 'inlet', 'outlet')),
    dag_id     TEXT NOT NULL REFERENCES dags (dag_id) ON DELETE CASCADE,
    -- Empty for a schedule.
    task_id    TEXT NOT NULL CHECK ((task_id = '') = (kind = 'schedule')),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (asset_id, kind, dag_id, task_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX asset_references_by_dag ON asset_references (dag_id);

CREATE TABLE asset_events (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    asset_id  INTEGER NOT NULL REFERENCES assets (id),
    at        INTEGER NOT NULL,
    -- The task instance that updated it; absent: a user.
    dag_id    TEXT,
    run_id    TEXT,
    task_id   TEXT,
    map_index INTEGER,
    extra     TEXT NOT NULL,
    CHECK ((dag_id IS NULL) = (run_id IS NULL) AND (dag_id IS NULL) = (task_id IS NULL))
) STRICT;
CREATE INDEX asset_events_by_asset ON asset_events (asset_id, id);
CREATE INDEX asset_events_by_age ON asset_events (at);

-- Events that wait for the next run of a DAG with a schedule by assets.
CREATE TABLE asset_queue (
    dag_id   TEXT NOT NULL,
    event_id INTEGER NOT NULL REFERENCES asset_events (id) ON DELETE CASCADE,
    asset_id INTEGER NOT NULL,
    -- The schedule's condition was evaluated with it, and did not hold.
    looked   INTEGER NOT NULL DEFAULT 0 CHECK (looked IN (0, 1)),
    PRIMARY KEY (dag_id, event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX asset_queue_new ON asset_queue (dag_id) WHERE looked = 0;
CREATE INDEX asset_queue_by_event ON asset_queue (event_id);

-- The events that made a run.
CREATE TABLE run_asset_events (
    run      INTEGER NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    event_id INTEGER NOT NULL REFERENCES asset_events (id) ON DELETE CASCADE,
    PRIMARY KEY (run, event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_asset_events_by_event ON run_asset_events (event_id);
