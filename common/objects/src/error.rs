//! Errors of the store; each names the key.

/// Why a call on the object store failed. No text in here contains credentials.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Nothing under this key.
    #[error("the object store has no {key}")]
    NotFound {
        /// The key.
        key: String,
    },
    /// `GRISTMILL_STORE` cannot be used as it is.
    #[error("the object store's URL cannot be used: {reason}")]
    InvalidUrl {
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A key that no store can have.
    #[error("{key:?} is not a key: {reason}")]
    InvalidKey {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object above its limit.
    #[error("{key} has {size} bytes, above the limit of {max}")]
    TooLarge {
        /// The key.
        key: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The object is not what was stored.
    #[error("{key} is damaged: {reason}")]
    Corrupt {
        /// The key.
        key: String,
        /// How that was seen.
        reason: String,
    },
    /// The local disk, or the source of an upload, failed.
    #[error("writing or reading {key} failed: {reason}")]
    Io {
        /// The key.
        key: String,
        /// The system's words.
        reason: String,
    },
    /// The store failed or refused.
    #[error("the object store failed on {key}: {reason}")]
    Store {
        /// The key.
        key: String,
        /// The store's words.
        reason: String,
    },
}

impl ObjectError {
    /// Whether there is simply nothing under the key.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ObjectError::NotFound { .. })
    }

    pub(crate) fn io(key: &str, error: impl std::fmt::Display) -> Self {
        ObjectError::Io {
            key: key.to_owned(),
            reason: error.to_string(),
        }
    }

    pub(crate) fn store(key: &str, error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => ObjectError::NotFound {
                key: key.to_owned(),
            },
            other => ObjectError::Store {
                key: key.to_owned(),
                reason: other.to_string(),
            },
        }
    }
}
