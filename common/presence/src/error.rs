//! The one error type of this crate.

/// Why a call on [`Presence`](crate::Presence) failed. No text in here ever contains a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    /// The server is away, restarting, or did not answer by the deadline. Whether the call took effect is unknown;
    /// repeating it is safe.
    #[error("Redis at {server} is unavailable: {reason}")]
    Unavailable {
        /// `host:port/db` or the socket's path.
        server: String,
        /// What went wrong.
        reason: String,
    },
    /// The server answered with an error that trying again will not mend: no permission, out of memory, ….
    #[error("Redis at {server} refused: {reason}")]
    Refused {
        /// `host:port/db` or the socket's path.
        server: String,
        /// The server's words.
        reason: String,
    },
    /// This incarnation was judged lost; its process must end what it runs and come back under a new incarnation.
    #[error(
        "worker incarnation {incarnation} was judged lost; start again under a new incarnation"
    )]
    Revoked {
        /// The incarnation that asked.
        incarnation: String,
    },
    /// A value above its limit.
    #[error("{what} has {size} bytes, above the limit of {max}")]
    TooLarge {
        /// Which value.
        what: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// An argument or setting that can never work.
    #[error("{what}")]
    Invalid {
        /// What is wrong and what to do.
        what: String,
    },
    /// A stored value that this version cannot read.
    #[error("the value of {key} in Redis cannot be read: {reason}")]
    Corrupt {
        /// The Redis key.
        key: String,
        /// Why not.
        reason: String,
    },
}

impl PresenceError {
    /// Whether the server was away, as against having refused.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, PresenceError::Unavailable { .. })
    }
}
