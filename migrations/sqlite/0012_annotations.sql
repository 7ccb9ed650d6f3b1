-- What people add beside what the engine decides: notes on task instances (a table of their own, so that no ending has to
-- carry them), and the DAGs that they like.

CREATE TABLE task_notes (
    ti   INTEGER PRIMARY KEY REFERENCES task_instances (pk) ON DELETE CASCADE,
    note TEXT NOT NULL
) STRICT;

CREATE TABLE dag_favorites (
    username TEXT NOT NULL,
    dag_id   TEXT NOT NULL REFERENCES dags (dag_id) ON DELETE CASCADE,
    PRIMARY KEY (username, dag_id)
) STRICT;
CREATE INDEX dag_favorites_by_dag ON dag_favorites (dag_id);
