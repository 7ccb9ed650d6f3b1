-- Nodes that wait for the run before (`depends_on_past`) are looked at as others are that wait without a worker.
DROP INDEX task_instances_waiting;
CREATE INDEX task_instances_waiting ON task_instances (next_at, pk)
    WHERE state IN ('none', 'up_for_reschedule', 'deferred', 'awaiting_input') AND next_at IS NOT NULL;
