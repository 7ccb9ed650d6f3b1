//! All SQL, by noun: methods of [`crate::session::Session`].
//!
//! Rows are read from one `json_array(…)` column, whose order is the order of the fields of a `…Record`; sets of keys and
//! rows to write arrive as one JSON parameter (see [`crate::codec`]).

mod access;
mod amend;
mod annotations;
mod assets;
mod backfills;
mod calls;
mod candidates;
mod dag_queries;
mod dags;
mod limits;
mod listing;
mod outbox;
mod queues;
mod retention;
mod run_queries;
mod runs;
mod schema;
mod shared_limits;
mod starts;
mod task_instances;
mod waits;
mod workers;
mod xcoms;
