//! Several schedulers and workers on one run.

use crate::support::{Deployment, LATER, SOON, Shape, step};
use gristmill_testkit::wait;

/// 200 tasks at once, each of which runs for `seconds`.
fn wide(dag_id: &str, seconds: &str) -> String {
    let work = step(&format!("sleep {seconds}"));
    let items = serde_json::to_string(&(0..200).collect::<Vec<_>>()).unwrap();
    format!(
        "dag_id: {dag_id}\nmax_active_tasks: 200\ntasks:\n  t:\n    expand: {{i: {items}}}\n    shell: {work}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_and_three_workers_run_each_task_once() {
    let shape = Shape {
        schedulers: 2,
        workers: 3,
        slots: 8,
    };
    let deployment = Deployment::of(shape).await;
    let run = deployment.client.start("wide", &wide("wide", "0.1")).await;
    deployment.succeeds(&run, LATER).await;
    let attempts = deployment.ledger.attempts();
    assert_eq!(attempts.len(), 200);
    assert!(attempts.values().all(|attempts| attempts.len() == 1));
    assert_eq!(deployment.count_endings("success").await, 200);
    assert!(
        deployment.ledger.most_at_once(|_| true) <= 24,
        "more ran at once than there are slots"
    );
    let workers = deployment
        .sql("SELECT count(DISTINCT worker) FROM task_attempts")
        .await;
    assert_eq!(workers, "3", "workers that had a share");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_when_one_of_two_schedulers_dies() {
    let shape = Shape {
        schedulers: 2,
        workers: 2,
        slots: 8,
    };
    let deployment = Deployment::of(shape).await;
    let run = deployment
        .client
        .start("orphaned", &wide("orphaned", "0.2"))
        .await;
    let some = async || (deployment.ledger.ends() >= 30).then_some(());
    wait::until("30 tasks to have ended", SOON, some)
        .await
        .unwrap();
    deployment.schedulers[0].kill().await.unwrap();
    deployment.succeeds(&run, LATER).await;
    assert_eq!(
        deployment.ledger.of_task("t").len(),
        200,
        "a scheduler's death costs no attempt"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_never_overfull_and_holds_nobody_else_up() {
    let shape = Shape {
        schedulers: 2,
        workers: 3,
        slots: 16,
    };
    let deployment = Deployment::of(shape).await;
    let pool = serde_json::json!({"name": "narrow", "slots": 5});
    deployment.client.post("/pools", &pool).await;
    let (work, free) = (step("sleep 0.2"), step("sleep 0.05"));
    let items = serde_json::to_string(&(0..40).collect::<Vec<_>>()).unwrap();
    let yaml = format!(
        "dag_id: pooled
max_active_tasks: 100
tasks:
  single: {{pool: narrow, priority_weight: 10, expand: {{i: {items}}}, shell: {work}}}
  double: {{pool: narrow, pool_slots: 2, expand: {{i: {items}}}, shell: {work}}}
  free: {{expand: {{i: {items}}}, shell: {free}}}
"
    );
    let run = deployment.client.start("pooled", &yaml).await;
    deployment.succeeds(&run, LATER).await;
    let ledger = &deployment.ledger;
    // Every moment at which the pool's load is largest is the start of one of its tasks.
    let mut changes: Vec<(u64, i32)> = Vec::new();
    for (task, slots) in [("single", 1), ("double", 2)] {
        for attempt in ledger.of_task(task) {
            changes.extend([(attempt.start, slots), (attempt.end.unwrap(), -slots)]);
        }
    }
    changes.sort_unstable();
    let mut load = 0;
    for (_, change) in changes {
        load += change;
        assert!(load <= 5, "{load} of 5 slots were taken at one instant");
    }
    let last_free = ledger
        .of_task("free")
        .iter()
        .map(|a| a.start)
        .max()
        .unwrap();
    let last_pooled = ledger
        .of_task("double")
        .iter()
        .map(|a| a.start)
        .max()
        .unwrap();
    assert!(
        last_free < last_pooled,
        "tasks without the pool waited for it"
    );
}
