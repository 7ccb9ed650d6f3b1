//! Control messages.

use std::sync::Arc;

use super::support::{control_message, soon, subscription, text};
use crate::broker::Broker;
use crate::message::{ControlTarget, Publication, PublishOutcome, Target};

fn to_worker(incarnation: &str, body: &'static str) -> Publication {
    let target = ControlTarget::Worker {
        incarnation: incarnation.to_owned(),
    };
    Publication::new(Target::Control(target), body)
}

fn to_all(body: &'static str) -> Publication {
    Publication::new(Target::Control(ControlTarget::AllWorkers), body)
}

pub async fn control_reaches_one_or_all(broker: Arc<dyn Broker>) {
    let mut first = subscription(&*broker, "w1").await;
    let mut second = subscription(&*broker, "w2").await;
    let batch = vec![
        to_worker("w1", "for one").with_header("ti", "x"),
        to_worker("w3", "for nobody"),
        to_all("for all"),
    ];
    let outcomes = soon("publishing", broker.publish(batch)).await;
    assert_eq!(outcomes[0], PublishOutcome::Confirmed);
    assert!(
        matches!(outcomes[1], PublishOutcome::Returned { .. }),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[2], PublishOutcome::Confirmed);
    let message = control_message(&mut *first).await;
    assert_eq!(text(&message.body), "for one");
    assert_eq!(message.headers["ti"].as_str(), Some("x"));
    assert_eq!(text(&control_message(&mut *first).await.body), "for all");
    assert_eq!(text(&control_message(&mut *second).await.body), "for all");
}

pub async fn control_ends_with_the_subscription(broker: Arc<dyn Broker>) {
    let stream = subscription(&*broker, "w1").await;
    drop(stream);
    // The broker hears of it a moment later.
    let gone = async {
        loop {
            let outcomes = broker
                .publish(vec![to_worker("w1", "x"), to_all("x")])
                .await;
            let is_returned = |outcome| matches!(outcome, &PublishOutcome::Returned { .. });
            if outcomes.iter().all(is_returned) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    soon("the subscription's end", gone).await;
    let mut again = subscription(&*broker, "w1").await;
    let outcomes = broker.publish(vec![to_worker("w1", "back")]).await;
    assert_eq!(outcomes, [PublishOutcome::Confirmed]);
    assert_eq!(text(&control_message(&mut *again).await.body), "back");
}
