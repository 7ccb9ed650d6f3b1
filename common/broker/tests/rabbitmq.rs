//! What only a real server can show: its death, its absence, its silence.

mod support;

use std::time::{Duration, Instant};

use gristmill_broker::{
    Broker, BrokerError, Consumer, ConsumerEvent, ConsumerState, Publication, PublishFailure,
    PublishOutcome, RabbitMq, RabbitMqConfig, Source, Target,
};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use support::{Vhost, private_server, set_memory_alarm};

const PATIENCE: Duration = Duration::from_secs(40);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

async fn registered(consumer: &dyn Consumer) {
    let mut state = consumer.watch_state();
    soon("registration", state.wait_for(ConsumerState::is_registered))
        .await
        .unwrap();
}

fn to_work(body: &'static str) -> Publication {
    Publication::new(Target::Work("q".into()), body)
}

fn work() -> Source {
    Source::Work("q".into())
}

/// Publishes until it is confirmed; a message that failed with `maybe_published` may be there twice.
async fn publish_until_confirmed(broker: &dyn Broker, publication: Publication) {
    let confirmed = async {
        loop {
            let outcomes = broker.publish(vec![publication.clone()]).await;
            if outcomes == [PublishOutcome::Confirmed] {
                return;
            }
        }
    };
    soon("a confirm", confirmed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_costs_no_message_and_no_consumer() {
    let server = private_server().await;
    let broker = RabbitMq::start(RabbitMqConfig::new(server.url())).unwrap();
    broker.declare_work_queue("q").await.unwrap();
    let outcomes = broker
        .publish(vec![to_work("1"), to_work("2"), to_work("3")])
        .await;
    assert_eq!(outcomes, vec![PublishOutcome::Confirmed; 3]);
    let mut consumer = broker.consume(work(), 1).await.unwrap();
    let ConsumerEvent::Delivery(held) = soon("a delivery", consumer.next()).await else {
        panic!("expected a delivery");
    };
    assert_eq!(held.body, "1");

    server.kill().await.unwrap();
    let reset = soon("the reset", consumer.next()).await;
    assert!(matches!(reset, ConsumerEvent::Reset { .. }), "{reset:?}");
    assert!(!consumer.state().is_registered());
    // Void now; must not disturb what comes.
    consumer.ack(&[held.tag]);
    let started = Instant::now();
    let outcomes = broker.publish(vec![to_work("lost")]).await;
    assert!(
        matches!(
            outcomes[..],
            [PublishOutcome::Failed {
                maybe_published: false,
                ..
            }]
        ),
        "{outcomes:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(6));
    let health = broker.health();
    assert!(
        !health.connected && health.last_error.is_some(),
        "{health:?}"
    );
    let depth = broker.depth(&work()).await;
    assert!(
        matches!(depth, Err(BrokerError::Unavailable { .. })),
        "{depth:?}"
    );

    server.restart().await.unwrap();
    publish_until_confirmed(&*broker, to_work("4")).await;
    let mut bodies = Vec::new();
    while bodies.last().is_none_or(|last: &String| last != "4") {
        match soon("a delivery", consumer.next()).await {
            ConsumerEvent::Delivery(delivery) => {
                consumer.ack(&[delivery.tag]);
                bodies.push(String::from_utf8_lossy(&delivery.body).into_owned());
            }
            ConsumerEvent::Reset { .. } => {}
        }
    }
    // The persistent messages, the unacknowledged one among them, have survived.
    assert_eq!(bodies[..3], ["1", "2", "3"]);
    let health = broker.health();
    assert!(
        health.connected && health.last_error.is_none(),
        "{health:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_empty_gets_its_queues_again() {
    let server = private_server().await;
    let broker = RabbitMq::start(RabbitMqConfig::new(server.url())).unwrap();
    broker.declare_work_queue("q").await.unwrap();
    let mut control = broker.subscribe_control("w1").await.unwrap();
    server.restart_empty().await.unwrap();
    publish_until_confirmed(&*broker, to_work("x")).await;
    let mut state = control.watch_state();
    soon(
        "the subscription",
        state.wait_for(ConsumerState::is_registered),
    )
    .await
    .unwrap();
    let target = gristmill_broker::ControlTarget::Worker {
        incarnation: "w1".into(),
    };
    publish_until_confirmed(&*broker, Publication::new(Target::Control(target), "hello")).await;
    loop {
        match soon("the control message", control.next()).await {
            gristmill_broker::ControlEvent::Message(message) => {
                assert_eq!(message.body, "hello");
                return;
            }
            gristmill_broker::ControlEvent::Reset { .. } => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_waits_for_a_broker_that_is_not_there_yet() {
    let server = private_server().await;
    server.stop().await.unwrap();
    let broker = RabbitMq::start(RabbitMqConfig::new(server.url())).unwrap();
    let mut consumer = broker.consume(work(), 1).await.unwrap();
    let mut config = RabbitMqConfig::new(server.url());
    config.publish_deadline = Duration::from_millis(300);
    let impatient = RabbitMq::start(config).unwrap();
    let outcomes = impatient.publish(vec![to_work("never")]).await;
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
    server.restart().await.unwrap();
    registered(&*consumer).await;
    publish_until_confirmed(&*broker, to_work("x")).await;
    let event = soon("a delivery", consumer.next()).await;
    assert!(
        matches!(&event, ConsumerEvent::Delivery(delivery) if delivery.body == "x"),
        "{event:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_broker_hangs_nobody() {
    let server = private_server().await;
    let mut config = RabbitMqConfig::new(server.url());
    config.publish_deadline = Duration::from_secs(1);
    config.operation_deadline = Duration::from_secs(1);
    config.heartbeat_s = 2;
    let broker = RabbitMq::start(config).unwrap();
    broker.declare_work_queue("q").await.unwrap();
    let mut consumer = broker.consume(work(), 1).await.unwrap();
    registered(&*consumer).await;
    assert_eq!(
        broker.publish(vec![to_work("1")]).await,
        [PublishOutcome::Confirmed]
    );
    let ConsumerEvent::Delivery(held) = soon("a delivery", consumer.next()).await else {
        panic!("expected a delivery");
    };

    server.pause().unwrap();
    let within = |started: Instant| assert!(started.elapsed() < Duration::from_secs(2));
    let started = Instant::now();
    let outcomes = broker.publish(vec![to_work("2"); 100]).await;
    within(started);
    for outcome in outcomes {
        let deadline = PublishOutcome::Failed {
            reason: PublishFailure::Deadline(Duration::from_secs(1)),
            maybe_published: true,
        };
        assert_eq!(outcome, deadline);
    }
    // The connection has been given up, so that unsent messages do not pile up.
    let started = Instant::now();
    let outcomes = broker.publish(vec![to_work("3")]).await;
    within(started);
    assert!(
        matches!(
            outcomes[..],
            [PublishOutcome::Failed {
                maybe_published: false,
                ..
            }]
        ),
        "{outcomes:?}"
    );
    let started = Instant::now();
    assert!(broker.depth(&work()).await.is_err());
    let dead_lettered = consumer.dead_letter(&held, "poison").await;
    assert!(dead_lettered.is_err());
    assert!(started.elapsed() < Duration::from_secs(4));
    // Missed heartbeats end the consumer's connection.
    let reset = soon("the reset", consumer.next()).await;
    assert!(matches!(reset, ConsumerEvent::Reset { .. }), "{reset:?}");

    server.resume().unwrap();
    registered(&*consumer).await;
    publish_until_confirmed(&*broker, to_work("4")).await;
    let ConsumerEvent::Delivery(again) = soon("a delivery", consumer.next()).await else {
        panic!("expected a delivery");
    };
    assert_eq!(again.body, "1");
    consumer.dead_letter(&again, "poison").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_broker_fails_publishing_at_once_and_nothing_else() {
    let server = private_server().await;
    let mut config = RabbitMqConfig::new(server.url());
    config.publish_deadline = Duration::from_secs(30);
    let broker = RabbitMq::start(config).unwrap();
    let mut consumer = broker.consume(work(), 1).await.unwrap();
    registered(&*consumer).await;
    let outcomes = broker.publish(vec![to_work("1"), to_work("2")]).await;
    assert_eq!(outcomes, vec![PublishOutcome::Confirmed; 2]);

    set_memory_alarm(&server, true).await;
    // The broker says so to whoever publishes first after the alarm.
    let blocked = async {
        loop {
            let outcomes = broker.publish(vec![to_work("3")]).await;
            if let [
                PublishOutcome::Failed {
                    reason: PublishFailure::Blocked(reason),
                    ..
                },
            ] = &outcomes[..]
            {
                return reason.clone();
            }
        }
    };
    let reason = soon("the block", blocked).await;
    assert!(!reason.is_empty());
    assert_eq!(broker.health().blocked, Some(reason));
    let started = Instant::now();
    let outcomes = broker.publish(vec![to_work("4")]).await;
    assert!(
        matches!(
            &outcomes[..],
            [PublishOutcome::Failed {
                reason: PublishFailure::Blocked(_),
                maybe_published: false
            }]
        ),
        "{outcomes:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(1));
    // Acknowledgements go on, over the other connection: with a prefetch of 1 the second message shows it.
    for expected in ["1", "2"] {
        let ConsumerEvent::Delivery(delivery) = soon("a delivery", consumer.next()).await else {
            panic!("expected a delivery");
        };
        assert_eq!(delivery.body, expected);
        consumer.ack(&[delivery.tag]);
    }
    set_memory_alarm(&server, false).await;
    publish_until_confirmed(&*broker, to_work("5")).await;
    assert_eq!(broker.health().blocked, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_is_used_as_it_is() {
    let vhost = Vhost::new().await;
    let foreign = Connection::connect(vhost.url(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = foreign.create_channel().await.unwrap();
    for name in ["gm.work.q", "gm.events.0", "gm.dead"] {
        channel
            .queue_declare(
                name.into(),
                QueueDeclareOptions::durable(),
                FieldTable::default(),
            )
            .await
            .unwrap();
    }
    let broker = vhost.broker();
    broker.declare_work_queue("q").await.unwrap();
    let mut consumer = broker.consume(work(), 1).await.unwrap();
    registered(&*consumer).await;
    let events = Publication::new(Target::Events(0), "e");
    let outcomes = broker.publish(vec![to_work("w"), events]).await;
    assert_eq!(outcomes, vec![PublishOutcome::Confirmed; 2]);
    let event = soon("a delivery", consumer.next()).await;
    assert!(
        matches!(&event, ConsumerEvent::Delivery(delivery) if delivery.body == "w"),
        "{event:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorum_work_queues_keep_what_is_given_back() {
    let vhost = Vhost::new().await;
    let mut config = RabbitMqConfig::new(vhost.url());
    config.queue_type = gristmill_broker::QueueType::Quorum;
    let broker = RabbitMq::start(config).unwrap();
    gristmill_broker::conformance::given_back_messages_come_again(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_resets_its_consumer_and_is_declared_again() {
    let vhost = Vhost::new().await;
    let broker = vhost.broker();
    let mut consumer = broker.consume(work(), 1).await.unwrap();
    registered(&*consumer).await;
    let foreign = Connection::connect(vhost.url(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = foreign.create_channel().await.unwrap();
    channel
        .queue_delete(
            "gm.work.q".into(),
            lapin::options::QueueDeleteOptions::default(),
        )
        .await
        .unwrap();
    let reset = soon("the reset", consumer.next()).await;
    assert!(matches!(reset, ConsumerEvent::Reset { .. }), "{reset:?}");
    registered(&*consumer).await;
    assert_eq!(
        broker.publish(vec![to_work("x")]).await,
        [PublishOutcome::Confirmed]
    );
    let event = soon("a delivery", consumer.next()).await;
    assert!(
        matches!(&event, ConsumerEvent::Delivery(delivery) if delivery.body == "x"),
        "{event:?}"
    );
}

#[tokio::test]
async fn a_wrong_url_is_an_error_without_its_password() {
    for url in [
        "http://gm:s3cret@localhost",
        "amqp://gm:s3cret@localhost:port/",
        "s3cret",
    ] {
        let error = RabbitMq::start(RabbitMqConfig::new(url)).unwrap_err();
        assert!(matches!(error, BrokerError::InvalidUrl { .. }));
        assert!(
            url == "s3cret" || !format!("{error} {error:?}").contains("s3cret"),
            "{error}"
        );
    }
    let wrong_password = Vhost::new()
        .await
        .url()
        .replacen("://", "://nobody:s3cret@", 1);
    let at = wrong_password.rfind('@').unwrap();
    let url = format!("amqp://nobody:s3cret{}", &wrong_password[at..]);
    let mut config = RabbitMqConfig::new(url);
    config.operation_deadline = Duration::from_secs(2);
    let broker = RabbitMq::start(config).unwrap();
    let error = broker.depth(&Source::Dead).await.unwrap_err();
    assert!(!format!("{error} {error:?} {:?} {broker:?}", broker.health()).contains("s3cret"));
}
