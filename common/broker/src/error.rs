//! Errors at this crate's boundary. None of them carries a password.

use std::time::Duration;

/// Why a call to the broker failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The broker's URL cannot be used.
    #[error("invalid AMQP URL {url}: {reason}")]
    InvalidUrl {
        /// The URL without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A queue name that the broker cannot take.
    #[error("invalid queue name `{name}`: {reason}")]
    InvalidQueueName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An events shard out of range.
    #[error("there is no events shard {shard}: this broker has {shards}, counted from 0")]
    NoSuchShard {
        /// The shard asked for.
        shard: u32,
        /// The number of shards.
        shards: u32,
    },
    /// The queue does not exist at the broker.
    #[error(
        "{queue} does not exist at the broker; it is declared when a worker or a scheduler first uses it"
    )]
    NotFound {
        /// Which queue, in words.
        queue: String,
    },
    /// The broker is away and did not come back before the deadline.
    #[error("no connection to the broker within {after:?}: {reason}")]
    Unavailable {
        /// How long was waited.
        after: Duration,
        /// The last error.
        reason: String,
    },
    /// The broker did not answer before the deadline.
    #[error("the broker did not answer {operation} within {after:?}")]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The broker refused the operation, or the connection broke in the middle of it.
    #[error("{operation} failed: {reason}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// The broker's words.
        reason: String,
    },
    /// A message could not be moved to the dead queue; the delivery is still unacknowledged.
    #[error("cannot move the message to the dead queue: {0}")]
    DeadLetter(String),
    /// The delivery was settled before, or voided by a reset; it will come again if it was not settled.
    #[error(
        "the delivery is no longer this consumer's: it was settled before, or voided by a reset"
    )]
    StaleDelivery,
}

/// Why a message was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishFailure {
    /// The body is too large.
    #[error(
        "the message has {bytes} bytes, the limit is {limit}: send the large part by reference"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// [`MAX_BODY_BYTES`](crate::MAX_BODY_BYTES).
        limit: usize,
    },
    /// The message cannot be published anywhere: a bad queue name, a shard out of range, oversized headers.
    #[error("{0}")]
    Invalid(String),
    /// There is no connection, and none came before the deadline.
    #[error("no connection to the broker: {0}")]
    NotConnected(String),
    /// The broker has stopped taking messages (a memory or disk alarm).
    #[error("the broker takes no messages now: {0}")]
    Blocked(String),
    /// The broker refused to take responsibility for the message.
    #[error("the broker refused the message (basic.nack)")]
    Nacked,
    /// No confirm came before the deadline.
    #[error("no confirm within {0:?}")]
    Deadline(Duration),
    /// The connection or channel broke before the confirm.
    #[error("the connection broke before the confirm: {0}")]
    ConnectionLost(String),
}
