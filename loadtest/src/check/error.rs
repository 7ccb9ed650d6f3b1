use crate::workload::WorkloadError;
use std::{io, path::PathBuf};

/// Why the evidence could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("cannot read the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("not what it should be: {0}")]
    Strange(String),
    #[error("cannot ask Redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("cannot ask RabbitMQ over AMQP: {0}")]
    Broker(#[from] lapin::Error),
    #[error("cannot ask RabbitMQ's management API: {0}")]
    Management(#[from] reqwest::Error),
    #[error("the address {url} is not a URL: {error}")]
    Address { url: String, error: url::ParseError },
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}
