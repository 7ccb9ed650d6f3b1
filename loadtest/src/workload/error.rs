use std::{io, path::PathBuf};

/// Why there is no workload.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    #[error("cannot write {}, which tasks need: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error(
        "the path of the ledger, {}, has to be absolute and without quotes or braces: tasks name it in their commands",
        .0.display()
    )]
    LedgerPath(PathBuf),
    #[error("the DAG file is refused: {0}")]
    DagFile(String),
}
