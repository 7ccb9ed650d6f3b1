//! Triggering, listing, waiting for and cancelling runs.

use crate::support::{Api, CHAIN, events};
use axum::http::Method;
use gristmill_common::message::Ending;
use serde_json::{Value, json};
use std::time::Duration;

const RUNS: &str = "/api/v2/dags/chain/dagRuns";

#[tokio::test]
async fn a_run_is_accepted_once() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    let run = api
        .post(
            RUNS,
            json!({ "dag_run_id": "r1", "logical_date": null, "conf": { "n": 5 } }),
        )
        .await
        .expect(200);
    assert_eq!(
        (&run["state"], &run["run_type"], &run["triggered_by"]),
        (&json!("queued"), &json!("manual"), &json!("rest_api"))
    );
    assert_eq!(
        (&run["conf"], &run["params"], &run["logical_date"]),
        (&json!({ "n": 5 }), &json!({ "n": 5 }), &Value::Null)
    );
    assert!(run["dag_versions"][0]["id"].is_string());
    let taken = api
        .post(RUNS, json!({ "dag_run_id": "r1" }))
        .await
        .expect(409);
    assert_eq!(taken["detail"]["reason"], "Unique constraint violation");

    let made = api.post(RUNS, json!({})).await.expect(200);
    let id = made["dag_run_id"].as_str().unwrap();
    assert!(
        id.starts_with("manual__") && made["logical_date"] == made["run_after"],
        "{made}"
    );
    let encoded = id.replace(':', "%3A").replace('+', "%2B");
    assert_eq!(
        api.get(&format!("{RUNS}/{encoded}")).await.expect(200)["dag_run_id"],
        id
    );
    let all = api
        .get("/api/v2/dags/~/dagRuns?state=queued&state=running&order_by=-run_after")
        .await
        .expect(200);
    assert_eq!(
        (&all["total_entries"], &all["dag_runs"][0]["dag_run_id"]),
        (&json!(2), &json!(id))
    );
    api.get("/api/v2/dags/~/dagRuns?state=cancelled")
        .await
        .expect(422);
    let ordered = api
        .get(&format!(
            "{RUNS}?order_by=-run_after&run_after_gte=2026-01-01"
        ))
        .await
        .expect(200);
    assert_eq!(ordered["total_entries"], 2);
    api.get(&format!("{RUNS}?order_by=colour"))
        .await
        .expect(400);
}

#[tokio::test]
async fn what_is_wrong_with_a_trigger_is_named() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    assert_eq!(
        api.post("/api/v2/dags/x/dagRuns", json!({}))
            .await
            .detail(404),
        "Dag with dag_id: 'x' not found"
    );
    let unknown = api.post(RUNS, json!({ "config": {} })).await.expect(422);
    assert_eq!(unknown["detail"][0]["type"], "extra_forbidden");
    assert_eq!(unknown["detail"][0]["loc"], json!(["body", "config"]));
    let wrong = api.post(RUNS, json!({ "conf": [1] })).await.expect(422);
    assert_eq!(wrong["detail"][0]["loc"], json!(["body", "conf"]));
    assert_eq!(wrong["detail"][0]["input"], json!([1]));
    let broken = api
        .with_header(
            Method::POST,
            RUNS,
            ("content-type", "application/json"),
            "{",
        )
        .await
        .expect(422);
    assert_eq!(broken["detail"][0]["type"], "json_invalid");
    let params = api
        .post(RUNS, json!({ "conf": { "n": "x", "m": 1 } }))
        .await
        .expect(400);
    assert_eq!(params["violations"].as_array().map(Vec::len), Some(2));
    let text = params["detail"].as_str().unwrap();
    assert!(
        text.contains("params.n") && text.contains("params.m"),
        "{text}"
    );
    api.post(RUNS, json!({ "dag_run_id": "a b" }))
        .await
        .expect(422);
    api.post(RUNS, json!({ "dag_run_id": "scheduled__1" }))
        .await
        .expect(400);
    api.post(
        RUNS,
        json!({ "data_interval_start": "2026-01-01T00:00:00Z" }),
    )
    .await
    .expect(422);
    api.deploy("dag_id: free\ntasks: {a: {noop: {}}}").await;
    let large = json!({ "conf": { "x": "y".repeat(33 * 1024) } });
    assert!(
        api.post("/api/v2/dags/free/dagRuns", large)
            .await
            .detail(413)
            .contains("32768")
    );
    let huge = json!({ "conf": { "x": "y".repeat(2 << 20) } });
    api.post("/api/v2/dags/free/dagRuns", huge)
        .await
        .expect(413);
    api.post(
        "/api/v2/dags/free/dagRuns",
        json!({ "conf": { "any": [1] } }),
    )
    .await
    .expect(200);
    assert_eq!(api.get("/api/v2/nothing").await.detail(404), "Not Found");
    assert_eq!(
        api.post("/api/v2/queues", json!({})).await.detail(405),
        "Method Not Allowed"
    );
}

#[tokio::test]
async fn an_idempotency_key_makes_one_run() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    let send = async |key: &str, body: Value| {
        api.with_header(
            Method::POST,
            RUNS,
            ("idempotency-key", key),
            body.to_string(),
        )
        .await
    };
    let first = send("k1", json!({})).await.expect(200);
    let second = send("k1", json!({})).await.expect(200);
    assert_eq!(first["dag_run_id"], second["dag_run_id"]);
    send("k1", json!({ "note": "other" })).await.expect(409);
    assert_ne!(
        send("k2", json!({})).await.expect(200)["dag_run_id"],
        first["dag_run_id"]
    );
}

#[tokio::test]
async fn a_wait_ends_with_the_run_or_with_patience() {
    let api = Api::new().await;
    api.deploy("dag_id: one\ntasks: {a: {noop: {}}}").await;
    let triggered = api
        .post(
            "/api/v2/dags/one/dagRuns?wait=0",
            json!({ "dag_run_id": "r1" }),
        )
        .await;
    triggered.expect(202);
    assert_eq!(
        triggered.headers["location"],
        "/api/v2/dags/one/dagRuns/r1/wait"
    );
    let not_yet = api
        .get("/api/v2/dags/one/dagRuns/r1/wait?timeout=0")
        .await
        .expect(202);
    assert_eq!(not_yet["state"], "queued");

    api.start_runs().await;
    let run = api.store().run("one", "r1").await.unwrap().unwrap().pk;
    let ti = api.ti(run, "a").await;
    let waiting = api.get("/api/v2/dags/one/dagRuns/r1/wait?timeout=60&result=a");
    let ending = async {
        let xcom = gristmill_common::message::XcomOut {
            key: "return_value".into(),
            value: gristmill_common::row::XcomValue::Inline(json!({ "rows": 3 })),
        };
        api.apply(events::finished(&ti, Ending::Success, vec![xcom]))
            .await;
    };
    let (answer, ()) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(20), waiting),
        ending
    );
    let ended = answer.expect("answers long before its timeout").expect(200);
    assert_eq!(
        (&ended["state"], &ended["task_states"]["success"]),
        (&json!("success"), &json!(1))
    );
    assert_eq!(ended["results"], json!({ "a": { "rows": 3 } }));
    api.get("/api/v2/dags/one/dagRuns/r1/wait?timeout=soon")
        .await
        .expect(422);
}

#[tokio::test]
async fn a_cancelled_run_skips_what_had_not_started() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    api.trigger("chain", "queued").await;
    let run = api.trigger("chain", "r1").await;
    let cancelled = api
        .post(&format!("{RUNS}/queued/cancel"), json!({}))
        .await
        .expect(200);
    assert_eq!(cancelled["cancelled"], true);

    api.start_runs().await;
    let ti = api.ti(run, "a").await;
    api.apply(events::started(&ti)).await;
    let stopping = api
        .post(
            &format!("{RUNS}/r1/cancel"),
            json!({ "reason": "wrong day" }),
        )
        .await
        .expect(200);
    assert_eq!(
        (&stopping["state"], &stopping["cancelled"]),
        (&json!("running"), &json!(true))
    );
    assert!(stopping["reason"].as_str().unwrap().ends_with("wrong day"));
    let b = api
        .get(&format!("{RUNS}/r1/taskInstances/b"))
        .await
        .expect(200);
    assert_eq!(b["state"], "skipped");
    api.delete(&format!("{RUNS}/r1")).await.expect(409);

    api.apply(events::finished(&ti, Ending::Cancelled, vec![]))
        .await;
    let ended = api.get(&format!("{RUNS}/r1")).await.expect(200);
    assert_eq!(ended["state"], "failed", "Airflow's states are closed");
    api.post(&format!("{RUNS}/r1/cancel"), json!({}))
        .await
        .expect(409);
    let healed = api
        .patch(
            &format!("{RUNS}/r1"),
            json!({ "state": "success", "note": "seen" }),
        )
        .await
        .expect(200);
    assert_eq!(
        (&healed["state"], &healed["note"], &healed["cancelled"]),
        (&json!("success"), &json!("seen"), &json!(false))
    );
    api.patch(&format!("{RUNS}/r1"), json!({ "state": "done" }))
        .await
        .expect(422);
    api.delete(&format!("{RUNS}/r1")).await.expect(204);
    api.get(&format!("{RUNS}/r1")).await.expect(404);
}
