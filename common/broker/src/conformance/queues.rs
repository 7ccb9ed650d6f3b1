//! Publishing, routing, depth, expiry, and how consumers share a queue.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::support::{
    bodies, consumer, deliveries, delivery, depth, nothing_buffered, numbered, publish_all, ready,
    soon, text, to_work, work,
};
use crate::broker::Broker;
use crate::error::{BrokerError, PublishFailure};
use crate::message::{HeaderValue, MAX_BODY_BYTES, Publication, PublishOutcome, Source, Target};

pub async fn messages_come_in_order_and_whole(broker: Arc<dyn Broker>) {
    let mut events = consumer(&*broker, Source::Events(0), 100).await;
    let large = vec![0xAB; MAX_BODY_BYTES];
    let mut batch: Vec<Publication> = (0..50)
        .map(|number| Publication::new(Target::Events(0), number.to_string()))
        .collect();
    batch.push(Publication::new(Target::Events(0), large.clone()));
    batch.push(Publication::new(Target::Events(0), ""));
    publish_all(&*broker, batch).await;
    let got = deliveries(&mut *events, 52).await;
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&got[..50]), expected);
    assert_eq!(got[50].body, large);
    assert!(got[51].body.is_empty());
    assert!(
        got.iter()
            .all(|delivery| !delivery.redelivered && delivery.death.is_none())
    );
    assert!(got.is_sorted_by_key(|delivery| delivery.tag));
}

pub async fn headers_make_the_round_trip(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    let published = to_work("q", "x")
        .with_header("fence", i64::MAX)
        .with_header("negative", -1)
        .with_header("ti", "한국어 id")
        .with_header("empty", "");
    publish_all(&*broker, vec![published.clone()]).await;
    let mut consumer = consumer(&*broker, work("q"), 1).await;
    let got = delivery(&mut *consumer).await;
    assert_eq!(got.headers, published.headers);
    assert_eq!(got.headers["fence"].as_int(), Some(i64::MAX));
    assert_eq!(got.headers["ti"], HeaderValue::from("한국어 id"));
}

pub async fn outcomes_come_in_the_order_of_the_batch(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("there").await.unwrap();
    let batch: Vec<Publication> = (0..300)
        .map(|number| {
            let queue = if number % 3 == 1 { "missing" } else { "there" };
            to_work(queue, number.to_string())
        })
        .collect();
    let outcomes = soon("publishing", broker.publish(batch)).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let returned = matches!(outcome, PublishOutcome::Returned { .. });
        assert_eq!(returned, number % 3 == 1, "message {number}: {outcome:?}");
        assert_eq!(
            outcome.is_confirmed(),
            number % 3 != 1,
            "message {number}: {outcome:?}"
        );
    }
    ready(&*broker, &work("there"), 200).await;
}

pub async fn a_large_batch_is_confirmed_as_a_whole(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 2500)).await;
    ready(&*broker, &work("q"), 2500).await;
    assert!(broker.publish(Vec::new()).await.is_empty());
}

pub async fn oversized_messages_are_refused(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    let body = vec![b'x'; MAX_BODY_BYTES + 1];
    let batch = vec![
        Publication::new(Target::Work("q".into()), body.clone()),
        to_work("q", "small"),
        Publication::new(Target::Events(0), body.clone()),
        Publication::new(Target::Dead, body),
    ];
    let outcomes = soon("publishing", broker.publish(batch)).await;
    let too_large = PublishOutcome::Failed {
        reason: PublishFailure::TooLarge {
            bytes: MAX_BODY_BYTES + 1,
            limit: MAX_BODY_BYTES,
        },
        maybe_published: false,
    };
    let confirmed = PublishOutcome::Confirmed;
    assert_eq!(
        outcomes,
        [too_large.clone(), confirmed.clone(), too_large, confirmed]
    );
    ready(&*broker, &work("q"), 1).await;
}

pub async fn impossible_targets_are_refused(broker: Arc<dyn Broker>) {
    let shards = broker.event_shards();
    let batch = vec![
        Publication::new(Target::Events(shards), "x"),
        Publication::new(Target::Work(String::new()), "x"),
        Publication::new(Target::Work("q".repeat(300)), "x"),
    ];
    for outcome in broker.publish(batch).await {
        assert!(
            matches!(
                outcome,
                PublishOutcome::Failed {
                    reason: PublishFailure::Invalid(_),
                    maybe_published: false
                }
            ),
            "{outcome:?}"
        );
    }
    let shard = broker.consume(Source::Events(shards), 1).await;
    assert!(
        matches!(shard, Err(BrokerError::NoSuchShard { .. })),
        "{shard:?}"
    );
    let unnamed = broker.declare_work_queue("").await;
    assert!(
        matches!(unnamed, Err(BrokerError::InvalidQueueName { .. })),
        "{unnamed:?}"
    );
}

pub async fn missing_queues_return_messages(broker: Arc<dyn Broker>) {
    let outcomes = soon("publishing", broker.publish(vec![to_work("nobody", "x")])).await;
    assert!(
        matches!(&outcomes[..], [PublishOutcome::Returned { .. }]),
        "{outcomes:?}"
    );
    let missing = work("nobody");
    for answer in [
        broker.depth(&missing).await.map(|_| ()),
        broker.purge(&missing).await.map(|_| ()),
    ] {
        assert!(
            matches!(answer, Err(BrokerError::NotFound { .. })),
            "{answer:?}"
        );
    }
    // None of it has broken anything.
    broker.declare_work_queue("nobody").await.unwrap();
    publish_all(&*broker, vec![to_work("nobody", "x")]).await;
    ready(&*broker, &missing, 1).await;
}

pub async fn depth_counts_ready_messages_and_consumers(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 5)).await;
    ready(&*broker, &work("q"), 5).await;
    let mut first = consumer(&*broker, work("q"), 2).await;
    deliveries(&mut *first, 2).await;
    depth(&*broker, &work("q"), |depth| {
        depth.ready == 3 && depth.consumers == 1
    })
    .await;
    drop(first);
    depth(&*broker, &work("q"), |depth| {
        depth.ready == 5 && depth.consumers == 0
    })
    .await;
    let empty = broker.depth(&Source::Dead).await.unwrap();
    assert_eq!((empty.ready, empty.consumers), (0, 0));
}

pub async fn purge_drops_ready_messages_only(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 5)).await;
    let mut holder = consumer(&*broker, work("q"), 2).await;
    let held = deliveries(&mut *holder, 2).await;
    ready(&*broker, &work("q"), 3).await;
    assert_eq!(broker.purge(&work("q")).await, Ok(3));
    holder.give_back(&[held[1].tag]);
    let again = delivery(&mut *holder).await;
    assert_eq!(text(&again.body), "1");
}

pub async fn expired_messages_die(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    let short = to_work("q", "short")
        .with_header("fence", 7)
        .with_expiration(Duration::from_millis(50));
    let long = to_work("q", "long").with_expiration(Duration::from_secs(3600));
    publish_all(&*broker, vec![short, long]).await;
    let mut dead = consumer(&*broker, Source::Dead, 10).await;
    let got = delivery(&mut *dead).await;
    assert_eq!(text(&got.body), "short");
    assert_eq!(got.headers["fence"].as_int(), Some(7));
    let death = got.death.expect("a dead message says why");
    assert_eq!(death.reason, "expired");
    assert_eq!(death.source, Some(work("q")));
    ready(&*broker, &work("q"), 1).await;
}

pub async fn prefetch_bounds_what_is_held(broker: Arc<dyn Broker>) {
    broker.declare_work_queue("q").await.unwrap();
    publish_all(&*broker, numbered("q", 10)).await;
    let mut consumer = consumer(&*broker, work("q"), 3).await;
    let held = deliveries(&mut *consumer, 3).await;
    ready(&*broker, &work("q"), 7).await;
    nothing_buffered(&mut *consumer);
    consumer.ack(&[held[0].tag]);
    assert_eq!(text(&delivery(&mut *consumer).await.body), "3");
    ready(&*broker, &work("q"), 6).await;
    nothing_buffered(&mut *consumer);
}

pub async fn consumers_share_a_work_queue(broker: Arc<dyn Broker>) {
    let mut first = consumer(&*broker, work("q"), 5).await;
    let mut second = consumer(&*broker, work("q"), 5).await;
    publish_all(&*broker, numbered("q", 10)).await;
    let mut seen = bodies(&deliveries(&mut *first, 5).await);
    seen.extend(bodies(&deliveries(&mut *second, 5).await));
    let distinct: BTreeSet<String> = seen.into_iter().collect();
    assert_eq!(distinct.len(), 10);
}

pub async fn one_consumer_of_a_shard_is_active(broker: Arc<dyn Broker>) {
    let shard = Source::Events(1);
    let mut active = consumer(&*broker, shard.clone(), 2).await;
    let mut standby = consumer(&*broker, shard.clone(), 2).await;
    let batch = (0..6)
        .map(|number| Publication::new(Target::Events(1), number.to_string()))
        .collect();
    publish_all(&*broker, batch).await;
    let first = deliveries(&mut *active, 2).await;
    assert_eq!(bodies(&first), ["0", "1"]);
    active.ack(&[first[0].tag]);
    assert_eq!(text(&delivery(&mut *active).await.body), "2");
    ready(&*broker, &shard, 3).await;
    nothing_buffered(&mut *standby);
    // The active one dies: the other takes over where it was, in order.
    drop(active);
    let mut taken_over = Vec::new();
    for _ in 0..5 {
        let delivery = delivery(&mut *standby).await;
        standby.ack(&[delivery.tag]);
        taken_over.push(delivery);
    }
    assert_eq!(bodies(&taken_over), ["1", "2", "3", "4", "5"]);
    assert!(taken_over[0].redelivered && taken_over[1].redelivered);
    assert!(!taken_over[2].redelivered);
}
