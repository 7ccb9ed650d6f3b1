//! The one error type of the engine. Its kind decides the exit code, and so whether the worker retries.

use std::error::Error as StdError;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};

/// What went wrong, in words a scheduler can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The SQL does not parse, names something that does not exist, or is not one query.
    BadSql,
    /// The `data:` map of the DAG file is wrong.
    BadSpec,
    /// A source's pattern matches no file.
    NoFiles,
    /// The data cannot be read as the source says, or an expression fails on it.
    BadData,
    /// The sink holds data and its mode is `error_if_exists`.
    SinkExists,
    /// A result without a sink is too large to be returned.
    ResultTooLarge,
    /// A source file is no longer the one that was planned.
    InputChanged,
    /// A bug of the engine or of DataFusion.
    Internal,
    /// The request itself is malformed: the caller's mistake, not the user's.
    BadRequest,
    /// The memory or spill limit was reached.
    ResourcesExhausted,
    /// An object store failed.
    Store,
    /// The local file system or network failed.
    Io,
    /// A file that an earlier step wrote is gone or damaged.
    InputLost,
}

impl ErrorKind {
    /// The process exit code: 1 never retry, 2 bad request, 3 resources exhausted, 4 retryable.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::BadRequest => 2,
            Self::ResourcesExhausted => 3,
            Self::Store | Self::Io | Self::InputLost => 4,
            Self::BadSql
            | Self::BadSpec
            | Self::NoFiles
            | Self::BadData
            | Self::SinkExists
            | Self::ResultTooLarge
            | Self::InputChanged
            | Self::Internal => 1,
        }
    }
}

/// An error with the message the user reads in the task's log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// What was wrong, with which value, and what to do.
    pub message: String,
}

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A mistake in the DAG file's `data:` map.
    pub fn spec(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadSpec, message)
    }

    /// A mistake of the caller.
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }

    /// Puts `prefix: ` before the message.
    #[must_use]
    pub fn context(mut self, prefix: impl std::fmt::Display) -> Self {
        self.message = format!("{prefix}: {}", self.message);
        self
    }

    /// Turns a planning error of `what` (`map_sql`, `reduce_sql`) into [`ErrorKind::BadSql`] unless a store failed.
    pub fn in_sql(what: &str, error: DataFusionError) -> Self {
        let mut error = Self::from(error).context(what);
        if matches!(error.kind, ErrorKind::BadData) {
            error.kind = ErrorKind::BadSql;
        }
        error
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Self::new(ErrorKind::Store, error.to_string())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        // A buffered object writer reports a store's failure as an io error.
        let kind = match find_in_chain::<object_store::Error>(&error) {
            Some(_) => ErrorKind::Store,
            None => ErrorKind::Io,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        Self::from(DataFusionError::from(error))
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::from(DataFusionError::from(error))
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        let kind = classify(&error);
        let mut message = error.strip_backtrace();
        if kind == ErrorKind::ResourcesExhausted {
            message.push_str(
                "; raise resources.memory or resources.spill, or use more and smaller partitions",
            );
        }
        Self::new(kind, message)
    }
}

fn classify(error: &DataFusionError) -> ErrorKind {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => return ErrorKind::ResourcesExhausted,
        DataFusionError::Diagnostic(_, inner) => return classify(inner),
        DataFusionError::Collection(all) => {
            return all.first().map_or(ErrorKind::Internal, classify);
        }
        _ => {}
    }
    // The cap on spill files is reported as an io error without a type of its own.
    if error
        .to_string()
        .contains("used disk space during the spilling")
    {
        return ErrorKind::ResourcesExhausted;
    }
    // Readers wrap store errors several layers deep, so ask the whole chain before judging by the outer type.
    if find_in_chain::<object_store::Error>(error).is_some() {
        return ErrorKind::Store;
    }
    if find_in_chain::<std::io::Error>(error).is_some() {
        return ErrorKind::Io;
    }
    match error.find_root() {
        DataFusionError::ObjectStore(_) => ErrorKind::Store,
        DataFusionError::IoError(_) => ErrorKind::Io,
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Configuration(_)
        | DataFusionError::NotImplemented(_) => ErrorKind::BadSql,
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => ErrorKind::Internal,
        _ => ErrorKind::BadData,
    }
}

fn find_in_chain<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // `io::Error::source` skips the error it wraps, which is the one we look for.
        if let Some(inner) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            && let Some(found) = inner.downcast_ref::<T>()
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}
