//! The REST API: `/api/v2`, wire-compatible with Airflow 3's stable API for what it covers, and operations of our own
//! (deploy, cancel, wait, explain, queues, workers).
//!
//! A route's file in `routes` mirrors its path; `view` makes the JSON of records; `error` maps every failure to HTTP.

mod auth;
mod deploy;
mod error;
mod explain;
mod extract;
mod gather;
mod listing;
mod log;
mod parts;
mod routes;
mod secrets;
mod serve;
mod shared;
mod upload;
mod versions;
mod view;

pub use auth::{AdminError, Role, TOKEN_PREFIX, ensure_admin, issue_token, token_hash};
pub use deploy::{DeployError, DeployMode, DeployReport, DeployedDag, FolderOnDisk, deploy_dir};
pub use parts::{ApiParts, Probe};
pub use routes::router;
pub use serve::serve;
