//! SIGTERM to a worker.

use crate::support::{Deployment, SOON, step};
use gristmill_testkit::wait;

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_finishes_what_it_can_and_requeues_the_rest() {
    let mut deployment = Deployment::of(crate::support::Shape {
        workers: 0,
        ..Default::default()
    })
    .await;
    deployment.add_worker(4, &["--drain-timeout", "2s"]);
    // `long` ends by itself only on its second worker.
    let (short, long) = (
        step("sleep 1; echo done"),
        step("[ -e \"$TEST_DIR/second\" ] || sleep 300; echo $GRISTMILL_TRY_NUMBER"),
    );
    let yaml = format!(
        "dag_id: drained\ntasks:\n  short: {{shell: {short}}}\n  long: {{shell: {long}}}\n  later: {{depends_on: [short], shell: {short}}}\n"
    );
    let run = deployment.client.start("drained", &yaml).await;
    let both = async || {
        (deployment.ledger.has_started("short") && deployment.ledger.has_started("long"))
            .then_some(())
    };
    wait::until("both to have started", SOON, both)
        .await
        .unwrap();
    let worker = deployment.workers.remove(0);
    worker.terminate().unwrap();
    let status = worker.wait(SOON).await.unwrap().unwrap();
    assert!(status.success(), "{status}\n{}", worker.log_text());

    deployment.client.task_is(&run, "short", "success").await;
    assert!(
        !deployment.ledger.has_started("later"),
        "a draining worker took new work"
    );
    std::fs::write(deployment.dir().join("second"), "").unwrap();
    deployment.add_worker(4, &[]);
    deployment.succeeds(&run, SOON).await;
    assert_eq!(deployment.ledger.of_task("long").len(), 2);
    assert_eq!(deployment.ledger.of_task("short").len(), 1);
    assert_eq!(deployment.count_endings("requeued").await, 1);
    // The task has no retries: had the drain cost one, it would have failed.
    let counts = deployment
        .sql("SELECT user_failures, infra_losses FROM task_instances WHERE task_id = 'long'")
        .await;
    assert_eq!(counts, "0|0");
}
