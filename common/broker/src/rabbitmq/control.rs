//! Control messages: a consumer whose deliveries are acknowledged as they are handed out.

use async_trait::async_trait;
use tokio::sync::watch;

use crate::broker::{Consumer, ConsumerState, ControlStream};
use crate::message::{ConsumerEvent, ControlEvent, ControlMessage};
use crate::rabbitmq::consumer::QueueConsumer;

/// Control messages that may be on their way to a subscriber at a time.
pub(super) const PREFETCH: u16 = 256;

/// A subscription to the control messages of one incarnation and of all workers.
#[derive(Debug)]
pub(super) struct ControlSubscription {
    consumer: QueueConsumer,
}

impl ControlSubscription {
    pub(super) fn new(consumer: QueueConsumer) -> Self {
        Self { consumer }
    }
}

#[async_trait]
impl ControlStream for ControlSubscription {
    async fn next(&mut self) -> ControlEvent {
        match self.consumer.next().await {
            ConsumerEvent::Delivery(delivery) => {
                self.consumer.ack(&[delivery.tag]);
                ControlEvent::Message(ControlMessage {
                    body: delivery.body,
                    headers: delivery.headers,
                })
            }
            ConsumerEvent::Reset { reason } => ControlEvent::Reset { reason },
        }
    }

    fn watch_state(&self) -> watch::Receiver<ConsumerState> {
        self.consumer.watch_state()
    }
}
