//! Limits that are set and changed while tasks wait for them.

use crate::support::{Deployment, LATER, SOON, step};
use gristmill_testkit::wait;
use serde_json::{Value, json};

/// What a task does that runs until `$TEST_DIR/go-on` is there.
fn until_told() -> String {
    step("until [ -e \"$TEST_DIR/go-on\" ]; do sleep 0.1; done")
}

/// How many instances of each state the run has, and no others within a look of the scheduler.
async fn states(deployment: &Deployment, path: &str) -> Vec<String> {
    let answer = deployment
        .client
        .get(&format!("{path}/taskInstances?limit=100"))
        .await;
    let mut states: Vec<String> = answer["task_instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ti| ti["state"].as_str().unwrap_or("none").to_owned())
        .collect();
    states.sort();
    states
}

fn count(states: &[String], state: &str) -> usize {
    states.iter().filter(|s| *s == state).count()
}

async fn running(deployment: &Deployment, path: &str, n: usize) {
    let reached = async || (count(&states(deployment, path).await, "running") == n).then_some(());
    wait::until("that many tasks to run", SOON, reached)
        .await
        .unwrap();
}

/// The kinds of the reasons why some instance of `t` is not running.
async fn why(deployment: &Deployment, path: &str) -> Vec<String> {
    let answer = deployment
        .client
        .get(&format!("{path}/taskInstances?limit=100"))
        .await;
    let waiting = answer["task_instances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|ti| ti["state"] == "scheduled")
        .cloned()
        .unwrap_or(Value::Null);
    let index = &waiting["map_index"];
    let told = deployment
        .client
        .get(&format!("{path}/taskInstances/t/{index}/explain"))
        .await;
    told["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| reason["kind"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_are_changed_act_at_once() {
    let mut deployment = Deployment::small().await;
    deployment.add_worker(16, &["--queues", "default,paced"]);
    let items = json!((0..6).collect::<Vec<_>>());

    // The deployment's parallelism.
    deployment.command(&["parallelism", "2"]).await;
    let yaml = format!(
        "dag_id: parallel\ntasks:\n  t: {{expand: {{i: {items}}}, shell: {}}}\n",
        until_told()
    );
    let run = deployment.client.start("parallel", &yaml).await;
    running(&deployment, &run.path(), 2).await;
    assert!(
        why(&deployment, &run.path())
            .await
            .contains(&"parallelism".to_owned())
    );
    deployment.command(&["parallelism", "5"]).await;
    running(&deployment, &run.path(), 5).await;
    let shown = deployment.command(&["parallelism", "-o", "json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown, json!({ "parallelism": 5, "active": 5 }));
    deployment.command(&["parallelism", "none"]).await;
    running(&deployment, &run.path(), 6).await;

    // A queue's rate, and a pool that does not exist yet.
    deployment
        .command(&["queues", "rate-limit", "paced", "3/h"])
        .await;
    let yaml = format!(
        "dag_id: paced\ntasks:\n  t: {{queue: paced, expand: {{i: {items}}}, shell: {}}}\n",
        until_told()
    );
    let paced = deployment.client.start("paced", &yaml).await;
    running(&deployment, &paced.path(), 3).await;
    assert_eq!(why(&deployment, &paced.path()).await, ["rate_limit"]);
    deployment
        .command(&["queues", "rate-limit", "paced", "none"])
        .await;
    running(&deployment, &paced.path(), 6).await;

    let yaml = format!(
        "dag_id: pooled\ntasks:\n  t: {{pool: later, expand: {{i: {items}}}, shell: {}}}\n",
        until_told()
    );
    let pooled = deployment.client.start("pooled", &yaml).await;
    let ready = async || {
        (count(&states(&deployment, &pooled.path()).await, "scheduled") == 6).then_some(())
    };
    wait::until("its tasks to be ready", SOON, ready)
        .await
        .unwrap();
    assert_eq!(why(&deployment, &pooled.path()).await, ["pool_missing"]);
    deployment.command(&["pools", "set", "later", "1"]).await;
    running(&deployment, &pooled.path(), 1).await;
    assert_eq!(why(&deployment, &pooled.path()).await, ["pool_full"]);
    deployment.command(&["pools", "set", "later", "4"]).await;
    running(&deployment, &pooled.path(), 4).await;
    deployment.command(&["pools", "set", "later", "-1"]).await;

    std::fs::write(deployment.dir().join("go-on"), "").unwrap();
    for run in [&run, &paced, &pooled] {
        deployment.succeeds(run, LATER).await;
    }
}

/// The run's state, and the kinds of the reasons why its task is not running.
async fn run_state(deployment: &Deployment, path: &str) -> String {
    let run = deployment.client.get(path).await;
    run["state"].as_str().unwrap().to_owned()
}

async fn run_is(deployment: &Deployment, path: &str, state: &str) {
    let reached = async || (run_state(deployment, path).await == state).then_some(());
    wait::until(&format!("{path} to be {state}"), SOON, reached)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_one_key_keep_to_its_strategy() {
    let deployment = Deployment::small().await;
    for strategy in ["queue", "cancel_new", "cancel_running"] {
        let yaml = format!(
            "dag_id: {strategy}\nparams: {{who: kim}}\nconcurrency: {{key: \"{{{{ params.who }}}}\", strategy: {strategy}}}\ntasks:\n  t: {{shell: {}}}\n",
            until_told()
        );
        let first = deployment.client.start(strategy, &yaml).await;
        running(&deployment, &first.path(), 1).await;
        let second = deployment.client.trigger(strategy).await;
        let other = deployment
            .client
            .post(
                &format!("/dags/{strategy}/dagRuns"),
                &json!({ "conf": { "who": "lee" } }),
            )
            .await;
        let other = format!(
            "/dags/{strategy}/dagRuns/{}",
            other["dag_run_id"].as_str().unwrap()
        );
        running(&deployment, &other, 1).await;
        match strategy {
            "queue" => {
                run_is(&deployment, &second.path(), "queued").await;
                let told = deployment
                    .client
                    .get(&format!("{}/taskInstances/t/explain", second.path()))
                    .await;
                assert_eq!(told["reasons"][0]["kind"], "concurrency", "{told}");
            }
            "cancel_new" => {
                run_is(&deployment, &second.path(), "failed").await;
                let told = deployment
                    .client
                    .get(&format!("{}/taskInstances/t/explain", second.path()))
                    .await;
                assert_eq!(told["reasons"][0]["kind"], "run_stopped", "{told}");
                assert!(told.to_string().contains("cancel_new"), "{told}");
            }
            _ => {
                run_is(&deployment, &first.path(), "failed").await;
                running(&deployment, &second.path(), 1).await;
            }
        }
    }
    std::fs::write(deployment.dir().join("go-on"), "").unwrap();
    for strategy in ["queue", "cancel_new", "cancel_running"] {
        let ended = async || {
            let sql = format!(
                "SELECT string_agg(state, ' ' ORDER BY pk) FROM dag_runs WHERE dag_id = '{strategy}'"
            );
            let states = deployment.sql(&sql).await;
            (!states.contains("running") && !states.contains("queued")).then_some(states)
        };
        let states = wait::until("all runs to end", LATER, ended).await.unwrap();
        let expected = match strategy {
            "queue" => "success success success",
            "cancel_new" => "success failed success",
            _ => "failed success success",
        };
        assert_eq!(states, expected, "{strategy}");
    }
    let left = deployment
        .sql("SELECT COALESCE(sum(used), 0) FROM limits WHERE kind IN ('dag_run_key', 'dag_runs', 'pool')")
        .await;
    assert_eq!(left, "0");
}
