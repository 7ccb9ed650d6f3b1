//! Acknowledging, giving back, dead-lettering, pausing.

use std::sync::Arc;

use super::support::{
    bodies, consumer, deliveries, delivery, depth, nothing_buffered, numbered, publish_all, ready,
    text, to_work, work,
};
use crate::broker::{Broker, ConsumerStatus};
use crate::error::BrokerError;
use crate::message::{ConsumerEvent, Source};

pub async fn what_is_acknowledged_is_gone(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 4)).await;
    let mut first = consumer(&*broker, work("q"), 10).await;
    let held = deliveries(&mut *first, 4).await;
    first.ack(&[held[2].tag, held[0].tag]);
    first.close().await;
    ready(&*broker, &work("q"), 2).await;
    let mut second = consumer(&*broker, work("q"), 10).await;
    assert_eq!(bodies(&deliveries(&mut *second, 2).await), ["1", "3"]);
}

pub async fn ack_through_settles_everything_before(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 6)).await;
    let mut first = consumer(&*broker, work("q"), 10).await;
    let held = deliveries(&mut *first, 6).await;
    first.give_back(&[held[1].tag]);
    let again = delivery(&mut *first).await;
    assert_eq!(text(&again.body), "1");
    first.ack(&[held[0].tag]);
    // Settles 2 and 3; 1 has a new, later tag, and 4 and 5 come after.
    first.ack_through(held[3].tag);
    first.close().await;
    ready(&*broker, &work("q"), 3).await;
    let mut second = consumer(&*broker, work("q"), 10).await;
    assert_eq!(bodies(&deliveries(&mut *second, 3).await), ["1", "4", "5"]);
}

pub async fn given_back_messages_come_again(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, vec![to_work("q", "x").with_header("fence", 3)]).await;
    let mut consumer = consumer(&*broker, work("q"), 1).await;
    let first = delivery(&mut *consumer).await;
    assert!(!first.redelivered);
    let mut tag = first.tag;
    for _ in 0..30 {
        // Not counted: far beyond any delivery limit.
        consumer.give_back(&[tag]);
        tag = delivery(&mut *consumer).await.tag;
    }
    consumer.give_back(&[tag]);
    let last = delivery(&mut *consumer).await;
    assert!(last.redelivered);
    assert_eq!(
        (text(&last.body).as_str(), last.headers),
        ("x", first.headers)
    );
    assert!(last.tag > first.tag);
}

pub async fn dropping_a_consumer_gives_back(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 5)).await;
    let mut first = consumer(&*broker, work("q"), 4).await;
    // Two handed out, two buffered.
    deliveries(&mut *first, 2).await;
    ready(&*broker, &work("q"), 1).await;
    drop(first);
    ready(&*broker, &work("q"), 5).await;
    let mut second = consumer(&*broker, work("q"), 10).await;
    let got = deliveries(&mut *second, 5).await;
    assert_eq!(bodies(&got), ["0", "1", "2", "3", "4"]);
    assert!(got[0].redelivered && !got[4].redelivered);
}

pub async fn dead_letters_keep_body_headers_and_reason(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(
        &*broker,
        vec![to_work("q", "poison").with_header("fence", 9)],
    )
    .await;
    let mut victim = consumer(&*broker, work("q"), 1).await;
    let poison = delivery(&mut *victim).await;
    victim
        .dead_letter(&poison, "unknown version 7")
        .await
        .unwrap();
    let mut dead = consumer(&*broker, Source::Dead, 1).await;
    let got = delivery(&mut *dead).await;
    assert_eq!(text(&got.body), "poison");
    assert_eq!(got.headers, poison.headers);
    let death = got.death.expect("a dead message says why");
    assert_eq!(death.reason, "unknown version 7");
    assert_eq!(death.source, Some(work("q")));
    // It is settled, and the consumer lives on.
    let stale = victim.dead_letter(&poison, "again").await;
    assert_eq!(stale, Err(BrokerError::StaleDelivery));
    publish_all(&*broker, vec![to_work("q", "healthy")]).await;
    assert_eq!(text(&delivery(&mut *victim).await.body), "healthy");
}

pub async fn dead_letters_can_be_dead_lettered_again(broker: Arc<dyn Broker>) {
    let mut events = consumer(&*broker, Source::Events(2), 1).await;
    let published = crate::Publication::new(crate::Target::Events(2), "x");
    publish_all(&*broker, vec![published]).await;
    let bad = delivery(&mut *events).await;
    events.dead_letter(&bad, "first").await.unwrap();
    let mut dead = consumer(&*broker, Source::Dead, 1).await;
    let first = delivery(&mut *dead).await;
    assert_eq!(
        first.death.as_ref().map(|death| &death.reason[..]),
        Some("first")
    );
    dead.dead_letter(&first, "second").await.unwrap();
    let second = delivery(&mut *dead).await;
    let death = second.death.expect("a dead message says why");
    assert_eq!(death.reason, "second");
    assert_eq!(death.source, Some(Source::Dead));
}

pub async fn settling_twice_is_harmless(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 3)).await;
    let mut consumer = consumer(&*broker, work("q"), 3).await;
    let held = deliveries(&mut *consumer, 3).await;
    consumer.ack(&[held[0].tag, held[0].tag]);
    consumer.give_back(&[held[0].tag]);
    consumer.ack_through(held[1].tag);
    consumer.ack_through(held[1].tag);
    consumer.ack(&[held[1].tag]);
    consumer.ack(&[held[2].tag]);
    publish_all(&*broker, vec![to_work("q", "after")]).await;
    assert_eq!(text(&delivery(&mut *consumer).await.body), "after");
}

pub async fn pause_gives_back_what_is_buffered(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 10)).await;
    let mut consumer = consumer(&*broker, work("q"), 5).await;
    let held = deliveries(&mut *consumer, 2).await;
    ready(&*broker, &work("q"), 5).await;
    consumer.pause().await;
    assert_eq!(consumer.state().status, ConsumerStatus::Paused);
    depth(&*broker, &work("q"), |depth| {
        depth.ready == 8 && depth.consumers == 0
    })
    .await;
    nothing_buffered(&mut *consumer);
    // What was handed out is still ours.
    consumer.ack(&[held[0].tag]);
    consumer.give_back(&[held[1].tag]);
    ready(&*broker, &work("q"), 9).await;
    // Pausing twice changes nothing.
    consumer.pause().await;
    ready(&*broker, &work("q"), 9).await;
}

pub async fn resume_goes_on_with_the_new_prefetch(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    let mut consumer = consumer(&*broker, work("q"), 5).await;
    consumer.pause().await;
    publish_all(&*broker, numbered("q", 10)).await;
    ready(&*broker, &work("q"), 10).await;
    consumer.resume(2).await;
    assert!(consumer.state().is_registered());
    let held = deliveries(&mut *consumer, 2).await;
    assert_eq!(bodies(&held), ["0", "1"]);
    ready(&*broker, &work("q"), 8).await;
    nothing_buffered(&mut *consumer);
}

pub async fn resume_changes_the_prefetch_of_a_running_consumer(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 10)).await;
    let mut consumer = consumer(&*broker, work("q"), 2).await;
    ready(&*broker, &work("q"), 8).await;
    let first = delivery(&mut *consumer).await;
    consumer.resume(4).await;
    // The first is still held, the second was buffered.
    let more = deliveries(&mut *consumer, 3).await;
    assert_eq!(bodies(&more), ["1", "2", "3"]);
    consumer.ack(&[first.tag]);
    consumer.ack_through(more[2].tag);
    let later = deliveries(&mut *consumer, 4).await;
    assert_eq!(bodies(&later), ["4", "5", "6", "7"]);
}

pub async fn try_next_takes_what_is_there(broker: Arc<dyn Broker>) {
    let mut consumer = consumer(&*broker, work("q"), 100).await;
    nothing_buffered(&mut *consumer);
    publish_all(&*broker, numbered("q", 50)).await;
    let mut got = vec![text(&delivery(&mut *consumer).await.body)];
    while got.len() < 50 {
        match consumer.try_next() {
            Some(ConsumerEvent::Delivery(delivery)) => got.push(text(&delivery.body)),
            Some(reset) => panic!("unexpected {reset:?}"),
            None => got.push(text(&delivery(&mut *consumer).await.body)),
        }
    }
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(got, expected);
}
