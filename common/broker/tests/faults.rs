//! The in-process broker's bad days.

use std::sync::Arc;
use std::time::Duration;

use gristmill_broker::{
    Broker, BrokerError, Consumer, ConsumerEvent, ConsumerStatus, ControlEvent, ControlTarget,
    Delivery, InProcess, InProcessConfig, Publication, PublishFailure, PublishOutcome, Source,
    Target,
};

fn broker() -> Arc<InProcess> {
    InProcess::new(InProcessConfig::default())
}

fn event(body: &'static str) -> Publication {
    Publication::new(Target::Events(0), body)
}

async fn publish(broker: &InProcess, bodies: &[&'static str]) {
    let batch = bodies.iter().map(|body| event(body)).collect();
    let outcomes = broker.publish(batch).await;
    assert_eq!(outcomes, vec![PublishOutcome::Confirmed; bodies.len()]);
}

async fn consumer(broker: &InProcess) -> Box<dyn Consumer> {
    broker.consume(Source::Events(0), 10).await.unwrap()
}

/// Everything is there by the time a call returns, so nothing needs to be waited for.
fn delivery(consumer: &mut dyn Consumer) -> Delivery {
    match consumer.try_next() {
        Some(ConsumerEvent::Delivery(delivery)) => delivery,
        other => panic!("expected a delivery, not {other:?}"),
    }
}

fn bodies(consumer: &mut dyn Consumer) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(ConsumerEvent::Delivery(delivery)) = consumer.try_next() {
        bodies.push(String::from_utf8_lossy(&delivery.body).into_owned());
    }
    bodies
}

fn assert_reset(consumer: &mut dyn Consumer) {
    let event = consumer.try_next();
    assert!(
        matches!(event, Some(ConsumerEvent::Reset { .. })),
        "{event:?}"
    );
}

#[tokio::test]
async fn redelivery_resets_and_voids_the_old_tags() {
    let broker = broker();
    let mut consumer = consumer(&broker).await;
    publish(&broker, &["a", "b"]).await;
    let held = delivery(&mut *consumer);
    assert_eq!(delivery(&mut *consumer).body, "b");
    broker.faults().redeliver(&Source::Events(0));
    assert_reset(&mut *consumer);
    // The new tag of `a` has the same number at the broker: acknowledging the old one must not touch it.
    consumer.ack(&[held.tag]);
    let stale = consumer.dead_letter(&held, "late").await;
    assert_eq!(stale, Err(BrokerError::StaleDelivery));
    let again = delivery(&mut *consumer);
    assert_eq!(again.body, "a");
    assert!(again.redelivered && again.tag > held.tag);
    consumer.ack_through(again.tag);
    drop(consumer);
    assert_eq!(broker.depth(&Source::Events(0)).await.unwrap().ready, 1);
}

#[tokio::test]
async fn messages_are_duplicated_and_reordered() {
    let broker = broker();
    let mut consumer = consumer(&broker).await;
    broker.faults().duplicate_next(&Source::Events(0), 1);
    publish(&broker, &["a", "b"]).await;
    assert_eq!(bodies(&mut *consumer), ["a", "a", "b"]);
    broker.faults().reorder_next(&Source::Events(0), 3);
    publish(&broker, &["1", "2"]).await;
    assert_eq!(bodies(&mut *consumer), Vec::<String>::new());
    publish(&broker, &["3", "4"]).await;
    assert_eq!(bodies(&mut *consumer), ["3", "2", "1", "4"]);
}

#[tokio::test]
async fn a_lost_confirm_leaves_the_message() {
    let broker = broker();
    broker.faults().lose_confirms(1);
    let outcomes = broker.publish(vec![event("a"), event("b")]).await;
    assert!(
        matches!(
            outcomes[..],
            [
                PublishOutcome::Failed {
                    maybe_published: true,
                    ..
                },
                PublishOutcome::Confirmed
            ]
        ),
        "{outcomes:?}"
    );
    assert_eq!(bodies(&mut *consumer(&broker).await), ["a", "b"]);
}

#[tokio::test]
async fn a_disconnected_broker_fails_every_call_and_comes_back() {
    let broker = broker();
    let mut active = consumer(&broker).await;
    let mut standby = consumer(&broker).await;
    let mut control = broker.subscribe_control("w").await.unwrap();
    publish(&broker, &["a"]).await;
    assert_eq!(delivery(&mut *active).body, "a");

    broker.faults().disconnect();
    assert_reset(&mut *active);
    assert_reset(&mut *standby);
    assert!(matches!(control.next().await, ControlEvent::Reset { .. }));
    assert_eq!(active.state().status, ConsumerStatus::Connecting);
    let outcomes = broker.publish(vec![event("b")]).await;
    assert!(
        matches!(
            &outcomes[..],
            [PublishOutcome::Failed {
                reason: PublishFailure::NotConnected(_),
                maybe_published: false
            }]
        ),
        "{outcomes:?}"
    );
    let depth = broker.depth(&Source::Events(0)).await;
    assert!(
        matches!(depth, Err(BrokerError::Unavailable { .. })),
        "{depth:?}"
    );
    assert!(!broker.health().connected);
    // A consumer that is made now waits, too.
    let late = consumer(&broker).await;
    assert!(!late.state().is_registered());
    standby.pause().await;

    broker.faults().reconnect();
    assert!(broker.health().connected);
    assert!(active.state().is_registered() && late.state().is_registered());
    assert_eq!(standby.state().status, ConsumerStatus::Paused);
    let again = delivery(&mut *active);
    assert_eq!(again.body, "a");
    assert!(again.redelivered);
    let target = ControlTarget::Worker {
        incarnation: "w".into(),
    };
    let outcomes = broker
        .publish(vec![Publication::new(Target::Control(target), "hi")])
        .await;
    assert_eq!(outcomes, [PublishOutcome::Confirmed]);
    assert!(matches!(control.next().await, ControlEvent::Message(message) if message.body == "hi"));
}

#[tokio::test]
async fn a_blocked_broker_says_why() {
    let broker = broker();
    broker.faults().set_blocked(Some("low on memory"));
    let outcomes = broker.publish(vec![event("a")]).await;
    let blocked = PublishOutcome::Failed {
        reason: PublishFailure::Blocked("low on memory".into()),
        maybe_published: false,
    };
    assert_eq!(outcomes, [blocked]);
    assert_eq!(broker.health().blocked.as_deref(), Some("low on memory"));
    broker.faults().set_blocked(None);
    publish(&broker, &["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn messages_expire_one_after_another() {
    let broker = broker();
    broker.declare_work_queue("q").await.unwrap();
    let expiring = |body: &'static str, seconds| {
        Publication::new(Target::Work("q".into()), body)
            .with_expiration(Duration::from_secs(seconds))
    };
    let batch = vec![
        expiring("60", 60),
        expiring("90", 90),
        expiring("30, but third", 30),
    ];
    broker.publish(batch).await;
    let mut dead = broker.consume(Source::Dead, 10).await.unwrap();
    // As on RabbitMQ, what stands behind the head waits for it.
    for (seconds, body) in [(60, "60"), (30, "90"), (0, "30, but third")] {
        let before = tokio::time::Instant::now();
        let ConsumerEvent::Delivery(delivery) = dead.next().await else {
            panic!("expected a delivery");
        };
        assert_eq!(delivery.body, body);
        assert_eq!(before.elapsed().as_secs(), seconds);
    }
}
