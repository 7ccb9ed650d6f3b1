//! All queues, and the rules of routing between them.

use std::collections::HashMap;
use std::sync::Weak;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::broker::{BrokerHealth, ConsumerState, Depth};
use crate::error::PublishFailure;
use crate::in_process::Core;
use crate::in_process::queue::{Key, Message, Queue};
use crate::message::{
    ConsumerEvent, ControlTarget, DeliveryTag, Publication, PublishOutcome, Source, Target,
};

/// Control messages that may wait for one subscriber; the oldest go first. As on RabbitMQ.
const CONTROL_QUEUE_LENGTH: usize = 10_000;

pub(super) struct Hub {
    core: Weak<Core>,
    queues: HashMap<Key, Queue>,
    /// Incarnations by the queue of their subscription.
    bindings: HashMap<u64, String>,
    next_id: u64,
    since: std::time::Instant,
    /// Fault: why there is no connection.
    disconnected: Option<String>,
    /// Fault: why publishing is blocked.
    pub(super) blocked: Option<String>,
    /// Fault: this many more messages are stored but not confirmed.
    pub(super) lost_confirms: usize,
}

impl Hub {
    pub(super) fn new(core: Weak<Core>, event_shards: u32) -> Self {
        let mut hub = Self {
            core,
            queues: HashMap::new(),
            bindings: HashMap::new(),
            next_id: 0,
            since: std::time::Instant::now(),
            disconnected: None,
            blocked: None,
            lost_confirms: 0,
        };
        hub.declare(Key::Shared(Source::Dead));
        for shard in 0..event_shards {
            hub.declare(Key::Shared(Source::Events(shard)));
        }
        hub
    }

    pub(super) fn declare(&mut self, key: Key) {
        self.queues.entry(key).or_insert_with_key(|key| match key {
            Key::Shared(Source::Events(_)) => Queue::new(true, usize::MAX),
            Key::Shared(_) => Queue::new(false, usize::MAX),
            Key::Control(_) => Queue::new(false, CONTROL_QUEUE_LENGTH),
        });
    }

    /// Why nothing can be published now.
    pub(super) fn refusal(&self) -> Option<PublishFailure> {
        if let Some(reason) = &self.disconnected {
            return Some(PublishFailure::NotConnected(reason.clone()));
        }
        self.blocked.clone().map(PublishFailure::Blocked)
    }

    pub(super) fn publish(&mut self, publication: Publication) -> PublishOutcome {
        let keys = match &publication.target {
            Target::Work(queue) => vec![Key::Shared(Source::Work(queue.clone()))],
            Target::Events(shard) => vec![Key::Shared(Source::Events(*shard))],
            Target::Dead => vec![Key::Shared(Source::Dead)],
            Target::Control(target) => self.control_keys(target),
        };
        let message = Message::new(publication);
        let mut routed = false;
        for key in keys {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.push(message.clone());
                routed = true;
                self.dispatch(&key);
            }
        }
        if !routed {
            return PublishOutcome::Returned {
                reason: "NO_ROUTE".to_owned(),
            };
        }
        if self.lost_confirms > 0 {
            self.lost_confirms -= 1;
            return PublishOutcome::Failed {
                reason: PublishFailure::ConnectionLost("the confirm was lost".to_owned()),
                maybe_published: true,
            };
        }
        PublishOutcome::Confirmed
    }

    fn control_keys(&self, target: &ControlTarget) -> Vec<Key> {
        let is_meant = |bound: &String| match target {
            ControlTarget::AllWorkers => true,
            ControlTarget::Worker { incarnation } => bound == incarnation,
        };
        self.bindings
            .iter()
            .filter(|(_, bound)| is_meant(bound))
            .map(|(id, _)| Key::Control(*id))
            .collect()
    }

    /// Makes the queue of a control subscription.
    pub(super) fn bind_control(&mut self, incarnation: &str) -> Key {
        self.next_id += 1;
        let id = self.next_id;
        self.bindings.insert(id, incarnation.to_owned());
        self.declare(Key::Control(id));
        Key::Control(id)
    }

    pub(super) fn join(
        &mut self,
        key: &Key,
        prefetch: u16,
        inbox: mpsc::UnboundedSender<ConsumerEvent>,
        state: watch::Sender<ConsumerState>,
    ) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.declare(key.clone());
        let connected = self.disconnected.is_none();
        self.with_queue(key, |queue| {
            queue.join(id, prefetch, inbox, state);
            if connected {
                queue.register(id);
            }
        });
        id
    }

    pub(super) fn leave(&mut self, key: &Key, id: u64) {
        if let Key::Control(queue) = key {
            self.bindings.remove(queue);
            self.queues.remove(key);
        } else {
            self.with_queue(key, |queue| queue.leave(id));
        }
    }

    pub(super) fn pause(&mut self, key: &Key, id: u64, buffered: &[DeliveryTag]) {
        self.with_queue(key, |queue| {
            queue.pause(id);
            queue.give_back(id, buffered);
        });
    }

    pub(super) fn resume(&mut self, key: &Key, id: u64, prefetch: u16) {
        let connected = self.disconnected.is_none();
        let reason = self.disconnected.clone();
        self.with_queue(key, |queue| {
            queue.set_prefetch(id, prefetch);
            if connected {
                queue.register(id);
            } else {
                queue.await_connection(id, reason);
            }
        });
    }

    pub(super) fn ack(&mut self, key: &Key, id: u64, tags: &[DeliveryTag]) {
        self.with_queue(key, |queue| {
            for tag in tags {
                drop(queue.settle(id, *tag));
            }
        });
    }

    pub(super) fn ack_through(&mut self, key: &Key, id: u64, tag: DeliveryTag) {
        self.with_queue(key, |queue| queue.settle_through(id, tag));
    }

    pub(super) fn give_back(&mut self, key: &Key, id: u64, tags: &[DeliveryTag]) {
        self.with_queue(key, |queue| queue.give_back(id, tags));
    }

    /// Moves a delivery to the dead queue; false if it is stale.
    pub(super) fn dead_letter(
        &mut self,
        key: &Key,
        id: u64,
        tag: DeliveryTag,
        reason: &str,
    ) -> bool {
        let message = self
            .queues
            .get_mut(key)
            .and_then(|queue| queue.settle(id, tag));
        let Some(message) = message else { return false };
        self.bury(key, message, reason);
        self.dispatch(key);
        true
    }

    fn bury(&mut self, key: &Key, message: Message, reason: &str) {
        let source = match key {
            Key::Shared(source) => Some(source.clone()),
            // Control messages have no afterlife.
            Key::Control(_) => return,
        };
        let dead = Key::Shared(Source::Dead);
        if let Some(queue) = self.queues.get_mut(&dead) {
            queue.push(message.die(reason, source));
        }
        self.dispatch(&dead);
    }

    fn with_queue(&mut self, key: &Key, change: impl FnOnce(&mut Queue)) {
        if let Some(queue) = self.queues.get_mut(key) {
            change(queue);
            self.dispatch(key);
        }
    }

    /// Hands out what can be handed out, buries what has expired, and arms the timer for what will.
    fn dispatch(&mut self, key: &Key) {
        let Some(queue) = self.queues.get_mut(key) else {
            return;
        };
        let expired = queue.dispatch(Instant::now);
        if let Some(at) = queue.head_expiry()
            && queue.timer.is_none_or(|armed| armed > at)
        {
            queue.timer = Some(at);
            tokio::spawn(expire_at(self.core.clone(), key.clone(), at));
        }
        for message in expired {
            self.bury(key, message, "expired");
        }
    }

    pub(super) fn depth(&self, key: &Key) -> Option<Depth> {
        let queue = self.queues.get(key)?;
        Some(Depth {
            ready: queue.ready() as u64,
            consumers: queue.registered() as u64,
        })
    }

    pub(super) fn purge(&mut self, key: &Key) -> Option<u64> {
        self.queues.get_mut(key).map(|queue| queue.purge() as u64)
    }

    pub(super) fn health(&self) -> BrokerHealth {
        BrokerHealth {
            connected: self.disconnected.is_none(),
            blocked: self.blocked.clone(),
            last_error: self.disconnected.clone(),
            since: self.since,
        }
    }

    pub(super) fn disconnect(&mut self, reason: &str) {
        self.disconnected = Some(reason.to_owned());
        self.since = std::time::Instant::now();
        for (key, queue) in &mut self.queues {
            for id in queue.member_ids() {
                queue.reset(id, reason);
            }
            // The queue of a control subscription goes with its connection.
            if matches!(key, Key::Control(_)) {
                queue.purge();
            }
        }
    }

    pub(super) fn reconnect(&mut self) {
        self.disconnected = None;
        self.since = std::time::Instant::now();
        let keys: Vec<Key> = self.queues.keys().cloned().collect();
        for key in keys {
            self.with_queue(&key, |queue| {
                for id in queue.wanting() {
                    queue.register(id);
                }
            });
        }
    }

    /// Ends the channels of all consumers of one queue; they register again at once.
    pub(super) fn redeliver(&mut self, source: &Source, reason: &str) {
        let connected = self.disconnected.is_none();
        self.with_queue(&Key::Shared(source.clone()), |queue| {
            let ids = queue.member_ids();
            for id in &ids {
                queue.reset(*id, reason);
            }
            if connected {
                for id in queue.wanting() {
                    queue.register(id);
                }
            }
        });
    }

    pub(super) fn with_shared(&mut self, source: &Source, change: impl FnOnce(&mut Queue)) {
        let key = Key::Shared(source.clone());
        self.declare(key.clone());
        self.with_queue(&key, change);
    }
}

/// Wakes the queue when its head expires.
async fn expire_at(core: Weak<Core>, key: Key, at: Instant) {
    tokio::time::sleep_until(at).await;
    if let Some(core) = core.upgrade() {
        let mut hub = core.lock();
        hub.with_queue(&key, |queue| {
            // A timer armed later for an earlier head leaves this one to fire for nothing.
            if queue.timer.is_some_and(|armed| armed <= at) {
                queue.timer = None;
            }
        });
    }
}
