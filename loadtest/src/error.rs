//! What can go wrong while measuring. A slow figure is none of it.

use crate::check::CheckError;
use gristmill_testkit::TestkitError;
use std::{io, path::PathBuf, time::Duration};

pub type Result<T, E = LoadError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Testkit(#[from] TestkitError),
    #[error("the API server does not answer: {0}")]
    Http(#[from] reqwest::Error),
    #[error("{method} {path} was answered with {status}: {body}")]
    Refused {
        method: &'static str,
        path: String,
        status: u16,
        body: String,
    },
    #[error(
        "run {run_id} of {dag_id} ended as {state} with task instances {counts}; expected {expected} in success"
    )]
    WrongEnd {
        dag_id: String,
        run_id: String,
        state: String,
        counts: String,
        expected: usize,
    },
    #[error("run {run_id} of {dag_id} did not end within {waited:?}")]
    NotEnded {
        dag_id: String,
        run_id: String,
        waited: Duration,
    },
    #[error("task {task_id} of run {run_id} has no {date}")]
    NoDate {
        run_id: String,
        task_id: String,
        date: &'static str,
    },
    #[error("a deployment needs at least one scheduler, one worker and one API server")]
    EmptyLayout,
    #[error(
        "{0} is not private to this deployment, so it cannot be killed or restarted: unset the GRISTMILL_TEST_… variables"
    )]
    NotPrivate(&'static str),
    #[error("cannot prepare the deployment's folder: {0}")]
    Folder(std::io::Error),
    #[error("the deployment has no {0}")]
    NoSuchPart(String),
    #[error("cannot signal a guardian: {0}")]
    Signal(std::io::Error),
    #[error("cannot flush Redis: {0}")]
    Flush(std::io::Error),
    #[error("the broker refused what a fault needs: {0}")]
    Broker(lapin::Error),
    #[error("the broker did not answer within {0:?}")]
    BrokerSilent(Duration),
    #[error(
        "a fault of the database could not be begun or ended: {why}; the statement was: {statement}"
    )]
    FaultStatement { statement: String, why: String },
    #[error("cannot make the store full or empty again: {0}")]
    Disk(String),
    #[error("the database could not be read: {0}")]
    Watch(#[from] sqlx::Error),
    #[error(transparent)]
    Workload(#[from] crate::workload::WorkloadError),
    #[error("`gristmill migrate` failed:\n{0}")]
    Migrate(String),
    #[error("cannot run `sh -c true`, which hops are compared with: {0}")]
    Shell(io::Error),
    #[error("{} cannot be read as figures: {why}", path.display())]
    Unreadable { path: PathBuf, why: String },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{} holds no counted figure: measure the baseline with `bench --save`, fan-outs included", .0.display()
    )]
    NothingToCompare(PathBuf),
    #[error("{peer} cannot be measured: {why}")]
    Peer { peer: &'static str, why: String },
    #[error("a deployment at a URL needs a token: set GRISTMILL_TOKEN, or give --token")]
    NoToken,
    #[error("{0}")]
    Usage(&'static str),
    #[error("the tool itself failed: {0}")]
    Task(tokio::task::JoinError),
    #[error("cannot check: {0}")]
    Check(#[from] CheckError),
    #[error("cannot write the report: {0}")]
    Report(#[from] serde_json::Error),
}
