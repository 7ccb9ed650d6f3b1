//! Sensors, triggered DAGs and approvals: what waits without a worker.

use crate::support::{Deployment, LATER, Run, SOON, Shape, long_tests};
use gristmill_testkit::wait;
use serde_json::json;
use std::time::{Duration, Instant};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

#[tokio::test(flavor = "multi_thread")]
async fn sensors_wait_without_slots_and_go_on_when_it_is_so() {
    let server = MockServer::start().await;
    Mock::given(path("/ready"))
        .respond_with(ResponseTemplate::new(503))
        .up_to_n_times(2)
        .mount(&server)
        .await;
    Mock::given(path("/ready"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"rows": 7})))
        .mount(&server)
        .await;
    let shape = Shape {
        slots: 1,
        ..Shape::default()
    };
    let deployment = Deployment::of(shape).await;
    let (dir, go_on) = (
        deployment.dir().display().to_string(),
        deployment.dir().join("a.csv"),
    );
    let database = url::Url::parse(&deployment.servers.database_url).unwrap();
    let connection = json!({
        "connection_id": "db", "conn_type": "postgres", "host": database.host_str(), "port": database.port(),
        "login": database.username(), "password": database.password(), "schema": database.path().trim_start_matches('/'),
    });
    deployment.client.post("/connections", &connection).await;
    let yaml = format!(
        "dag_id: sensors
tasks:
  asked: {{sensor: {{sql: {{connection: db, query: SELECT count(*) FROM dag_runs WHERE dag_id = $1, parameters: [\"{{{{ dag.dag_id }}}}\"]}}}}}}
  file: {{sensor: {{file: \"{dir}/*.csv\", poke_interval: 200ms}}}}
  up: {{sensor: {{http: {{url: {base}/ready, expect: {{check: json.rows > 5}}}}, poke_interval: 200ms}}}}
  soon: {{sensor: {{delta: 1s}}}}
  never: {{sensor: {{file: {dir}/never, poke_interval: 100ms, timeout: 1s, soft_fail: true}}}}
  busy: {{shell: \"until [ -e {dir}/a.csv ]; do sleep 0.05; done; echo done\"}}
  after: {{depends_on: [file, up, soon], shell: {{command: cat, stdin: \"{{{{ ti.xcom_pull('file') | length }}}} {{{{ ti.xcom_pull('up').rows }}}}\"}}}}
",
        base = server.uri()
    );
    let run = deployment.client.start("sensors", &yaml).await;
    // While the only slot is taken.
    deployment.client.task_is(&run, "busy", "running").await;
    deployment.client.task_is(&run, "up", "success").await;
    deployment.client.task_is(&run, "never", "skipped").await;
    deployment
        .client
        .task_is(&run, "file", "up_for_reschedule")
        .await;
    let explained = deployment
        .command(&["tasks", "explain", "sensors", &run.run_id, "file"])
        .await;
    assert!(explained.contains("is not there"), "{explained}");
    assert_eq!(
        deployment.client.instance(&run, "file").await["try_number"],
        1
    );
    std::fs::write(go_on, "x").unwrap();
    deployment.succeeds(&run, SOON).await;
    assert_eq!(deployment.client.xcom(&run, "after").await, "1 7");
    assert_eq!(deployment.client.xcom(&run, "asked").await, 1);
    // One try each, however many pokes.
    assert_eq!(
        deployment
            .sql("SELECT max(try_number) FROM task_attempts")
            .await,
        "1"
    );
    assert_eq!(
        deployment.sql("SELECT string_agg(DISTINCT used::text, ',') FROM limits WHERE kind IN ('pool', 'queue')").await,
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_outlives_its_worker_at_no_cost_of_a_try() {
    let server = MockServer::start().await;
    Mock::given(path("/slow"))
        .respond_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(600)))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(path("/slow"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    let mut deployment = Deployment::small().await;
    let yaml = format!(
        "dag_id: outlives
tasks:
  up: {{sensor: {{http: {{url: {}/slow, timeout: 10m}}, poke_interval: 200ms}}}}
",
        server.uri()
    );
    let run = deployment.client.start("outlives", &yaml).await;
    wait::until("the first poke", SOON, async || {
        let asked = server.received_requests().await.unwrap_or_default();
        (!asked.is_empty()).then_some(())
    })
    .await
    .unwrap();
    deployment.workers.remove(0).kill().await.unwrap();
    deployment.add_worker(4, &[]);
    deployment.succeeds(&run, LATER).await;
    let up = deployment.client.instance(&run, "up").await;
    assert_eq!(
        (&up["state"], &up["max_tries"]),
        (&json!("success"), &json!(1))
    );
    assert_eq!(deployment.count_endings("lost").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_triggered_dag_runs_once_and_wakes_who_waits() {
    let deployment = Deployment::small().await;
    deployment
        .client
        .deploy(
            "dag_id: child
params: {n: {type: integer}}
tasks:
  t: {shell: \"echo $N; [ $N -lt 5 ]\", env: {N: \"{{ params.n }}\"}}
",
        )
        .await;
    let parent = "dag_id: parent
tasks:
  make: {shell: {command: \"echo 3\", output: json}}
  waits: {depends_on: [make], trigger_dag: {dag_id: child, conf: {n: \"{{ ti.xcom_pull('make') }}\"}, wait: true}}
  goes_on: {trigger_dag: {dag_id: child, params: {n: 9}}}
  bad: {trigger_dag: {dag_id: child, params: {n: nine}}}
  missing: {trigger_dag: no_such_dag}
  fails: {trigger_dag: {dag_id: child, params: {n: 9}, wait: true}}
  shrugs: {trigger_dag: {dag_id: child, params: {n: 9}, wait: true, propagate_failure: false}}
  seen: {sensor: {dag: {dag_id: parent, task_id: goes_on}, poke_interval: 200ms}}
";
    let run = deployment.client.start("parent", parent).await;
    assert_eq!(deployment.client.ended(&run, SOON).await["state"], "failed");
    let of = async |task: &str| {
        let instance = deployment.client.instance(&run, task).await;
        let text = |key: &str| instance[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("reason"))
    };
    for task in ["waits", "goes_on", "shrugs", "seen"] {
        assert_eq!(of(task).await.0, "success", "{task}: {:?}", of(task).await);
    }
    let (state, reason) = of("bad").await;
    assert!(state == "failed" && reason.contains("params.n"), "{reason}");
    let (state, reason) = of("missing").await;
    assert!(
        state == "failed" && reason.contains("no_such_dag"),
        "{reason}"
    );
    let (state, reason) = of("fails").await;
    assert!(state == "failed" && reason.contains("failed"), "{reason}");
    let value = deployment.client.xcom(&run, "waits").await;
    assert_eq!(
        (&value["dag_id"], &value["state"]),
        (&json!("child"), &json!("success"))
    );
    let child = Run {
        dag_id: "child".to_owned(),
        run_id: value["run_id"].as_str().unwrap().to_owned(),
    };
    assert_eq!(deployment.client.xcom(&child, "t").await, "3");
    let made = deployment
        .sql(
            "SELECT count(*) || ' ' || count(DISTINCT run_id) FROM dag_runs WHERE dag_id = 'child'",
        )
        .await;
    assert_eq!(made, "4 4");
    let awaited = "SELECT count(*) FROM dag_runs WHERE waiter_pk IS NOT NULL";
    assert_eq!(deployment.sql(awaited).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn dags_that_trigger_each_other_end_at_a_depth() {
    let deployment = Deployment::small().await;
    let run = deployment
        .client
        .start("again", "dag_id: again\ntasks: {t: {trigger_dag: again}}\n")
        .await;
    deployment.succeeds(&run, SOON).await;
    wait::until("the last run", LATER, async || {
        let failed = "SELECT count(*) FROM dag_runs WHERE state = 'failed'";
        (deployment.sql(failed).await == "1").then_some(())
    })
    .await
    .unwrap();
    let sql = "SELECT max(trigger_depth) || ' ' || max(reason) FROM dag_runs r JOIN task_instances t ON t.run_pk = r.pk";
    let deepest = deployment.sql(sql).await;
    assert!(
        deepest.starts_with("32 ") && deepest.contains("circle"),
        "{deepest}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_asked_and_only_those_named_may_answer() {
    let deployment = Deployment::small().await;
    let yaml = "dag_id: release
tasks:
  build: {shell: echo v7}
  ask: {depends_on: [build], approval: {prompt: \"Release {{ ti.xcom_pull('build') }}?\"}}
  ship: {depends_on: [ask], shell: echo shipped}
  other: {approval: {who: [somebody-else]}}
  no: {approval: {}}
  not_shipped: {depends_on: [no], shell: echo shipped}
  late: {approval: {timeout: 1s, default: approve}}
  forgotten: {approval: {timeout: 1s, options: [red, blue]}}
";
    let run = deployment.client.start("release", yaml).await;
    for task in ["ask", "other", "no"] {
        deployment
            .client
            .task_is(&run, task, "awaiting_input")
            .await;
    }
    let at = |task: &str| format!("{}/taskInstances/{task}/-1/hitlDetails", run.path());
    let asked = deployment.client.get(&at("ask")).await;
    assert_eq!(asked["subject"], "Release v7?");
    assert_eq!(asked["response_received"], false);
    let listed = format!("{}/hitlDetails?response_received=false", run.path());
    let listed = deployment.client.get(&listed).await["total_entries"].as_i64();
    assert!((3..=5).contains(&listed.unwrap()), "{listed:?}");
    let explained = deployment
        .command(&["tasks", "explain", "release", &run.run_id, "ask"])
        .await;
    assert!(explained.contains("an answer of op"), "{explained}");
    let chosen = json!({"chosen_options": ["approve"]});
    assert_eq!(deployment.client.patch(&at("other"), &chosen).await.0, 403);
    let odd = json!({"chosen_options": ["maybe"]});
    assert_eq!(deployment.client.patch(&at("ask"), &odd).await.0, 422);
    deployment
        .command(&["tasks", "approve", "release", &run.run_id, "ask"])
        .await;
    assert_eq!(deployment.client.patch(&at("ask"), &chosen).await.0, 409);
    deployment
        .command(&["tasks", "reject", "release", &run.run_id, "no"])
        .await;
    for (task, state) in [
        ("ask", "success"),
        ("ship", "success"),
        ("no", "skipped"),
        ("not_shipped", "skipped"),
        ("late", "success"),
        ("forgotten", "failed"),
    ] {
        deployment.client.task_is(&run, task, state).await;
    }
    assert_eq!(deployment.client.xcom(&run, "ask").await, "approve");
    let said = deployment
        .sql("SELECT answered_by FROM approvals WHERE answered_by <> 'timeout' ORDER BY 1 LIMIT 1")
        .await;
    let audited = deployment
        .sql("SELECT DISTINCT actor FROM audit_log WHERE event = 'answer_approval' AND task_id IN ('ask', 'no')")
        .await;
    assert_eq!(said, audited);
    // A wait of a run that is cancelled ends with it.
    deployment
        .client
        .post(&format!("{}/cancel", run.path()), &json!({}))
        .await;
    assert_eq!(deployment.client.ended(&run, SOON).await["state"], "failed");
    deployment.client.task_is(&run, "other", "skipped").await;
}

/// Bytes that a process has had in memory at most.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() * 1024
}

/// 2,000 sensors, or with `GRISTMILL_LONG_TESTS=1` the 20,000 that are promised.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_sensors_wait_in_one_worker_and_starve_nobody() {
    let (dozens, patience) = match long_tests() {
        true => (200, Duration::from_secs(1500)),
        false => (20, LATER),
    };
    let shape = Shape {
        slots: 2,
        ..Shape::default()
    };
    let deployment = Deployment::of(shape).await;
    let dir = deployment.dir().display();
    let items = |n: usize| serde_json::to_string(&(0..n).collect::<Vec<_>>()).unwrap();
    let yaml = format!(
        "dag_id: many
max_active_tasks: 1000
tasks:
  s:
    expand: {{a: {}, b: {}}}
    sensor: {{file: \"{dir}/never-{{{{ map.a }}}}-{{{{ map.b }}}}\", poke_interval: 1m}}
",
        items(dozens),
        items(100)
    );
    deployment
        .client
        .deploy("dag_id: small\ntasks: {t: {shell: echo done}}\n")
        .await;
    let began = Instant::now();
    let run = deployment.client.start("many", &yaml).await;
    // While all of them are looked for, others get their slots.
    let small = deployment.client.trigger("small").await;
    let ended = deployment.client.ended(&small, SOON).await;
    assert_eq!(ended["state"], "success", "{ended}");
    let wanted = (dozens * 100).to_string();
    let waiting =
        "SELECT count(*) FROM task_instances WHERE state <> 'none' AND (wait ->> 'looks')::int > 0";
    wait::until("every sensor to have looked", patience, async || {
        (deployment.sql(waiting).await == wanted).then_some(())
    })
    .await
    .unwrap();
    let took = began.elapsed();
    let peak = peak(deployment.workers[0].pid().unwrap());
    println!(
        "{wanted} sensors looked for the first time within {took:.0?}; the worker's memory was {} MiB at most",
        peak >> 20
    );
    assert!(peak < 100 << 20, "{} MiB", peak >> 20);
    deployment
        .client
        .post(&format!("{}/cancel", run.path()), &json!({}))
        .await;
    assert_eq!(
        deployment.client.ended(&run, patience).await["state"],
        "failed"
    );
    let left = "SELECT count(*) FROM task_instances WHERE state NOT IN ('skipped', 'none')";
    let skipped = deployment.sql(&format!("{left} AND task_id = 's'")).await;
    assert_eq!(skipped, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_goes_on_by_itself() {
    let deployment = Deployment::small().await;
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/dags");
    for name in ["hello.yaml", "waits.yaml"] {
        let text = std::fs::read_to_string(examples.join(name)).unwrap();
        deployment.client.deploy(&text).await;
    }
    let conf = json!({"conf": {"path": deployment.dir().join("never")}});
    let made = deployment.client.post("/dags/waits/dagRuns", &conf).await;
    let run = Run {
        dag_id: "waits".to_owned(),
        run_id: made["dag_run_id"].as_str().unwrap().to_owned(),
    };
    deployment.succeeds(&run, SOON).await;
    let said = deployment.client.xcom(&run, "tell").await;
    assert_eq!(said, "The answer was approve; the file is not there.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_waits_for_an_update_of_an_asset() {
    let deployment = Deployment::small().await;
    let client = &deployment.client;
    let maker = "dag_id: maker
tasks: {make: {shell: echo made, outlets: orders}}
";
    let waiter = "dag_id: waiter
tasks:
  fresh: {sensor: {asset: orders, poke_interval: 200ms}}
  any: {sensor: {asset: {name: orders, since: '2020-01-01'}, poke_interval: 200ms}}
  tell: {depends_on: [fresh], shell: \"echo {{ ti.xcom_pull('fresh').source_dag_id }}\"}
";
    let before = client.start("maker", maker).await;
    deployment.succeeds(&before, SOON).await;
    let run = client.start("waiter", waiter).await;
    // The update of before is good enough for the one, and too old for the other.
    client.task_is(&run, "any", "success").await;
    client.task_is(&run, "fresh", "deferred").await;
    let explain = ["tasks", "explain", "waiter", &run.run_id, "fresh"];
    wait::until("the first look", SOON, async || {
        let explained = deployment.command(&explain).await;
        let why = "orders was not updated since";
        explained.contains(why).then_some(())
    })
    .await
    .unwrap();
    let after = client.trigger("maker").await;
    deployment.succeeds(&after, SOON).await;
    deployment.succeeds(&run, SOON).await;
    assert_eq!(client.xcom(&run, "tell").await, "maker");
}
