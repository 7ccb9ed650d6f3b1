-- What people add beside what the engine decides: notes on task instances (a table of their own, so that no ending has to
-- carry them), and the DAGs that they like.

CREATE TABLE task_notes (
    run_pk bigint NOT NULL REFERENCES dag_runs (pk) ON DELETE CASCADE,
    ti_pk  bigint NOT NULL,
    note   text NOT NULL,
    PRIMARY KEY (run_pk, ti_pk)
);
CREATE INDEX task_notes_by_instance ON task_notes (ti_pk);

CREATE TABLE dag_favorites (
    username text COLLATE "C" NOT NULL,
    dag_id   text COLLATE "C" NOT NULL REFERENCES dags (dag_id) ON DELETE CASCADE,
    PRIMARY KEY (username, dag_id)
);
CREATE INDEX dag_favorites_by_dag ON dag_favorites (dag_id);
