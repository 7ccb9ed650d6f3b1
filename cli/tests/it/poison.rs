//! Messages that nobody can read.

use crate::support::{Deployment, SOON, Shape, step};
use gristmill_broker::{
    Broker, ConsumerEvent, Publication, RabbitMq, RabbitMqConfig, Source, Target,
};
use gristmill_common::message::header;
use gristmill_testkit::wait;
use std::sync::Arc;

fn broker(deployment: &Deployment) -> Arc<dyn Broker> {
    RabbitMq::start(RabbitMqConfig::new(deployment.servers.amqp_url.clone())).unwrap()
}

async fn publish(broker: &dyn Broker, messages: Vec<Publication>) {
    for outcome in broker.publish(messages).await {
        assert!(outcome.is_confirmed(), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_the_dead_letters_and_consumers_live_on() {
    let deployment = Deployment::small().await;
    let yaml = format!("dag_id: plain\ntasks:\n  t: {{shell: {}}}\n", step("true"));
    let first = deployment.client.start("plain", &yaml).await;
    deployment.succeeds(&first, SOON).await;

    let broker = broker(&deployment);
    let work = |body: &str| Publication::new(Target::Work("default".to_owned()), body.to_owned());
    let headed = |body: &str| {
        let names = [
            header::TI,
            header::RUN,
            header::FENCE,
            header::EPOCH,
            header::CLAIM_BY,
        ];
        let message = work(body).with_header(header::VERSION, 1);
        names.into_iter().fold(message, |message, name| {
            message.with_header(name, 9_999_999)
        })
    };
    let mut messages = vec![
        work("rubbish without headers"),
        work(""),
        headed("rubbish with headers"),
        headed("{}"),
    ];
    for shard in 0..broker.event_shards() {
        for body in [
            "rubbish",
            "",
            "{\"v\":1}",
            "{\"v\":99,\"events\":[]}",
            "{\"v\":1,\"events\":[{\"grown\":{}}]}",
        ] {
            messages.push(Publication::new(Target::Events(shard), body));
        }
    }
    let expected = messages.len().to_string();
    publish(&*broker, messages).await;
    let all = async || {
        (deployment.sql("SELECT count(*) FROM dead_letters").await == expected).then_some(())
    };
    wait::until("every poison message to be a dead letter", SOON, all)
        .await
        .unwrap();
    let unexplained = "SELECT count(*) FROM dead_letters WHERE reason = '' OR source NOT LIKE '%default%' AND source NOT LIKE '%event%'";
    assert_eq!(deployment.sql(unexplained).await, "0");

    let second = deployment.client.trigger("plain").await;
    deployment.succeeds(&second, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_message_was_garbled_fails_and_says_why() {
    let shape = Shape {
        workers: 0,
        ..Shape::default()
    };
    let mut deployment = Deployment::of(shape).await;
    let broker = broker(&deployment);
    broker.declare_work_queue("default").await.unwrap();
    let mut consumer = broker
        .consume(Source::Work("default".to_owned()), 1)
        .await
        .unwrap();
    let yaml = format!(
        "dag_id: garbled\ntasks:\n  t: {{shell: {}}}\n",
        step("true")
    );
    let run = deployment.client.start("garbled", &yaml).await;
    let delivery = loop {
        if let ConsumerEvent::Delivery(delivery) = consumer.next().await {
            break delivery;
        }
    };
    let mut garbled = Publication::new(
        Target::Work("default".to_owned()),
        delivery.body.slice(0..delivery.body.len() / 2),
    );
    garbled.headers = delivery.headers.clone();
    publish(&*broker, vec![garbled]).await;
    consumer.ack(&[delivery.tag]);
    consumer.close().await;

    deployment.add_worker(2, &[]);
    let ended = deployment.client.ended(&run, SOON).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    let instance = deployment.client.instance(&run, "t").await;
    assert!(
        instance["reason"]
            .as_str()
            .unwrap()
            .contains("could not be read"),
        "{instance}"
    );
    deployment.settles().await;
}
