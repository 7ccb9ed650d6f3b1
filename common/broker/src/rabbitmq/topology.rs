//! The exchanges and queues that Gristmill needs, and how they are declared.
//!
//! The dead queue has no length limit: what can die is bounded by what was admitted to the work queues, and dropping it would lose the reason.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, Error, ErrorKind, ExchangeKind};

use crate::message::Source;
use crate::names::{CONTROL_EXCHANGE, DEAD_EXCHANGE, DEAD_QUEUE, queue_name};
use crate::rabbitmq::config::QueueType;

const PRECONDITION_FAILED: u16 = 406;
pub(super) const NOT_FOUND: u16 = 404;

/// Whether the broker answered with this AMQP reply code.
pub(super) fn is_reply(error: &Error, code: u16) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == code)
}

/// What is to be there on every connection.
#[derive(Debug)]
pub(super) struct Topology {
    event_shards: u32,
    queue_type: QueueType,
    work_queues: Mutex<BTreeSet<String>>,
}

impl Topology {
    pub(super) fn new(event_shards: u32, queue_type: QueueType) -> Self {
        Self {
            event_shards,
            queue_type,
            work_queues: Mutex::default(),
        }
    }

    pub(super) fn event_shards(&self) -> u32 {
        self.event_shards
    }

    /// From now on this work queue is declared on every new connection.
    pub(super) fn add_work_queue(&self, queue: &str) {
        let mut queues = self
            .work_queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !queues.contains(queue) {
            queues.insert(queue.to_owned());
        }
    }

    /// Declares everything. A queue or exchange that exists with other arguments is left as it is, with a warning.
    pub(super) async fn declare_all(&self, connection: &Connection) -> Result<(), Error> {
        let mut declarer = Declarer::new(connection);
        declarer
            .exchange(DEAD_EXCHANGE, ExchangeKind::Fanout)
            .await?;
        declarer
            .exchange(CONTROL_EXCHANGE, ExchangeKind::Direct)
            .await?;
        declarer.queue(self, &Source::Dead).await?;
        declarer
            .channel()
            .await?
            .queue_bind(
                DEAD_QUEUE.into(),
                DEAD_EXCHANGE.into(),
                ShortString::default(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
        for shard in 0..self.event_shards {
            declarer.queue(self, &Source::Events(shard)).await?;
        }
        let work_queues = self
            .work_queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for queue in work_queues {
            declarer.queue(self, &Source::Work(queue)).await?;
        }
        declarer.close().await;
        Ok(())
    }

    fn queue_arguments(&self, source: &Source) -> FieldTable {
        let mut arguments = FieldTable::default();
        let queue_type = match source {
            Source::Work(_) => self.queue_type,
            Source::Events(_) | Source::Dead => QueueType::Classic,
        };
        arguments.insert("x-queue-type".into(), text(queue_type.as_str()));
        match source {
            Source::Work(_) => {
                arguments.insert("x-dead-letter-exchange".into(), text(DEAD_EXCHANGE));
            }
            Source::Events(_) => {
                arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
            }
            Source::Dead => {}
        }
        arguments
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Declares on a channel of its own, which a refusal costs; then it takes a new one.
pub(super) struct Declarer<'a> {
    connection: &'a Connection,
    channel: Option<Channel>,
}

impl<'a> Declarer<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            channel: None,
        }
    }

    async fn channel(&mut self) -> Result<Channel, Error> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let channel = self.connection.create_channel().await?;
        Ok(self.channel.insert(channel).clone())
    }

    async fn exchange(&mut self, name: &str, kind: ExchangeKind) -> Result<(), Error> {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let declared = self
            .channel()
            .await?
            .exchange_declare(name.into(), kind, options, FieldTable::default())
            .await;
        self.tolerate_mismatch("exchange", name, declared)
    }

    pub(super) async fn queue(
        &mut self,
        topology: &Topology,
        source: &Source,
    ) -> Result<(), Error> {
        let name = queue_name(source);
        let declared = self
            .channel()
            .await?
            .queue_declare(
                name.as_str().into(),
                QueueDeclareOptions::durable(),
                topology.queue_arguments(source),
            )
            .await
            .map(|_| ());
        self.tolerate_mismatch("queue", &name, declared)
    }

    fn tolerate_mismatch(
        &mut self,
        what: &str,
        name: &str,
        declared: Result<(), Error>,
    ) -> Result<(), Error> {
        match declared {
            Err(error) if is_reply(&error, PRECONDITION_FAILED) => {
                tracing::warn!(
                    %error,
                    "the {what} `{name}` exists at RabbitMQ with other properties; it is used as it is. \
                     To change it, empty and delete it while Gristmill is stopped"
                );
                self.channel = None;
                Ok(())
            }
            other => other,
        }
    }

    /// Waits for the broker's goodbye, so that the channel's number is free again.
    pub(super) async fn close(self) {
        if let Some(channel) = self.channel
            && let Err(error) = channel.close(200, "done".into()).await
        {
            tracing::debug!(%error, "closing a channel after declarations");
        }
    }
}
