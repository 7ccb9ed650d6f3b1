//! The data engine of Gristmill: one task instance's share of a `data` task, as one process.
//!
//! A worker starts `gristmill-data` once per task instance: `plan` lists the sources and cuts them into partitions,
//! `part` runs `map_sql` over one partition, `commit` runs `reduce_sql` over all parts and publishes the result. Between
//! them only files in the attempts' work folders and small JSON results ([`request`]) pass, so each can run on any worker.

pub mod commit;
pub mod csv_records;
pub mod csv_sample;
pub mod cut;
pub mod cutting;
pub mod error;
pub mod fault;
pub mod ipc_output;
pub mod listing;
pub mod log;
pub mod part;
pub mod plan;
pub mod publish;
pub mod query;
pub mod request;
pub mod rows;
pub mod schema;
pub mod session;
pub mod sink;
pub mod sources;
pub mod spec;
pub mod store;
pub mod table;
