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

/// A DAG of one task `t`, mapped over `n` items, that runs until it is told to end.
fn sharing(dag_id: &str, n: usize, concurrency: &str) -> String {
    let items = json!((0..n).collect::<Vec<_>>());
    format!(
        "dag_id: {dag_id}\nparams: {{who: kim}}\ntasks:\n  t:\n    expand: {{i: {items}}}\n    concurrency: {concurrency}\n    shell: {}\n",
        until_told()
    )
}

/// Waits until the run has so many instances in these states.
async fn counts(deployment: &Deployment, path: &str, wanted: &[(&str, usize)]) {
    let reached = async || {
        let states = states(deployment, path).await;
        wanted
            .iter()
            .all(|(state, n)| count(&states, state) == *n)
            .then_some(())
    };
    wait::until(&format!("{path} to have {wanted:?}"), SOON, reached)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_key_keep_to_its_strategy() {
    let deployment = Deployment::small().await;
    // Waiting: one limit for the instances of two DAGs, and another key beside it.
    let waits = "{key: \"queue/{{ params.who }}\", limit: 2}";
    let a = deployment.client.start("a", &sharing("a", 2, waits)).await;
    running(&deployment, &a.path(), 2).await;
    let b = deployment.client.start("b", &sharing("b", 2, waits)).await;
    counts(&deployment, &b.path(), &[("scheduled", 2)]).await;
    assert_eq!(why(&deployment, &b.path()).await, ["task_concurrency"]);
    let other = deployment
        .client
        .post("/dags/b/dagRuns", &json!({ "conf": { "who": "lee" } }))
        .await;
    let other = format!("/dags/b/dagRuns/{}", other["dag_run_id"].as_str().unwrap());
    running(&deployment, &other, 2).await;
    let held = deployment
        .sql("SELECT string_agg(name || ' ' || used, ', ' ORDER BY name) FROM limits WHERE kind = 'task_key'")
        .await;
    assert_eq!(held, "queue/kim 2, queue/lee 2");

    // A newer one is skipped.
    let skips = "{key: skip, strategy: cancel_new}";
    let skipping = deployment
        .client
        .start("skipping", &sharing("skipping", 2, skips))
        .await;
    counts(
        &deployment,
        &skipping.path(),
        &[("running", 1), ("skipped", 1)],
    )
    .await;

    // A newer one takes the place of the older of its DAG.
    let stops = "{key: stop, strategy: cancel_running}";
    let older = deployment
        .client
        .start("stopping", &sharing("stopping", 1, stops))
        .await;
    running(&deployment, &older.path(), 1).await;
    let newer = deployment.client.trigger("stopping").await;
    counts(&deployment, &older.path(), &[("failed", 1)]).await;
    running(&deployment, &newer.path(), 1).await;
    let told = deployment
        .client
        .get(&format!("{}/taskInstances/t/0/explain", older.path()))
        .await;
    assert!(
        told.to_string().contains("concurrency: cancel_running"),
        "{told}"
    );
    // But not that of another DAG.
    let stranger = deployment
        .client
        .start("stranger", &sharing("stranger", 1, stops))
        .await;
    counts(&deployment, &stranger.path(), &[("scheduled", 1)]).await;
    assert_eq!(
        why(&deployment, &stranger.path()).await,
        ["task_concurrency"]
    );
    running(&deployment, &newer.path(), 1).await;

    std::fs::write(deployment.dir().join("go-on"), "").unwrap();
    for run in [&a, &b, &newer, &stranger, &skipping] {
        deployment.succeeds(run, LATER).await;
    }
    let left = deployment
        .sql(
            "SELECT COALESCE(sum(used), 0) FROM limits WHERE kind IN ('task_key', 'pool', 'queue')",
        )
        .await;
    assert_eq!(left, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_counts_in_a_pool_that_includes_it() {
    let deployment = Deployment::small().await;
    let set = async |arguments: &[&str]| {
        let mut all = vec!["pools", "set", "people"];
        all.extend(arguments);
        deployment.command(&all).await;
    };
    set(&["3", "--include-deferred"]).await;
    let path = deployment.dir().join("never");
    let yaml = format!(
        "dag_id: asks\ntasks:\n  ask: {{pool: people, pool_slots: 2, expand: {{i: [0, 1]}}, approval: {{who: [admin]}}}}\n\
         \x20 look: {{pool: people, sensor: {{file: {}, poke_interval: 200ms}}}}\n",
        path.display()
    );
    let run = deployment.client.start("asks", &yaml).await;
    // One approval has room, and one look; the look keeps its slot between the looks.
    counts(&deployment, &run.path(), &[("awaiting_input", 1)]).await;
    let pool = async || {
        let shown = deployment
            .command(&["pools", "get", "people", "-o", "json"])
            .await;
        serde_json::from_str::<Value>(&shown).unwrap()
    };
    let full = async || {
        let pool = pool().await;
        (pool["occupied_slots"] == 3 && pool["deferred_slots"] == 3).then_some(pool)
    };
    let full = wait::until("the sensor to wait in the pool", SOON, full)
        .await
        .unwrap();
    assert_eq!(
        (&full["open_slots"], &full["include_deferred"]),
        (&json!(0), &json!(true))
    );
    counts(&deployment, &run.path(), &[("deferred", 1)]).await;
    let listed = deployment
        .client
        .get(&format!("{}/taskInstances?limit=100", run.path()))
        .await;
    let waiting = listed["task_instances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|ti| ti["state"] == "deferred")
        .unwrap();
    let told = deployment
        .client
        .get(&format!(
            "{}/taskInstances/ask/{}/explain",
            run.path(),
            waiting["map_index"]
        ))
        .await;
    assert_eq!(told["reasons"][0]["kind"], "pool_full", "{told}");
    // What does not count takes no room, at once; what counts again does, and nothing more begins.
    set(&["3", "--include-deferred", "false"]).await;
    counts(&deployment, &run.path(), &[("awaiting_input", 2)]).await;
    set(&["3", "--include-deferred"]).await;
    let later = deployment.client.trigger("asks").await;
    counts(
        &deployment,
        &later.path(),
        &[("deferred", 2), ("awaiting_input", 0)],
    )
    .await;
    assert!(pool().await["occupied_slots"].as_i64() >= Some(4));
    // Without an end all begin.
    set(&["-1"]).await;
    counts(&deployment, &later.path(), &[("awaiting_input", 2)]).await;
    for run in [run, later] {
        deployment
            .client
            .post(&format!("{}/cancel", run.path()), &json!({}))
            .await;
        assert_eq!(
            deployment.client.ended(&run, LATER).await["state"],
            "failed"
        );
    }
    assert_eq!(pool().await["occupied_slots"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_shared_keys_runs() {
    let deployment = Deployment::small().await;
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/dags/one_account.yaml"
    );
    let text = std::fs::read_to_string(file).unwrap();
    deployment.client.deploy(&text).await;
    let run = deployment.client.trigger("one_account").await;
    deployment.succeeds(&run, SOON).await;
}
