//! Commands that read, deploy and change.

use std::fs;

use serde_json::{Value, json};
use wiremock::matchers::{body_json, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::gristmill;
use super::mock::*;
use crate::client::{Instance, Run};
use crate::commands::output::table;

const QUEUE: &str = r#"{"queue":"default","scheduled":3,"broker":5,"running":2,"oldest_age_s":75.5,"consumers":1,"slots":4,"free_slots":2,"paused":false,"rate_limit":"10/s","dead":1}"#;

#[tokio::test]
async fn queues_are_shown() {
    let server = MockServer::start().await;
    let mut queue: Value = serde_json::from_str(QUEUE).unwrap();
    queue["more"] = 1.into();
    let away = json!({
        "queue": "gpu", "scheduled": 0, "broker": null, "running": 0, "oldest_age_s": null, "consumers": null,
        "slots": null, "free_slots": null, "paused": true, "dead": 0,
    });
    let body = json!({"queues": [queue, away], "total_entries": 2});
    answer(&server, "GET", "/api/v2/queues", ok(body)).await;
    let ran = gristmill(&server.uri(), &["queues"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!(ran.out, @r"
    QUEUE    SCHEDULED  BROKER  RUNNING  OLDEST  WORKERS  FREE/SLOTS  PAUSED  RATE  DEAD
    default  3          5       2        1m 16s  1        2/4         no      10/s  1
    gpu      0          -       0        -       -        -/-         yes     -     0
    ");
    let ran = gristmill(&server.uri(), &["queues", "-o", "json"]).await;
    let printed: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(printed[0].to_string(), QUEUE);
    let keys: Vec<&String> = printed[1].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 11);
}

#[tokio::test]
async fn a_queue_is_paused() {
    let server = MockServer::start().await;
    let at = "/api/v2/queues/default/pause";
    answer(
        &server,
        "POST",
        at,
        ok(serde_json::from_str(QUEUE).unwrap()),
    )
    .await;
    let ran = gristmill(&server.uri(), &["queues", "pause", "default"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, "queue default: paused\n"));
}

#[tokio::test]
async fn a_listing_says_that_there_is_more() {
    let server = MockServer::start().await;
    let body = json!({"dag_runs": [run("success"), run("failed")], "total_entries": 12});
    answer(&server, "GET", "/api/v2/dags/~/dagRuns", ok(body)).await;
    let ran = gristmill(&server.uri(), &["runs", "list", "--limit", "2"]).await;
    assert_eq!(ran.err, "2 of 12 shown; --limit shows more\n");
    assert_eq!(ran.out.lines().count(), 3, "{ran:?}");
}

#[test]
fn runs_and_tasks_have_tables() {
    let now = "2026-01-02T03:09:05Z".parse().unwrap();
    let mut cancelled = run("failed");
    cancelled["cancelled"] = true.into();
    let rows = vec![run("running"), run("success"), cancelled];
    insta::assert_snapshot!(table::<Run>(rows, false, now).unwrap(), @r"
    DAG    RUN  STATE      TYPE    STARTED  TOOK
    sales  r1   running    manual  5m ago   5m 0s
    sales  r1   success    manual  5m ago   12s
    sales  r1   cancelled  manual  5m ago   12s
    ");

    let mut mapped = instance("part", "up_for_retry", 1);
    mapped["map_index"] = 2.into();
    mapped["rendered_map_index"] = "eu".into();
    mapped["reason"] =
        "exit code 1: cannot open the file, which is why nothing was read from it\nmore".into();
    let mut waiting = instance("last", "none", 0);
    waiting["start_date"] = Value::Null;
    waiting["duration"] = Value::Null;
    let rows = vec![instance("fetch", "success", 2), mapped, waiting];
    insta::assert_snapshot!(table::<Instance>(rows, false, now).unwrap(), @r"
    TASK          STATE         TRY  QUEUE    HOST  STARTED  TOOK  REASON
    fetch         success       2    default  w1    5m ago   1.5s
    part[2] (eu)  up_for_retry  1    default  w1    5m ago   1.5s  exit code 1: cannot open the file, which is why nothing was…
    last          none          0    default  w1    -        -
    ");
}

#[tokio::test]
async fn dags_are_listed() {
    let server = MockServer::start().await;
    let dag = json!({
        "dag_id": "sales", "version_number": 3, "is_paused": false, "timetable_summary": "0 2 * * *",
        "next_dagrun_run_after": null, "description": "sums",
    });
    answer(
        &server,
        "GET",
        "/api/v2/dags",
        ok(json!({"dags": [dag], "total_entries": 1})),
    )
    .await;
    let ran = gristmill(&server.uri(), &["dags", "list"]).await;
    insta::assert_snapshot!(ran.out, @r"
    DAG    VERSION  SCHEDULE   NEXT  PAUSED  DESCRIPTION
    sales  3        0 2 * * *  -     no      sums
    ");
}

#[tokio::test]
async fn a_wait_is_explained() {
    let server = MockServer::start().await;
    let body = json!({
        "dag_id": "sales", "dag_run_id": "r1", "task_id": "part", "map_index": 2, "state": "scheduled",
        "reasons": [{"kind": "pool_full", "message": "pool \"shop\" has 4 slots, all are taken", "slots": 4}],
    });
    answer(
        &server,
        "GET",
        &format!("{RUN}/taskInstances/part/2/explain"),
        ok(body),
    )
    .await;
    let ran = gristmill(
        &server.uri(),
        &[
            "tasks",
            "explain",
            "sales",
            "r1",
            "part",
            "--map-index",
            "2",
        ],
    )
    .await;
    assert_eq!(
        ran.out,
        "part[2] is scheduled\n  pool \"shop\" has 4 slots, all are taken\n"
    );
}

#[tokio::test]
async fn logs_are_printed_and_followed() {
    let server = MockServer::start().await;
    let at = format!("{RUN}/taskInstances/fetch/logs/0");
    for (token, page) in [(
        "a",
        Sequence::of([
            log(&[], Some("a")),
            ResponseTemplate::new(502),
            log(&["two"], None),
        ]),
    )] {
        Mock::given(path(&at))
            .and(query_param("token", token))
            .respond_with(page)
            .with_priority(1)
            .mount(&server)
            .await;
    }
    answer(&server, "GET", &at, log(&["one"], Some("a"))).await;
    let args = ["tasks", "logs", "sales", "r1", "fetch"];
    let ran = gristmill(&server.uri(), &args).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "one\n"), "{ran:?}");
    let ran = gristmill(&server.uri(), &[&args[..], &["-f", "-t"]].concat()).await;
    let expected = "2026-01-02T03:04:05.000Z one\n2026-01-02T03:04:05.000Z two\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, expected), "{ran:?}");
    let ran = gristmill(&server.uri(), &["tasks", "logs", "sales", "r1", "other"]).await;
    assert_eq!(ran.code, 7, "{ran:?}");
}

#[tokio::test]
async fn a_value_is_printed_as_it_is() {
    let server = MockServer::start().await;
    let at = format!("{RUN}/taskInstances/fetch/xcomEntries");
    for (key, value) in [("return_value", json!("plain text")), ("rows", json!([1]))] {
        let entry = json!({"task_id": "fetch", "map_index": -1, "key": key, "value": value});
        answer(&server, "GET", &format!("{at}/{key}"), ok(entry)).await;
    }
    let args = ["xcom", "get", "sales", "r1", "fetch"];
    assert_eq!(gristmill(&server.uri(), &args).await.out, "plain text\n");
    let rows = gristmill(&server.uri(), &[&args[..], &["rows"]].concat())
        .await
        .out;
    assert_eq!(serde_json::from_str::<Value>(&rows).unwrap(), json!([1]));
}

#[tokio::test]
async fn a_pool_is_made_or_changed() {
    let server = MockServer::start().await;
    let body = json!({"name": "shop", "slots": -1});
    Mock::given(method("POST"))
        .and(path("/api/v2/pools"))
        .and(body_json(&body))
        .respond_with(ResponseTemplate::new(201).set_body_json(&body))
        .expect(1)
        .mount(&server)
        .await;
    let ran = gristmill(&server.uri(), &["pools", "set", "shop", "-1"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, "pool shop made\n"));
    answer(&server, "PATCH", "/api/v2/pools/shop", ok(body)).await;
    let ran = gristmill(&server.uri(), &["pools", "set", "shop", "-1"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, "pool shop changed\n"));
}

#[tokio::test]
async fn a_connection_keeps_what_is_not_given() {
    let server = MockServer::start().await;
    let changes = json!({"connection_id": "shop", "host": "https://h"});
    Mock::given(method("PATCH"))
        .and(body_json(&changes))
        .respond_with(ok(json!({})))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    let args = ["connections", "set", "shop", "--host", "https://h"];
    let ran = gristmill(&server.uri(), &args).await;
    assert_eq!(ran.err, "connection shop changed\n");
    // There is none any more.
    let new = json!({"connection_id": "shop", "host": "https://h", "conn_type": "http"});
    Mock::given(method("POST"))
        .and(body_json(&new))
        .respond_with(ResponseTemplate::new(201))
        .mount(&server)
        .await;
    let ran = gristmill(&server.uri(), &args).await;
    assert_eq!(ran.err, "connection shop made\n");
}

const GOOD: &str = "dag_id: good\ntasks:\n  a: {empty: {}}\n";

#[tokio::test]
async fn files_are_checked_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = "http://127.0.0.1:1";
    let path = dir.path().to_str().unwrap();
    assert_eq!(
        gristmill(nowhere, &["dags", "validate", path]).await.code,
        2
    );
    fs::create_dir(dir.path().join("below")).unwrap();
    fs::write(dir.path().join("below/good.yaml"), GOOD).unwrap();
    fs::write(dir.path().join("notes.txt"), "no DAG").unwrap();
    let ran = gristmill(nowhere, &["dags", "validate", path]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("DAG good is valid"), "{ran:?}");

    fs::write(
        dir.path().join("bad.yaml"),
        "dag_id: bad\ntasks:\n  a: {emty: {}}\n  b: 5\n",
    )
    .unwrap();
    fs::write(dir.path().join("twin.yaml"), GOOD).unwrap();
    let ran = gristmill(nowhere, &["dags", "validate", path]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    for part in [
        "bad.yaml:3:",
        "bad.yaml:4:",
        "DAG good is valid",
        "is in",
        "2 of 3 files",
    ] {
        assert!(
            ran.out.contains(part) || ran.err.contains(part),
            "{part}: {ran:?}"
        );
    }
    let ran = gristmill(nowhere, &["dags", "validate", path, "-o", "json"]).await;
    let files: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, files.as_array().unwrap().len()), (2, 3));
}

#[tokio::test]
async fn a_folder_is_deployed_with_its_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("good.yaml"), GOOD).unwrap();
    let server = MockServer::start().await;
    let problem = json!({
        "severity": "error", "file": "bad.yaml", "line": 3, "column": 5, "path": "tasks.a", "message": "is not right",
    });
    let report = json!({
        "deployed": [{"dag_id": "good", "version_number": 4, "is_new": true, "fileloc": "sales/good.yaml", "warnings": []}],
        "errors": [problem],
    });
    Mock::given(method("POST"))
        .and(path("/api/v2/dags/deploy"))
        .and(query_param("folder", "sales"))
        .and(header("content-type", "application/zstd"))
        .respond_with(ok(report))
        .mount(&server)
        .await;
    let args = [
        "dags",
        "deploy",
        dir.path().to_str().unwrap(),
        "--folder",
        "sales",
    ];
    let ran = gristmill(&server.uri(), &args).await;
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (7, "good: version 4\n"),
        "{ran:?}"
    );
    assert!(
        ran.err.contains("bad.yaml:3:5: tasks.a: is not right"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_file_that_is_all_bad_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    fs::write(&file, "tasks: 5").unwrap();
    let server = MockServer::start().await;
    let problem =
        json!({"severity": "error", "file": "bad.yaml", "path": "dag_id", "message": "is missing"});
    let report = json!({"detail": "nothing was deployed", "deployed": [], "errors": [problem]});
    Mock::given(query_param("file_name", "bad.yaml"))
        .and(header("content-type", "application/yaml"))
        .respond_with(ResponseTemplate::new(400).set_body_json(report))
        .mount(&server)
        .await;
    let ran = gristmill(&server.uri(), &["dags", "deploy", file.to_str().unwrap()]).await;
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.err.contains("bad.yaml: dag_id: is missing"), "{ran:?}");
}
