//! The traits: what the rest of the program knows of a message broker.

use std::fmt::Debug;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::BrokerError;
use crate::message::{
    ConsumerEvent, ControlEvent, Delivery, DeliveryTag, Publication, PublishOutcome, Source,
};

/// A message broker with work, events, control and dead queues.
///
/// Delivery is at-least-once for work, events and dead messages and at-most-once for control messages. A broker that is away is
/// never an error of a consumer: it is waited for. Calls with an answer wait for it until their deadline and never longer.
#[async_trait]
pub trait Broker: Debug + Send + Sync + 'static {
    /// Publishes a batch, in order per target, and tells what became of each message, in the order given.
    ///
    /// Returns within the broker's publish deadline (5 s unless configured) whatever happens. Dropping the future leaves
    /// it open which of the messages were published. Batches of concurrent calls are not ordered among each other.
    async fn publish(&self, batch: Vec<Publication>) -> Vec<PublishOutcome>;

    /// Makes sure that the work queue exists, now and after every rebuild of the connection.
    ///
    /// A queue that exists with other arguments is used as it is, with a warning in the log.
    ///
    /// # Errors
    /// [`BrokerError::InvalidQueueName`], [`BrokerError::Unavailable`], [`BrokerError::Timeout`], [`BrokerError::Refused`].
    async fn declare_work_queue(&self, queue: &str) -> Result<(), BrokerError>;

    /// Starts a consumer with at most `prefetch` (at least 1) unacknowledged deliveries at a time. Returns at once: registration
    /// goes on in the background, for as long as it takes. Consuming from a work queue declares it.
    ///
    /// # Errors
    /// [`BrokerError::InvalidQueueName`], [`BrokerError::NoSuchShard`]; never because the broker is away.
    async fn consume(
        &self,
        source: Source,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Subscribes to the control messages for `incarnation` and for all workers. Returns at once, as [`Broker::consume`] does.
    ///
    /// # Errors
    /// [`BrokerError::InvalidQueueName`] if the incarnation is empty or too long for a routing key.
    async fn subscribe_control(
        &self,
        incarnation: &str,
    ) -> Result<Box<dyn ControlStream>, BrokerError>;

    /// How many messages are ready in the queue, and how many consumers it has.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] if there is no such queue; [`BrokerError::Unavailable`], [`BrokerError::Timeout`], [`BrokerError::Refused`].
    async fn depth(&self, source: &Source) -> Result<Depth, BrokerError>;

    /// Drops all ready messages of the queue and returns their number. Unacknowledged deliveries stay.
    ///
    /// # Errors
    /// As [`Broker::depth`].
    async fn purge(&self, source: &Source) -> Result<u64, BrokerError>;

    /// How many events shards there are; [`Target::Events`](crate::Target::Events) takes `0..event_shards()`.
    fn event_shards(&self) -> u32;

    /// The state of the connections, for health pages; does no I/O.
    fn health(&self) -> BrokerHealth;
}

/// A consumer of one queue, on a channel of its own. Dropping it closes the channel, which gives back what was not settled.
///
/// Settling calls return at once; what they say is sent in the background, in order. Tags that are void are ignored.
#[async_trait]
pub trait Consumer: Debug + Send {
    /// The next event; waits for ever while there is none, also while paused. Cancel safe.
    async fn next(&mut self) -> ConsumerEvent;

    /// The next event if it is here already; for building batches.
    fn try_next(&mut self) -> Option<ConsumerEvent>;

    /// Acknowledges these deliveries: the broker forgets their messages.
    fn ack(&mut self, tags: &[DeliveryTag]);

    /// Acknowledges this and every earlier delivery that is not settled yet.
    fn ack_through(&mut self, tag: DeliveryTag);

    /// Returns these messages to the queue, marked as redelivered. Nothing is counted.
    fn give_back(&mut self, tags: &[DeliveryTag]);

    /// Moves the message to the dead queue with this reason, and acknowledges it once the dead queue has it.
    ///
    /// # Errors
    /// [`BrokerError::DeadLetter`]: the delivery stays unacknowledged, nothing is lost; try again or give it back.
    /// [`BrokerError::StaleDelivery`]: a reset came in between; the message comes again.
    async fn dead_letter(&mut self, delivery: &Delivery, reason: &str) -> Result<(), BrokerError>;

    /// Stops deliveries and gives back what was buffered here; what [`Consumer::next`] has handed out can still be settled.
    async fn pause(&mut self);

    /// Starts deliveries again, with this prefetch. On a running consumer it sets the new prefetch.
    async fn resume(&mut self, prefetch: u16);

    /// Whether the consumer is registered at the broker, live, for health probes and for waiting until it is.
    fn watch_state(&self) -> watch::Receiver<ConsumerState>;

    /// The current [`ConsumerState`].
    fn state(&self) -> ConsumerState {
        self.watch_state().borrow().clone()
    }

    /// Sends what is left to send, closes the channel and waits for the broker's answer (for a few seconds at most).
    async fn close(self: Box<Self>);
}

/// A subscription to control messages. Dropping it ends it.
#[async_trait]
pub trait ControlStream: Debug + Send {
    /// The next event; waits for ever while there is none. Cancel safe.
    async fn next(&mut self) -> ControlEvent;

    /// Whether the subscription stands at the broker.
    fn watch_state(&self) -> watch::Receiver<ConsumerState>;

    /// The current [`ConsumerState`].
    fn state(&self) -> ConsumerState {
        self.watch_state().borrow().clone()
    }
}

/// Where a consumer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConsumerStatus {
    /// Not registered at the broker; it is being (re)built.
    Connecting,
    /// The broker has confirmed the registration, and nothing has ended it since.
    Registered,
    /// Paused on request.
    Paused,
}

/// The live state of a consumer or subscription.
#[derive(Clone, Debug)]
pub struct ConsumerState {
    /// Where it stands.
    pub status: ConsumerStatus,
    /// Since when.
    pub since: Instant,
    /// What ended the last registration or failed the last attempt; cleared by the next success.
    pub last_error: Option<String>,
}

impl ConsumerState {
    pub(crate) fn new(status: ConsumerStatus, last_error: Option<String>) -> Self {
        Self {
            status,
            since: Instant::now(),
            last_error,
        }
    }

    /// Whether the broker has confirmed the registration, and nothing has ended it since.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.status == ConsumerStatus::Registered
    }
}

/// The state of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait for a consumer (unacknowledged deliveries are not among them).
    pub ready: u64,
    /// Registered consumers.
    pub consumers: u64,
}

/// The state of the connections to the broker.
#[derive(Clone, Debug)]
pub struct BrokerHealth {
    /// Whether all connections stand.
    pub connected: bool,
    /// Why the broker takes no messages now, if it does not.
    pub blocked: Option<String>,
    /// The last connection error; cleared by the next success.
    pub last_error: Option<String>,
    /// Since when `connected` is what it is.
    pub since: Instant,
}
