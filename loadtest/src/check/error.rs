use std::{io, path::PathBuf};

/// Why the evidence could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("cannot read the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the database has what no version of Gristmill writes: {0}")]
    Strange(String),
    #[error("cannot read the ledger {}: {error}", path.display())]
    Ledger { path: PathBuf, error: io::Error },
}
