//! Clear and mark, on real servers.

use crate::support::{Deployment, LATER, SOON, step};
use gristmill_testkit::sys;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_from_the_task_that_is_cleared() {
    let deployment = Deployment::small().await;
    // It fails until somebody has mended it.
    let (make, mended) = (step("echo 1"), step("test -e $TEST_DIR/mended && echo 2"));
    let last = step(r#"echo "$N""#);
    let yaml = format!(
        "dag_id: mend
tasks:
  make: {{shell: {make}}}
  check: {{depends_on: [make], shell: {mended}}}
  last: {{depends_on: [check], shell: {last}, env: {{N: \"{{{{ ti.xcom_pull('check') }}}}\"}}}}
"
    );
    let client = &deployment.client;
    let run = client.start("mend", &yaml).await;
    assert_eq!(client.ended(&run, SOON).await["state"], "failed");
    std::fs::write(deployment.dir().join("mended"), "").unwrap();
    let would = deployment
        .command(&[
            "tasks",
            "clear",
            "mend",
            &run.run_id,
            "--only-failed",
            "--dry-run",
        ])
        .await;
    assert!(
        would.contains("check  failed") && would.contains("last  upstream_failed"),
        "{would}"
    );
    deployment
        .command(&["tasks", "clear", "mend", &run.run_id, "--only-failed"])
        .await;
    deployment.succeeds(&run, SOON).await;
    assert_eq!(client.xcom(&run, "last").await, "2");
    let made = client.instance(&run, "make").await;
    let check = client.instance(&run, "check").await;
    assert_eq!(
        (&made["try_number"], &check["try_number"]),
        (&json!(1), &json!(2))
    );
    let tries = client
        .get(&format!("{}/taskInstances/check/tries", run.path()))
        .await;
    assert_eq!(tries["total_entries"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_cleared_while_it_runs_is_killed_and_runs_anew() {
    let deployment = Deployment::small().await;
    let work = step(
        "test $GRISTMILL_TRY_NUMBER -gt 1 && exit 0; trap '' TERM; while true; do sleep 0.1; done",
    );
    let yaml = format!(
        "dag_id: long\ntasks:\n  long: {{shell: {work}}}\n  after: {{depends_on: [long], empty: {{}}}}\n"
    );
    let client = &deployment.client;
    let run = client.start("long", &yaml).await;
    client.task_is(&run, "long", "running").await;
    gristmill_testkit::wait::until("its process", SOON, async || {
        deployment.ledger.has_started("long").then_some(())
    })
    .await
    .unwrap();
    let before = deployment.ledger.of_task("long")[0].pid;
    let body = json!({"dag_run_id": run.run_id, "task_ids": ["long"], "dry_run": false, "only_failed": false,
        "include_downstream": true});
    let cleared = client.post("/dags/long/clearTaskInstances", &body).await;
    assert_eq!(cleared["task_instances"][0]["state"], "restarting");
    deployment.succeeds(&run, LATER).await;
    assert!(!sys::is_alive(before), "the first attempt still lives");
    deployment.ledger.check();
    assert_eq!(client.instance(&run, "long").await["try_number"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_marked_while_it_runs_is_killed_and_its_run_goes_on() {
    let deployment = Deployment::small().await;
    let work = step("while true; do sleep 0.1; done");
    let after = step("echo done");
    let yaml = format!(
        "dag_id: stuck\ntasks:\n  stuck: {{shell: {work}}}\n  after: {{depends_on: [stuck], shell: {after}}}\n"
    );
    let client = &deployment.client;
    let run = client.start("stuck", &yaml).await;
    client.task_is(&run, "stuck", "running").await;
    deployment
        .command(&[
            "tasks",
            "mark",
            "stuck",
            &run.run_id,
            "stuck",
            "--state",
            "success",
        ])
        .await;
    deployment.succeeds(&run, LATER).await;
    let stuck = client.instance(&run, "stuck").await;
    assert_eq!(stuck["state"], "success");
    assert_eq!(stuck["reason"], "marked success by token test");
    assert_eq!(client.xcom(&run, "after").await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clear_of_one_index_of_a_mapped_group_runs_that_index_anew_in_depth() {
    let deployment = Deployment::small().await;
    // One item fails until somebody has mended it.
    let load = step(
        r#"{ [ "$ITEM" != b ] || test -e $TEST_DIR/mended; } && echo "$ITEM $GRISTMILL_TRY_NUMBER""#,
    );
    let check = step(r#"echo "$GOT, checked""#);
    let report = step("cat");
    let yaml = format!(
        "dag_id: mend_one
tasks:
  each:
    group:
      expand: {{item: [a, b, c]}}
      tasks:
        load: {{shell: {load}, env: {{ITEM: \"{{{{ map.item }}}}\"}}}}
        check: {{depends_on: [load], shell: {check}, env: {{GOT: \"{{{{ ti.xcom_pull('load') }}}}\"}}}}
  report:
    depends_on: [each]
    shell: {{command: {report}, stdin: \"{{{{ ti.xcom_pull('each.check') | join('; ') }}}}\"}}
"
    );
    let client = &deployment.client;
    let run = client.start("mend_one", &yaml).await;
    assert_eq!(client.ended(&run, SOON).await["state"], "failed");
    std::fs::write(deployment.dir().join("mended"), "").unwrap();
    let body = json!({"dag_run_id": run.run_id, "task_ids": [["each.load", 1]], "dry_run": false, "only_failed": false,
        "include_downstream": true});
    let cleared = client
        .post("/dags/mend_one/clearTaskInstances", &body)
        .await;
    let cleared = cleared["task_instances"].as_array().unwrap();
    let mut named: Vec<String> = cleared
        .iter()
        .map(|ti| format!("{}[{}]", ti["task_id"].as_str().unwrap(), ti["map_index"]))
        .collect();
    named.sort();
    assert_eq!(named, ["each.check[1]", "each.load[1]", "report[-1]"]);
    deployment.succeeds(&run, SOON).await;
    assert_eq!(
        client.xcom(&run, "report").await,
        "a 1, checked; b 2, checked; c 1, checked"
    );
    deployment.ledger.check();
}
