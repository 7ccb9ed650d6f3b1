//! The handles of consumers and control subscriptions.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::broker::{Consumer, ConsumerState, ConsumerStatus, ControlStream};
use crate::error::BrokerError;
use crate::in_process::Core;
use crate::in_process::queue::Key;
use crate::message::{ConsumerEvent, ControlEvent, ControlMessage, Delivery, DeliveryTag};

/// Control messages that may be on their way to a subscriber at a time. As on RabbitMQ.
pub(super) const CONTROL_PREFETCH: u16 = 256;

pub(super) struct HubConsumer {
    core: Arc<Core>,
    key: Key,
    id: u64,
    inbox: mpsc::UnboundedReceiver<ConsumerEvent>,
    /// Events taken out of the inbox ahead of their turn.
    put_back: VecDeque<ConsumerEvent>,
    state: watch::Receiver<ConsumerState>,
}

impl HubConsumer {
    pub(super) fn start(core: Arc<Core>, key: Key, prefetch: u16) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        let (state_sender, state) =
            watch::channel(ConsumerState::new(ConsumerStatus::Connecting, None));
        let id = core.lock().join(&key, prefetch, sender, state_sender);
        Self {
            core,
            key,
            id,
            inbox,
            put_back: VecDeque::new(),
            state,
        }
    }
}

#[async_trait]
impl Consumer for HubConsumer {
    async fn next(&mut self) -> ConsumerEvent {
        if let Some(event) = self.put_back.pop_front() {
            return event;
        }
        match self.inbox.recv().await {
            Some(event) => event,
            // The hub keeps the sender for as long as this is a member.
            None => std::future::pending().await,
        }
    }

    fn try_next(&mut self) -> Option<ConsumerEvent> {
        match self.put_back.pop_front() {
            Some(event) => Some(event),
            None => self.inbox.try_recv().ok(),
        }
    }

    fn ack(&mut self, tags: &[DeliveryTag]) {
        self.core.lock().ack(&self.key, self.id, tags);
    }

    fn ack_through(&mut self, tag: DeliveryTag) {
        self.core.lock().ack_through(&self.key, self.id, tag);
    }

    fn give_back(&mut self, tags: &[DeliveryTag]) {
        self.core.lock().give_back(&self.key, self.id, tags);
    }

    async fn dead_letter(&mut self, delivery: &Delivery, reason: &str) -> Result<(), BrokerError> {
        let moved = self
            .core
            .lock()
            .dead_letter(&self.key, self.id, delivery.tag, reason);
        if moved {
            Ok(())
        } else {
            Err(BrokerError::StaleDelivery)
        }
    }

    async fn pause(&mut self) {
        let mut hub = self.core.lock();
        let mut buffered = Vec::new();
        let mut kept = VecDeque::new();
        while let Some(event) = self
            .put_back
            .pop_front()
            .or_else(|| self.inbox.try_recv().ok())
        {
            match event {
                ConsumerEvent::Delivery(delivery) => buffered.push(delivery.tag),
                reset @ ConsumerEvent::Reset { .. } => kept.push_back(reset),
            }
        }
        self.put_back = kept;
        hub.pause(&self.key, self.id, &buffered);
    }

    async fn resume(&mut self, prefetch: u16) {
        self.core.lock().resume(&self.key, self.id, prefetch);
    }

    fn watch_state(&self) -> watch::Receiver<ConsumerState> {
        self.state.clone()
    }

    async fn close(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for HubConsumer {
    fn drop(&mut self) {
        self.core.lock().leave(&self.key, self.id);
    }
}

impl fmt::Debug for HubConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConsumer")
            .field("key", &self.key)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A subscription to the control messages of one incarnation and of all workers.
#[derive(Debug)]
pub(super) struct HubControl {
    consumer: HubConsumer,
}

impl HubControl {
    pub(super) fn new(consumer: HubConsumer) -> Self {
        Self { consumer }
    }
}

#[async_trait]
impl ControlStream for HubControl {
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
