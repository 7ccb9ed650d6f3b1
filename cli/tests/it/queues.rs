//! Queue depths against a scripted truth.

use crate::support::{Deployment, SOON, Shape, step};
use gristmill_testkit::wait;
use serde_json::{Value, json};

/// `gristmill queues -o json`: the row of one queue.
async fn queue(deployment: &Deployment, name: &str) -> Value {
    let text = deployment.command(&["queues", "-o", "json"]).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    let rows = answer
        .as_array()
        .or_else(|| answer["queues"].as_array())
        .unwrap();
    rows.iter()
        .find(|row| row["queue"] == name)
        .unwrap_or(&Value::Null)
        .clone()
}

async fn becomes(deployment: &Deployment, name: &str, expected: Value) {
    let mut last = Value::Null;
    let exact = async || {
        last = queue(deployment, name).await;
        expected
            .as_object()
            .unwrap()
            .iter()
            .all(|(key, value)| last[key] == *value)
    };
    let until = tokio::time::Instant::now() + SOON;
    let mut exact = exact;
    while !exact().await {
        assert!(
            tokio::time::Instant::now() < until,
            "{name}: expected {expected}, the last answer was {}",
            queue(deployment, name).await
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_counts_are_exact() {
    let shape = Shape {
        workers: 0,
        ..Shape::default()
    };
    let mut deployment = Deployment::of(shape).await;
    deployment
        .client
        .post("/pools", &json!({"name": "narrow", "slots": 3}))
        .await;
    let work = step("until [ -e \"$TEST_DIR/go-on\" ]; do sleep 0.1; done");
    let items = |n: usize| serde_json::to_string(&(0..n).collect::<Vec<_>>()).unwrap();
    let yaml = format!(
        "dag_id: counted
max_active_tasks: 100
tasks:
  pooled: {{pool: narrow, expand: {{i: {}}}, shell: {work}}}
  free: {{expand: {{i: {}}}, shell: {work}}}
  other: {{queue: other, expand: {{i: {}}}, shell: {work}}}
",
        items(10),
        items(5),
        items(4),
    );
    let run = deployment.client.start("counted", &yaml).await;
    // Three of ten fit into the pool; the other seven wait in the database, beside five and four that have no such limit.
    let nobody = json!({"scheduled": 7, "broker": 8, "running": 0, "consumers": 0, "slots": 0, "free_slots": 0, "paused": false, "dead": 0});
    becomes(&deployment, "default", nobody).await;
    becomes(
        &deployment,
        "other",
        json!({"scheduled": 0, "broker": 4, "running": 0, "consumers": 0}),
    )
    .await;
    let row = queue(&deployment, "default").await;
    let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
    let expected = [
        "queue",
        "scheduled",
        "broker",
        "running",
        "oldest_age_s",
        "consumers",
        "slots",
        "free_slots",
        "paused",
        "rate_limit",
        "dead",
    ];
    assert_eq!(keys, expected);
    assert!(
        row["oldest_age_s"]
            .as_f64()
            .is_some_and(|age| (0.0..120.0).contains(&age)),
        "{row}"
    );
    let why = deployment
        .client
        .get(&format!("{}/taskInstances/pooled/9/explain", run.path()))
        .await;
    assert!(why["reasons"].to_string().contains("narrow"), "{why}");

    // A worker with two slots takes two, and leaves the rest to others.
    deployment.add_worker(2, &["--queues", "default"]);
    becomes(
        &deployment,
        "default",
        json!({"scheduled": 7, "broker": 6, "running": 2, "slots": 2, "free_slots": 0}),
    )
    .await;
    becomes(
        &deployment,
        "other",
        json!({"scheduled": 0, "broker": 4, "running": 0, "slots": 0}),
    )
    .await;

    std::fs::write(deployment.dir().join("go-on"), "").unwrap();
    deployment.add_worker(8, &["--queues", "other,default"]);
    deployment.succeeds(&run, SOON).await;
    let idle = json!({"scheduled": 0, "broker": 0, "running": 0, "slots": 10, "free_slots": 10, "oldest_age_s": null});
    becomes(&deployment, "default", idle).await;
    let started = async || (deployment.ledger.of_task("other").len() == 4).then_some(());
    wait::until("the other queue's tasks", SOON, started)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_claims_in_time_goes_out_again_at_no_cost() {
    let shape = Shape {
        schedulers: 0,
        workers: 0,
        ..Shape::default()
    };
    let mut deployment = Deployment::of(shape).await;
    deployment.setup = deployment.setup.clone().env("GRISTMILL_CLAIM_WINDOW", "1s");
    deployment.add_scheduler();
    let items = serde_json::to_string(&(0..20).collect::<Vec<_>>()).unwrap();
    let yaml = format!(
        "dag_id: late\nmax_active_tasks: 20\ntasks:\n  t: {{expand: {{i: {items}}}, shell: {}}}\n",
        step("true")
    );
    let run = deployment.client.start("late", &yaml).await;
    let again = async || {
        (deployment
            .sql("SELECT min(fence) FROM task_instances WHERE state = 'queued'")
            .await
            == "3")
            .then_some(())
    };
    wait::until("every task to have gone out three times", SOON, again)
        .await
        .unwrap();
    deployment.add_worker(20, &[]);
    deployment.succeeds(&run, SOON).await;
    let attempts = deployment.ledger.of_task("t");
    assert_eq!(attempts.len(), 20);
    assert!(
        attempts.iter().all(|attempt| attempt.try_number == 1),
        "a dispatch that nobody claimed counts as a try"
    );
    assert_eq!(
        deployment.sql("SELECT count(*) FROM dead_letters").await,
        "0",
        "an expired message is no dead letter"
    );
}
