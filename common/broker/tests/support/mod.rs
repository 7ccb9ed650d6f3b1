//! RabbitMQ for tests.

use std::sync::Arc;

use gristmill_broker::{Broker, RabbitMq, RabbitMqConfig};
use gristmill_testkit::shared;

/// An empty vhost of the shared server, gone when this is dropped.
pub(crate) struct Vhost(shared::Vhost);

impl Vhost {
    pub(crate) async fn new() -> Self {
        Self(shared::rabbitmq_vhost().await.unwrap())
    }

    pub(crate) fn broker(&self) -> Arc<dyn Broker> {
        RabbitMq::start(RabbitMqConfig::new(self.0.url())).unwrap()
    }
}
