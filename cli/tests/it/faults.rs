//! Processes that die at the worst instants: each fault point, on the role that has it, and a restart afterwards.
//!
//! Fault points exist in debug builds only.

use crate::support::{Deployment, LATER, Run, SOON, Servers, Shape, step};
use std::collections::BTreeMap;

/// Twenty tasks beside each other and one after them.
async fn run(deployment: &Deployment) -> Run {
    let items = serde_json::to_string(&(0..20).collect::<Vec<_>>()).unwrap();
    let (work, last) = (step("sleep 0.1"), step("true"));
    let yaml = format!(
        "dag_id: faulty\ntasks:\n  t: {{expand: {{i: {items}}}, shell: {work}}}\n  last: {{depends_on: [t], shell: {last}}}\n"
    );
    deployment.client.start("faulty", &yaml).await
}

/// The scheduler dies at the point, and comes back.
async fn scheduler_dies(point: &str) {
    let shape = Shape {
        schedulers: 0,
        ..Shape::default()
    };
    let mut deployment = Deployment::start(Servers::shared().await, shape).await;
    let faulty = deployment.setup.clone().env("GRISTMILL_FAULT_POINT", point);
    let mut scheduler = faulty.start("scheduler-0", &["scheduler"]).unwrap();
    let run = run(&deployment).await;
    Deployment::revive(&mut scheduler, SOON).await;
    deployment.schedulers.push(scheduler);
    deployment.succeeds(&run, LATER).await;
    for (instance, attempts) in deployment.ledger.attempts() {
        assert_eq!(
            attempts.len(),
            1,
            "a scheduler's death cost {instance:?} an attempt: {attempts:?}"
        );
    }
}

/// The only worker dies at the point, and comes back: what it held is lost, and runs anew although it has no retries.
async fn worker_dies(point: &str) {
    let shape = Shape {
        workers: 0,
        ..Shape::default()
    };
    let mut deployment = Deployment::start(Servers::shared().await, shape).await;
    let setup = deployment
        .setup
        .clone()
        .env("GRISTMILL_WORK_DIR", deployment.dir().join("worker-0.work"));
    let faulty = setup.env("GRISTMILL_FAULT_POINT", point);
    let mut worker = faulty
        .start("worker-0", &["worker", "--concurrency", "8"])
        .unwrap();
    let run = run(&deployment).await;
    Deployment::revive(&mut worker, SOON).await;
    deployment.workers.push(worker);
    deployment.succeeds(&run, LATER).await;

    let mut by_instance: BTreeMap<_, Vec<(i64, String)>> = BTreeMap::new();
    for ((run, task, map, fence), ending) in deployment.endings().await {
        by_instance
            .entry((run, task, map))
            .or_default()
            .push((fence, ending));
    }
    let mut lost = 0;
    for (instance, mut endings) in by_instance {
        endings.sort_unstable();
        let last = endings.pop().unwrap();
        assert_eq!(last.1, "success", "{instance:?}: {endings:?}");
        assert!(
            endings.iter().all(|(_, ending)| ending == "lost"),
            "{instance:?}: {endings:?}"
        );
        lost += endings.len();
    }
    assert!(lost > 0, "the worker held nothing when it died");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_commit_before_publish() {
    scheduler_dies("after-commit-before-publish").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_publish_before_confirm() {
    scheduler_dies("after-publish-before-confirm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_apply_before_ack() {
    scheduler_dies("after-apply-before-ack:3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_claim_before_ack() {
    worker_dies("after-claim-before-ack").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ack_before_started() {
    worker_dies("after-ack-before-started").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_exit_before_confirmed() {
    worker_dies("after-exit-before-confirmed").await;
}

#[test]
fn every_fault_point_has_its_test() {
    let source = include_str!("faults.rs");
    for point in gristmill_common::fault::POINTS {
        let test = format!("async fn {}()", point.replace('-', "_"));
        assert!(
            source.contains(&test),
            "no test for the fault point {point}"
        );
    }
}
