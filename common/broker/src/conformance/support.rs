//! What the tests of this suite have in common.

use std::time::Duration;

use crate::broker::{Broker, Consumer, ConsumerState, ControlStream};
use crate::message::{
    ConsumerEvent, ControlEvent, ControlMessage, Delivery, Publication, PublishOutcome, Source,
    Target,
};

/// Far beyond what any step takes; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

pub(super) fn work(queue: &str) -> Source {
    Source::Work(queue.to_owned())
}

pub(super) fn to_work(queue: &str, body: impl Into<String>) -> Publication {
    Publication::new(Target::Work(queue.to_owned()), body.into())
}

/// Messages `0`, `1`, … to a work queue.
pub(super) fn numbered(queue: &str, count: usize) -> Vec<Publication> {
    (0..count)
        .map(|number| to_work(queue, number.to_string()))
        .collect()
}

pub(super) async fn publish_all(broker: &dyn Broker, batch: Vec<Publication>) {
    let count = batch.len();
    let outcomes = soon("publishing", broker.publish(batch)).await;
    assert_eq!(outcomes, vec![PublishOutcome::Confirmed; count]);
}

/// A consumer that is registered at the broker.
pub(super) async fn consumer(
    broker: &dyn Broker,
    source: Source,
    prefetch: u16,
) -> Box<dyn Consumer> {
    let consumer = broker
        .consume(source, prefetch)
        .await
        .expect("the source is valid");
    registered(consumer.watch_state()).await;
    consumer
}

pub(super) async fn subscription(broker: &dyn Broker, incarnation: &str) -> Box<dyn ControlStream> {
    let stream = broker
        .subscribe_control(incarnation)
        .await
        .expect("the incarnation is valid");
    registered(stream.watch_state()).await;
    stream
}

pub(super) async fn registered(mut state: tokio::sync::watch::Receiver<ConsumerState>) {
    soon("registration", state.wait_for(ConsumerState::is_registered))
        .await
        .expect("the consumer lives");
}

pub(super) async fn delivery(consumer: &mut dyn Consumer) -> Delivery {
    match soon("a delivery", consumer.next()).await {
        ConsumerEvent::Delivery(delivery) => delivery,
        ConsumerEvent::Reset { reason } => panic!("a reset instead of a delivery: {reason}"),
    }
}

pub(super) async fn deliveries(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        found.push(delivery(consumer).await);
    }
    found
}

pub(super) fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

pub(super) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| text(&delivery.body))
        .collect()
}

pub(super) async fn control_message(stream: &mut dyn ControlStream) -> ControlMessage {
    match soon("a control message", stream.next()).await {
        ControlEvent::Message(message) => message,
        ControlEvent::Reset { reason } => panic!("a reset instead of a message: {reason}"),
    }
}

/// Waits until the queue has this many ready messages. What was sent to a broker takes effect a moment later.
pub(super) async fn ready(broker: &dyn Broker, source: &Source, expected: u64) {
    depth(broker, source, |depth| depth.ready == expected).await;
}

pub(super) async fn depth(
    broker: &dyn Broker,
    source: &Source,
    holds: impl Fn(crate::broker::Depth) -> bool,
) {
    let mut last = None;
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let depth = broker.depth(source).await.expect("the queue exists");
            if holds(depth) {
                return;
            }
            last = Some(depth);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(waited.is_ok(), "{source} stays at {last:?}");
}

/// Asserts that nothing has come. Only of use after waiting for a depth that says where the messages are.
pub(super) fn nothing_buffered(consumer: &mut dyn Consumer) {
    let event = consumer.try_next();
    assert!(event.is_none(), "unexpected {event:?}");
}
