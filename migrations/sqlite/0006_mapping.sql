-- What map_index_template calls an instance of a mapped task.
ALTER TABLE task_instances ADD COLUMN map_name TEXT;
