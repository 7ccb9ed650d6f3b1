-- Why a run was stopped whose teardowns go on: while `stop_reason` is set as well, all else is being ended; after that, the
-- teardowns run.
ALTER TABLE dag_runs ADD COLUMN clean_up TEXT;
