//! The broker inside one process: what RabbitMQ does for us, without RabbitMQ. Messages live as long as the process.
//!
//! All state is behind one lock that is held for microseconds; consumers are woken through channels, nothing polls.

mod consumer;
mod faults;
mod hub;
mod queue;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;

use crate::broker::{Broker, BrokerHealth, Consumer, ControlStream, Depth};
use crate::error::{BrokerError, PublishFailure};
use crate::in_process::consumer::{HubConsumer, HubControl};
use crate::in_process::hub::Hub;
use crate::in_process::queue::Key;
use crate::message::{Publication, PublishOutcome, Source};
use crate::names::{check_name, check_publication, check_source};

pub use crate::in_process::faults::Faults;

/// Settings of the in-process broker.
#[derive(Clone, Debug)]
pub struct InProcessConfig {
    /// Number of events shards.
    pub event_shards: u32,
}

impl Default for InProcessConfig {
    /// 4 shards.
    fn default() -> Self {
        Self { event_shards: 4 }
    }
}

/// A broker inside this process. Must be used within a tokio runtime if messages have expirations.
pub struct InProcess {
    core: Arc<Core>,
    event_shards: u32,
}

/// The lock around everything.
pub(super) struct Core {
    hub: Mutex<Hub>,
}

impl Core {
    /// No code panics halfway through a change, so a poisoned lock is as good as a clean one.
    fn lock(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InProcess {
    /// An empty broker.
    #[must_use]
    pub fn new(config: InProcessConfig) -> Arc<Self> {
        let core = Arc::new_cyclic(|core: &Weak<Core>| Core {
            hub: Mutex::new(Hub::new(core.clone(), config.event_shards)),
        });
        Arc::new(Self {
            core,
            event_shards: config.event_shards,
        })
    }

    /// The switches that make it misbehave, for tests.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults::new(Arc::clone(&self.core))
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess")
            .field("event_shards", &self.event_shards)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for InProcess {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<PublishOutcome> {
        let mut hub = self.core.lock();
        if let Some(refusal) = hub.refusal() {
            return batch
                .iter()
                .map(|_| PublishOutcome::unpublished(refusal.clone()))
                .collect();
        }
        batch
            .into_iter()
            .map(
                |publication| match check_publication(&publication, self.event_shards) {
                    Ok(()) => hub.publish(publication),
                    Err(failure) => PublishOutcome::unpublished(failure),
                },
            )
            .collect()
    }

    async fn declare_work_queue(&self, queue: &str) -> Result<(), BrokerError> {
        check_name(queue)?;
        let mut hub = self.core.lock();
        available(&hub)?;
        hub.declare(Key::Shared(Source::Work(queue.to_owned())));
        Ok(())
    }

    async fn consume(
        &self,
        source: Source,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        check_source(&source, self.event_shards)?;
        Ok(Box::new(HubConsumer::start(
            Arc::clone(&self.core),
            Key::Shared(source),
            prefetch,
        )))
    }

    async fn subscribe_control(
        &self,
        incarnation: &str,
    ) -> Result<Box<dyn ControlStream>, BrokerError> {
        check_name(incarnation)?;
        let key = self.core.lock().bind_control(incarnation);
        let consumer = HubConsumer::start(Arc::clone(&self.core), key, consumer::CONTROL_PREFETCH);
        Ok(Box::new(HubControl::new(consumer)))
    }

    async fn depth(&self, source: &Source) -> Result<Depth, BrokerError> {
        check_source(source, self.event_shards)?;
        let hub = self.core.lock();
        available(&hub)?;
        hub.depth(&Key::Shared(source.clone()))
            .ok_or_else(|| not_found(source))
    }

    async fn purge(&self, source: &Source) -> Result<u64, BrokerError> {
        check_source(source, self.event_shards)?;
        let mut hub = self.core.lock();
        available(&hub)?;
        hub.purge(&Key::Shared(source.clone()))
            .ok_or_else(|| not_found(source))
    }

    fn event_shards(&self) -> u32 {
        self.event_shards
    }

    fn health(&self) -> BrokerHealth {
        self.core.lock().health()
    }
}

fn not_found(source: &Source) -> BrokerError {
    BrokerError::NotFound {
        queue: source.to_string(),
    }
}

/// Fails as RabbitMQ's deadline would, but at once: nobody comes back by waiting here.
fn available(hub: &Hub) -> Result<(), BrokerError> {
    match hub.refusal() {
        Some(PublishFailure::NotConnected(reason)) => Err(BrokerError::Unavailable {
            after: Duration::ZERO,
            reason,
        }),
        _ => Ok(()),
    }
}
