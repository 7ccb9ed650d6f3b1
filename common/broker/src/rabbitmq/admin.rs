//! Questions to the broker and declarations, on a channel that nothing else depends on.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::broker::Depth;
use crate::error::BrokerError;
use crate::message::Source;
use crate::names::queue_name;
use crate::rabbitmq::link::{Link, Session};
use crate::rabbitmq::topology::{NOT_FOUND, Topology, is_reply};

/// Asks about queues. Keeps its channel between questions; an error (a queue that does not exist) costs it.
#[derive(Debug)]
pub(super) struct Admin {
    link: Arc<Link>,
    deadline: Duration,
    channel: Mutex<Option<Channel>>,
}

impl Admin {
    pub(super) fn new(link: Arc<Link>, deadline: Duration) -> Self {
        Self {
            link,
            deadline,
            channel: Mutex::new(None),
        }
    }

    pub(super) async fn declare_work_queue(
        &self,
        topology: &Topology,
        queue: &str,
    ) -> Result<(), BrokerError> {
        const OPERATION: &str = "queue.declare";
        let until = Instant::now() + self.deadline;
        let session = self.session(until).await?;
        let source = Source::Work(queue.to_owned());
        let declare = async {
            let mut declarer = session.declarer();
            let declared = declarer.queue(topology, &source).await;
            if declared.is_ok() {
                declarer.close().await;
            }
            declared
        };
        match timeout_at(until, declare).await {
            Ok(declared) => declared.map_err(|error| refused(OPERATION, &source, &error)),
            Err(_) => Err(self.timeout(OPERATION)),
        }
    }

    pub(super) async fn depth(&self, source: &Source) -> Result<Depth, BrokerError> {
        let queue = self
            .on_channel("queue.declare (passive)", source, async |channel| {
                channel
                    .queue_declare(
                        queue_name(source).into(),
                        QueueDeclareOptions::durable().passive(),
                        FieldTable::default(),
                    )
                    .await
            })
            .await?;
        Ok(Depth {
            ready: u64::from(queue.message_count()),
            consumers: u64::from(queue.consumer_count()),
        })
    }

    pub(super) async fn purge(&self, source: &Source) -> Result<u64, BrokerError> {
        self.on_channel("queue.purge", source, async |channel| {
            channel
                .queue_purge(queue_name(source).into(), QueuePurgeOptions::default())
                .await
        })
        .await
        .map(u64::from)
    }

    async fn on_channel<T>(
        &self,
        operation: &'static str,
        source: &Source,
        ask: impl AsyncFnOnce(&Channel) -> Result<T, lapin::Error>,
    ) -> Result<T, BrokerError> {
        let until = Instant::now() + self.deadline;
        let session = self.session(until).await?;
        let answer = async {
            let mut slot = self.channel.lock().await;
            // Taken out, so that an error or a dropped future costs the channel and the next question gets a fresh one.
            let channel = match slot.take() {
                Some(channel) if channel.status().connected() => channel,
                _ => session.open_channel().await?,
            };
            let answer = ask(&channel).await?;
            *slot = Some(channel);
            Ok(answer)
        };
        match timeout_at(until, answer).await {
            Ok(answer) => answer.map_err(|error| refused(operation, source, &error)),
            Err(_) => Err(self.timeout(operation)),
        }
    }

    async fn session(&self, until: Instant) -> Result<Arc<Session>, BrokerError> {
        timeout_at(until, self.link.session())
            .await
            .map_err(|_| BrokerError::Unavailable {
                after: self.deadline,
                reason: self.link.last_error(),
            })
    }

    fn timeout(&self, operation: &'static str) -> BrokerError {
        BrokerError::Timeout {
            operation,
            after: self.deadline,
        }
    }
}

fn refused(operation: &'static str, source: &Source, error: &lapin::Error) -> BrokerError {
    if is_reply(error, NOT_FOUND) {
        return BrokerError::NotFound {
            queue: source.to_string(),
        };
    }
    BrokerError::Refused {
        operation,
        reason: error.to_string(),
    }
}
