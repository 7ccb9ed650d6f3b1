//! What can go wrong in a store.

/// Result of a store's method.
pub type StoreResult<T> = Result<T, StoreError>;

/// A store's failure. [`StoreError::is_transient`] tells those that a later try can mend.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database is away, or too busy to answer in time.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Another transaction was in the way (deadlock, serialisation, lock timeout): the whole transaction may be tried again.
    #[error("the transaction met another one: {0}")]
    Conflict(String),
    /// A unique key is taken.
    #[error("{what} {name:?} exists already")]
    Exists { what: &'static str, name: String },
    #[error("{what} {name:?} does not exist")]
    NotFound { what: &'static str, name: String },
    /// What was asked cannot be done in the present state.
    #[error("{0}")]
    Refused(String),
    /// The schema's version is not this build's.
    #[error(
        "the database schema is at version {found}, this build needs {needed}: run `gristmill migrate`"
    )]
    Schema { found: i64, needed: i64 },
    /// A row that this build cannot read, or a broken invariant.
    #[error("the database holds what it should not: {0}")]
    Corrupt(String),
    #[error("database error: {0}")]
    Other(String),
}

impl StoreError {
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Conflict(_))
    }
}
