//! What goes in and comes out of a broker: publications, deliveries and the names of the places in between.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::error::PublishFailure;

/// Largest body of a work, events or control message, in bytes (64 KiB). What is larger travels by reference.
///
/// The dead queue has no limit of its own: it must be able to take whatever was found elsewhere.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Message headers by name. Names stay under 255 bytes (the limit of AMQP short strings).
pub type Headers = BTreeMap<String, HeaderValue>;

/// The value of one message header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// A signed integer (fences, epochs, Unix milliseconds).
    Int(i64),
    /// UTF-8 text (ids).
    Str(String),
}

impl HeaderValue {
    /// The integer, if this is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Str(_) => None,
        }
    }

    /// The text, if this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Int(_) => None,
            Self::Str(value) => Some(value),
        }
    }
}

impl From<i64> for HeaderValue {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for HeaderValue {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl From<String> for HeaderValue {
    fn from(value: String) -> Self {
        Self::Str(value)
    }
}

/// Where a message is published to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The work queue of this name (as in a task's `queue:`), declared by [`Broker::declare_work_queue`](crate::Broker::declare_work_queue).
    Work(String),
    /// The events queue of this shard, `0..event_shards`.
    Events(u32),
    /// The control queues of workers.
    Control(ControlTarget),
    /// The dead queue.
    Dead,
}

/// Which workers a control message is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ControlTarget {
    /// One worker incarnation. The message is returned if that incarnation is not subscribed.
    Worker {
        /// The id the worker subscribed with.
        incarnation: String,
    },
    /// Every subscribed worker. The message is returned if there is none.
    AllWorkers,
}

impl Target {
    /// Whether [`MAX_BODY_BYTES`] applies.
    pub(crate) fn is_limited(&self) -> bool {
        !matches!(self, Self::Dead)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(queue) => write!(f, "work queue `{queue}`"),
            Self::Events(shard) => write!(f, "events queue {shard}"),
            Self::Control(ControlTarget::Worker { incarnation }) => {
                write!(f, "control queue of worker {incarnation}")
            }
            Self::Control(ControlTarget::AllWorkers) => write!(f, "control queues of all workers"),
            Self::Dead => write!(f, "dead queue"),
        }
    }
}

/// One message to publish. Work, events and dead messages are persistent; all are mandatory and confirmed.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Where it goes.
    pub target: Target,
    /// What it says; opaque to this crate. At most [`MAX_BODY_BYTES`], except to [`Target::Dead`].
    pub body: Bytes,
    /// Ids, fence and the like; readable without parsing the body.
    pub headers: Headers,
    /// How long the message may wait in its queue before it moves to the dead queue with the reason `expired`
    /// (a control message is dropped instead). Milliseconds are kept. Checked at the head of the queue only.
    pub expiration: Option<Duration>,
    /// AMQP priority. Only a hint: queues are declared without priorities, order is decided before publishing.
    pub priority: Option<u8>,
}

impl Publication {
    /// A message without headers, expiration and priority.
    #[must_use]
    pub fn new(target: Target, body: impl Into<Bytes>) -> Self {
        Self {
            target,
            body: body.into(),
            headers: Headers::new(),
            expiration: None,
            priority: None,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets the expiration.
    #[must_use]
    pub fn with_expiration(mut self, expiration: Duration) -> Self {
        self.expiration = Some(expiration);
        self
    }
}

/// What became of one [`Publication`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The broker has taken responsibility for the message.
    Confirmed,
    /// The broker has no such queue (or subscriber); the message is not stored anywhere.
    Returned {
        /// The broker's words.
        reason: String,
    },
    /// Not confirmed.
    Failed {
        /// Why.
        reason: PublishFailure,
        /// Whether the message may have reached a queue all the same; false means that it surely has not.
        maybe_published: bool,
    },
}

impl PublishOutcome {
    /// Whether the broker has taken responsibility for the message.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        matches!(self, Self::Confirmed)
    }

    pub(crate) fn unpublished(reason: PublishFailure) -> Self {
        Self::Failed {
            reason,
            maybe_published: false,
        }
    }
}

/// A queue to read from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The work queue of this name.
    Work(String),
    /// The events queue of this shard; one consumer at a time is active, the others stand by.
    Events(u32),
    /// The dead queue.
    Dead,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(queue) => write!(f, "work queue `{queue}`"),
            Self::Events(shard) => write!(f, "events queue {shard}"),
            Self::Dead => write!(f, "dead queue"),
        }
    }
}

/// Names one delivery to one consumer, for its acknowledgement. Rises with each delivery of a consumer, also across [`ConsumerEvent::Reset`].
///
/// A tag from before a reset, or one already settled, is ignored by every call that takes a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryTag {
    /// Counts the resets of the consumer: the broker's own numbers start again after each.
    pub(crate) epoch: u32,
    pub(crate) number: u64,
}

/// Why and from where a message came to the dead queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// `expired`, `rejected` or another of the broker's own reasons, or what was given to [`Consumer::dead_letter`](crate::Consumer::dead_letter).
    pub reason: String,
    /// The queue it died in, if known and one of ours.
    pub source: Option<Source>,
}

/// One message handed to a consumer. It is unacknowledged until its tag is passed to a settling call.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Names this delivery for its acknowledgement.
    pub tag: DeliveryTag,
    /// What it says.
    pub body: Bytes,
    /// The publisher's headers, without the broker's own.
    pub headers: Headers,
    /// Whether the broker may have delivered this message before.
    pub redelivered: bool,
    /// Set on messages in the dead queue.
    pub death: Option<Death>,
}

/// What a consumer has to say.
#[derive(Clone, Debug)]
pub enum ConsumerEvent {
    /// A message.
    Delivery(Delivery),
    /// The connection, channel or queue was lost: every delivery before this event that was not settled is void
    /// and will be delivered again. The consumer is being rebuilt in the background; there is nothing to do but to forget the old tags.
    Reset {
        /// What happened.
        reason: String,
    },
}

/// A control message.
#[derive(Clone, Debug)]
pub struct ControlMessage {
    /// What it says.
    pub body: Bytes,
    /// The publisher's headers.
    pub headers: Headers,
}

/// What a control subscription has to say.
#[derive(Clone, Debug)]
pub enum ControlEvent {
    /// A message. It is acknowledged already: control messages are delivered at most once.
    Message(ControlMessage),
    /// The subscription was lost and is being rebuilt: messages may have been missed.
    Reset {
        /// What happened.
        reason: String,
    },
}
