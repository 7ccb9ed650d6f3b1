-- Clear and mark: what an instance in state `restarting` becomes once its dispatch is over. NULL: it waits anew. In any other
-- state it means nothing, so that the statement that every ending runs need not write it.
ALTER TABLE task_instances ADD COLUMN then_state TEXT
    CHECK (then_state IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed'));

DROP INDEX task_instances_worker;
CREATE INDEX task_instances_worker ON task_instances (worker) WHERE state IN ('queued', 'running', 'restarting');
CREATE INDEX task_instances_restarting ON task_instances (pk) WHERE state = 'restarting';
