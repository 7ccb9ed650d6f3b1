//! Branches and their like, setups and teardowns, on real servers: what is skipped, and what cleans up when a run is stopped.

use crate::support::{Deployment, LATER, Run, SOON, step};
use gristmill_testkit::{DataDir, roles::binary, sys, wait};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

/// State of each task of a run.
async fn states(deployment: &Deployment, run: &Run) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = deployment.client.instances(run).await;
    all.iter()
        .map(|instance| (text(&instance["task_id"]), text(&instance["state"])))
        .collect()
}

fn expected(states: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(task, state): &(&str, &str)| ((*task).to_owned(), (*state).to_owned());
    states.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_and_short_circuits_decide_what_runs() {
    let deployment = Deployment::small().await;
    let (count, say) = (step("echo 1200"), step("echo $GRISTMILL_TASK_ID"));
    let yaml = format!(
        "dag_id: decides
tasks:
  count: {{shell: {{command: {count}, output: json}}}}
  size: {{depends_on: [count], branch: \"{{{{ 'full' if ti.xcom_pull('count') > 1000 else 'quick' }}}}\"}}
  full: {{depends_on: [size], shell: {say}}}
  quick: {{depends_on: [size], shell: {say}}}
  report: {{depends_on: [full, quick], trigger_rule: none_failed_min_one_success, shell: {say}}}
  stop: {{depends_on: [report], short_circuit: \"{{{{ ti.xcom_pull('count') < 0 }}}}\"}}
  never: {{depends_on: [stop], shell: {say}}}
  always: {{depends_on: [never], trigger_rule: all_done, shell: {say}}}
  here: {{latest_only: {{}}}}
  after: {{depends_on: [here], shell: {say}}}
"
    );
    let run = deployment.client.start("decides", &yaml).await;
    deployment.succeeds(&run, SOON).await;
    let want = expected(&[
        ("count", "success"),
        ("size", "success"),
        ("full", "success"),
        ("quick", "skipped"),
        ("report", "success"),
        ("stop", "success"),
        ("never", "skipped"),
        // The short circuit skips all that is below it, whatever its rules.
        ("always", "skipped"),
        ("here", "success"),
        ("after", "success"),
    ]);
    assert_eq!(states(&deployment, &run).await, want);
    // What decides needs no worker.
    for task in ["size", "stop", "here"] {
        assert!(!deployment.ledger.has_started(task));
        let instance = deployment.client.instance(&run, task).await;
        assert_eq!(instance["hostname"].as_str().unwrap_or_default(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_only_lets_the_latest_scheduled_run_go_on() {
    let deployment = Deployment::small().await;
    let start = chrono::Utc::now().date_naive() - chrono::Days::new(3);
    let yaml = format!(
        "dag_id: latest
schedule: \"@daily\"
start_date: {start}
catchup: true
tasks:
  here: {{latest_only: {{}}}}
  after: {{depends_on: [here], empty: {{}}}}
"
    );
    deployment.client.deploy(&yaml).await;
    let found = wait::until("three runs", SOON, async || {
        let runs = deployment.client.get("/dags/latest/dagRuns").await;
        let runs = runs["dag_runs"].as_array().unwrap().clone();
        let ended = |run: &Value| run["state"] == "success";
        (runs.len() == 3 && runs.iter().all(ended)).then_some(runs)
    })
    .await
    .unwrap();
    let mut after = Vec::new();
    for run in &found {
        let run = Run {
            dag_id: "latest".to_owned(),
            run_id: run["dag_run_id"].as_str().unwrap().to_owned(),
        };
        after.push(states(&deployment, &run).await["after"].clone());
    }
    assert_eq!(after, ["success", "skipped", "skipped"], "newest first");
}

/// A setup that makes a folder, work that goes on for ever and ignores SIGTERM, and a teardown that takes the folder away.
fn place(dag_id: &str, more: &str) -> String {
    let make = step("mkdir $TEST_DIR/place");
    let work = step("trap '' TERM; while true; do sleep 0.1; done");
    // If the work still lived, it would be too early.
    let clean = step("rmdir $TEST_DIR/place");
    format!(
        "dag_id: {dag_id}
fail_fast: true
tasks:
  make: {{setup: true, shell: {make}}}
  work: {{depends_on: [make], shell: {work}}}
  after: {{depends_on: [work], empty: {{}}}}
  clean: {{depends_on: [after], teardown: make, shell: {clean}}}
{more}"
    )
}

/// The work has died before the teardown began, which left nothing.
fn was_cleaned_up(deployment: &Deployment) {
    let work = &deployment.ledger.of_task("work")[0];
    assert!(!sys::is_alive(work.pid), "the work still lives");
    let clean = deployment.ledger.of_task("clean");
    assert_eq!(clean.len(), 1, "{clean:?}");
    assert!(clean[0].end.is_some());
    assert!(!deployment.dir().join("place").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_is_cleaned_up_after() {
    let deployment = Deployment::small().await;
    let run = deployment
        .client
        .start("cancelled", &place("cancelled", ""))
        .await;
    deployment.client.task_is(&run, "work", "running").await;
    wait::until("its process", SOON, async || {
        deployment.ledger.has_started("work").then_some(())
    })
    .await
    .unwrap();
    deployment
        .command(&["runs", "cancel", "cancelled", &run.run_id])
        .await;
    let ended = deployment.client.ended(&run, LATER).await;
    assert_eq!(
        (&ended["state"], &ended["cancelled"]),
        (&json!("failed"), &json!(true))
    );
    let want = expected(&[
        ("make", "success"),
        ("work", "failed"),
        ("after", "skipped"),
        ("clean", "success"),
    ]);
    assert_eq!(states(&deployment, &run).await, want);
    was_cleaned_up(&deployment);
    deployment.settles().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_fast_is_cleaned_up_after() {
    let deployment = Deployment::small().await;
    let fail = step("until [ -e $TEST_DIR/place ]; do sleep 0.05; done; sleep 0.5; exit 3");
    let yaml = place("fast", &format!("  bad: {{shell: {fail}}}\n"));
    let run = deployment.client.start("fast", &yaml).await;
    let ended = deployment.client.ended(&run, LATER).await;
    assert_eq!(ended["state"], "failed");
    let found = states(&deployment, &run).await;
    assert_eq!(
        (found["bad"].as_str(), found["clean"].as_str()),
        ("failed", "success")
    );
    assert_eq!(found["after"], "skipped");
    was_cleaned_up(&deployment);
    deployment.settles().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_task_is_set_up_and_cleaned_up_anew() {
    let deployment = Deployment::small().await;
    let (make, clean) = (
        step("until [ -e $TEST_DIR/go ]; do sleep 0.05; done; mkdir $TEST_DIR/place"),
        step("rmdir $TEST_DIR/place"),
    );
    let work = step("echo $GRISTMILL_TRY_NUMBER > $TEST_DIR/place/file && rm $TEST_DIR/place/file");
    let yaml = format!(
        "dag_id: again
tasks:
  make: {{setup: true, shell: {make}}}
  between: {{depends_on: [make], empty: {{}}}}
  work: {{depends_on: [between], trigger_rule: one_done, shell: {work}}}
  clean: {{depends_on: [work], teardown: make, shell: {clean}}}
"
    );
    let client = &deployment.client;
    let run = client.start("again", &yaml).await;
    // It needs the setup, which it depends on through another.
    client.task_is(&run, "make", "running").await;
    let why = deployment
        .command(&["tasks", "explain", "again", &run.run_id, "work"])
        .await;
    assert!(
        why.contains("needs what is set up by make (running)"),
        "{why}"
    );
    std::fs::write(deployment.dir().join("go"), "").unwrap();
    deployment.succeeds(&run, SOON).await;
    let body = json!({"dag_run_id": run.run_id, "task_ids": ["work"], "dry_run": false, "only_failed": false});
    let cleared = client.post("/dags/again/clearTaskInstances", &body).await;
    let mut tasks: Vec<&str> = cleared["task_instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| instance["task_id"].as_str().unwrap())
        .collect();
    tasks.sort_unstable();
    assert_eq!(tasks, ["clean", "make", "work"]);
    deployment.succeeds(&run, SOON).await;
    for task in ["make", "work", "clean"] {
        assert_eq!(deployment.ledger.of_task(task).len(), 2, "{task}");
    }
}

/// Runs an example, with the files of its folder, and no server around.
async fn example(name: &str, more: &[&str]) -> String {
    let dir = DataDir::new("example").unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/dags");
    let output = tokio::process::Command::new(binary("gristmill").unwrap())
        .args(["dags", "test", folder.to_str().unwrap(), name])
        .args(more)
        .current_dir(dir.path())
        .env("TMPDIR", dir.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{name}: {text}");
    text
}

#[tokio::test]
async fn the_example_of_branches_runs() {
    let text = example("branching", &["-p", "rows=7"]).await;
    for line in [
        "a place for 7 rows",
        "a sample",
        "followed quick",
        "published",
        "cleaned up",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("all of 7 rows"), "{text}");
    let text = example("branching", &["-p", "rows=0"]).await;
    assert!(
        text.contains("cleaned up") && !text.contains("published"),
        "{text}"
    );
}

#[tokio::test]
async fn the_example_of_retries_runs() {
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200))
        .expect(1)
        .mount(&server)
        .await;
    let report_to = format!("report_to={}", server.uri());
    example("retries", &["-p", &report_to]).await;
}
