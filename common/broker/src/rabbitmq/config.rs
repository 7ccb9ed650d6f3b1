//! What an operator can set.

use std::fmt;
use std::time::Duration;

use lapin::uri::AMQPUri;

use crate::error::BrokerError;
use crate::redact::redact_url;

/// The type of queue that work queues are declared with. Events and dead queues are classic durable queues always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// Classic durable queues: for one node.
    #[default]
    Classic,
    /// Quorum queues: for clusters. RabbitMQ 4 limits their deliveries to 20 by default, while Gristmill counts poison itself:
    /// set a policy with `delivery-limit: -1` for `^gm\.work\.` there.
    Quorum,
}

impl QueueType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// How to reach RabbitMQ, and with which limits.
#[derive(Clone)]
pub struct RabbitMqConfig {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub url: String,
    /// Number of events shards. All parts of a deployment must agree.
    pub event_shards: u32,
    /// Type of the work queues.
    pub queue_type: QueueType,
    /// How long one call of [`Broker::publish`](crate::Broker::publish) may take.
    pub publish_deadline: Duration,
    /// How long one declaration, depth or purge may take.
    pub operation_deadline: Duration,
    /// AMQP heartbeat in seconds, unless the URL sets `heartbeat`. A connection that is silent for twice as long is rebuilt.
    pub heartbeat_s: u16,
    /// Shown by RabbitMQ's own tools, with the role of the connection appended.
    pub connection_name: String,
}

impl RabbitMqConfig {
    /// The defaults: 4 shards, classic queues, 5 s deadlines, a heartbeat of 10 s.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            event_shards: 4,
            queue_type: QueueType::default(),
            publish_deadline: Duration::from_secs(5),
            operation_deadline: Duration::from_secs(5),
            heartbeat_s: 10,
            connection_name: "gristmill".to_owned(),
        }
    }

    pub(super) fn uri(&self) -> Result<AMQPUri, BrokerError> {
        // The parser's own message may quote the password, so it is not passed on.
        let mut uri: AMQPUri = self.url.parse().map_err(|_| BrokerError::InvalidUrl {
            url: redact_url(&self.url),
            reason: "expected amqp://user:password@host:port/vhost or amqps://…, special characters percent-encoded"
                .to_owned(),
        })?;
        uri.query.heartbeat.get_or_insert(self.heartbeat_s);
        Ok(uri)
    }
}

impl fmt::Debug for RabbitMqConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqConfig")
            .field("url", &redact_url(&self.url))
            .field("event_shards", &self.event_shards)
            .field("queue_type", &self.queue_type)
            .field("publish_deadline", &self.publish_deadline)
            .field("operation_deadline", &self.operation_deadline)
            .field("heartbeat_s", &self.heartbeat_s)
            .field("connection_name", &self.connection_name)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_errors_nor_debug_show_the_password() {
        let bad = RabbitMqConfig::new("amqp://gm:s3cret@host:port/x");
        let error = bad.uri().unwrap_err();
        for text in [format!("{error} {error:?}"), format!("{bad:?}")] {
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn the_url_has_the_last_word_on_the_heartbeat() {
        let heartbeat = |url| RabbitMqConfig::new(url).uri().unwrap().query.heartbeat;
        assert_eq!(heartbeat("amqp://localhost"), Some(10));
        assert_eq!(heartbeat("amqp://localhost/%2f?heartbeat=3"), Some(3));
    }
}
