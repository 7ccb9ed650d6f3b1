//! The broker over RabbitMQ (3.10 and later, by AMQP 0-9-1).
//!
//! Two supervised connections: one publishes, the other consumes and administers, so that a memory alarm, which stops the
//! publishing connection, cannot hold back acknowledgements. Each consumer has a channel of its own, since a channel error ends all that is on it.
//! Nothing here relies on the client library's own recovery.

mod admin;
mod backoff;
mod codec;
mod config;
mod connect;
mod consumer;
mod consumer_task;
mod control;
mod link;
mod publisher;
mod topology;

use std::sync::Arc;

use async_trait::async_trait;

use crate::broker::{Broker, BrokerHealth, Consumer, ControlStream, Depth};
use crate::error::BrokerError;
use crate::message::{Publication, PublishOutcome, Source};
use crate::names::{check_name, check_source};
use crate::rabbitmq::admin::Admin;
use crate::rabbitmq::consumer::QueueConsumer;
use crate::rabbitmq::consumer_task::Origin;
use crate::rabbitmq::control::ControlSubscription;
use crate::rabbitmq::link::Link;
use crate::rabbitmq::publisher::Publisher;
use crate::rabbitmq::topology::Topology;

pub use crate::rabbitmq::config::{QueueType, RabbitMqConfig};

/// A broker over RabbitMQ.
#[derive(Debug)]
pub struct RabbitMq {
    consuming: Arc<Link>,
    publisher: Arc<Publisher>,
    topology: Arc<Topology>,
    admin: Admin,
}

impl RabbitMq {
    /// Starts the connections in the background and returns at once, whether RabbitMQ is there or not.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BrokerError::InvalidUrl`]; nothing else.
    pub fn start(config: RabbitMqConfig) -> Result<Arc<Self>, BrokerError> {
        let uri = config.uri()?;
        let topology = Arc::new(Topology::new(config.event_shards, config.queue_type));
        let link = |role| Link::start(role, uri.clone(), &config, Arc::clone(&topology));
        let consuming = link("consume");
        let publisher = Arc::new(Publisher::new(
            link("publish"),
            config.event_shards,
            config.publish_deadline,
        ));
        Ok(Arc::new(Self {
            admin: Admin::new(Arc::clone(&consuming), config.operation_deadline),
            consuming,
            publisher,
            topology,
        }))
    }

    fn consumer(&self, origin: Origin, prefetch: u16) -> QueueConsumer {
        QueueConsumer::start(
            Arc::clone(&self.consuming),
            Arc::clone(&self.topology),
            Arc::clone(&self.publisher),
            origin,
            prefetch.max(1),
        )
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<PublishOutcome> {
        self.publisher.publish(batch).await
    }

    async fn declare_work_queue(&self, queue: &str) -> Result<(), BrokerError> {
        check_name(queue)?;
        self.topology.add_work_queue(queue);
        self.admin.declare_work_queue(&self.topology, queue).await
    }

    async fn consume(
        &self,
        source: Source,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        check_source(&source, self.event_shards())?;
        if let Source::Work(queue) = &source {
            self.topology.add_work_queue(queue);
        }
        Ok(Box::new(self.consumer(Origin::Queue(source), prefetch)))
    }

    async fn subscribe_control(
        &self,
        incarnation: &str,
    ) -> Result<Box<dyn ControlStream>, BrokerError> {
        check_name(incarnation)?;
        let origin = Origin::Control {
            incarnation: incarnation.to_owned(),
        };
        Ok(Box::new(ControlSubscription::new(
            self.consumer(origin, control::PREFETCH),
        )))
    }

    async fn depth(&self, source: &Source) -> Result<Depth, BrokerError> {
        check_source(source, self.event_shards())?;
        self.admin.depth(source).await
    }

    async fn purge(&self, source: &Source) -> Result<u64, BrokerError> {
        check_source(source, self.event_shards())?;
        self.admin.purge(source).await
    }

    fn event_shards(&self) -> u32 {
        self.topology.event_shards()
    }

    fn health(&self) -> BrokerHealth {
        let publishing = self.publisher.link().health();
        let consuming = self.consuming.health();
        let connected = publishing.connected && consuming.connected;
        BrokerHealth {
            connected,
            blocked: publishing.blocked,
            last_error: publishing.last_error.or(consuming.last_error),
            // Up since the later of the two came up; down since the first went down.
            since: match (publishing.connected, consuming.connected) {
                (true, true) => publishing.since.max(consuming.since),
                (false, false) => publishing.since.min(consuming.since),
                (false, true) => publishing.since,
                (true, false) => consuming.since,
            },
        }
    }
}
