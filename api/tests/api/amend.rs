//! Clearing and marking.

use crate::support::{Api, events};
use gristmill_common::message::Ending;
use serde_json::json;

const DAG: &str = "
dag_id: chain
tasks:
  a: {shell: 'true'}
  b: {depends_on: [a], shell: 'true'}
";
const RUN: &str = "/api/v2/dags/chain/dagRuns/r1";
const CLEAR: &str = "/api/v2/dags/chain/clearTaskInstances";

/// A run whose first task has failed.
async fn failed() -> Api {
    let api = Api::new().await;
    api.deploy(DAG).await;
    let run = api.trigger("chain", "r1").await;
    api.start_runs().await;
    let ti = api.ti(run, "a").await;
    api.apply(events::finished(&ti, Ending::Failed, vec![]))
        .await;
    assert_eq!(api.get(RUN).await.expect(200)["state"], "failed");
    api
}

#[tokio::test]
async fn clearing_lists_and_then_clears() {
    let api = failed().await;
    let body = json!({ "dag_run_id": "r1" });
    let would = api.post(CLEAR, body.clone()).await.expect(200);
    assert_eq!(
        would["total_entries"], 2,
        "a dry run is the default: {would}"
    );
    assert_eq!(would["task_instances"][1]["state"], "upstream_failed");
    let none = json!({ "dag_run_id": "r1", "only_running": true });
    assert_eq!(api.post(CLEAR, none).await.expect(200)["total_entries"], 0);
    let done = json!({ "dag_run_id": "r1", "dry_run": false, "task_ids": ["a"], "include_downstream": true });
    let cleared = api.post(CLEAR, done).await.expect(200);
    assert_eq!(cleared["total_entries"], 2);
    assert_eq!(cleared["task_instances"][0]["state"], json!(null));
    let run = api.get(RUN).await.expect(200);
    assert_eq!(
        (&run["state"], &run["start_date"]),
        (&json!("queued"), &json!(null))
    );
    api.start_runs().await;
    let a = api.get(&format!("{RUN}/taskInstances/a")).await.expect(200);
    assert_eq!(
        (&a["state"], &a["try_number"]),
        (&json!("queued"), &json!(2))
    );
    let log = api.get("/api/v2/eventLogs").await.expect(200);
    assert_eq!(
        log["event_logs"][0]["event"], "clear_task_instances",
        "{log}"
    );
}

#[tokio::test]
async fn what_cannot_be_cleared_is_named() {
    let api = failed().await;
    let unknown = json!({ "dag_run_id": "r1", "task_ids": ["nope"] });
    let detail = api.post(CLEAR, unknown).await.detail(404);
    assert!(detail.contains("nope"), "{detail}");
    let past = json!({ "dag_run_id": "none", "include_past": true });
    api.post(CLEAR, past).await.expect(404);
    let kept = json!({ "dag_run_id": "r1", "dry_run": false, "reset_dag_runs": false });
    let detail = api.post(CLEAR, kept).await.detail(400);
    assert!(detail.contains("reset_dag_runs"), "{detail}");
    let odd = json!({ "dag_run_id": "r1", "odd": 1 });
    api.post(CLEAR, odd).await.expect(422);
    // It goes on with its version, whatever has been deployed since.
    api.deploy(&DAG.replace("true", "false")).await;
    let latest = json!({ "dag_run_id": "r1", "run_on_latest_version": true });
    let detail = api.post(CLEAR, latest).await.detail(501);
    assert!(detail.contains("older version"), "{detail}");
    // What runs is not touched when that was asked for; without it, it is stopped.
    api.post(&format!("{RUN}/clear"), json!({ "dry_run": false }))
        .await
        .expect(200);
    api.start_runs().await;
    let careful = json!({ "dag_run_id": "r1", "dry_run": false, "only_failed": false, "prevent_running_task": true });
    let detail = api.post(CLEAR, careful).await.detail(409);
    assert!(detail.contains("a is running"), "{detail}");
}

#[tokio::test]
async fn marking_changes_states_and_what_follows() {
    let api = failed().await;
    let a = format!("{RUN}/taskInstances/a");
    api.patch(&a, json!({ "new_state": "running" }))
        .await
        .expect(422);
    let body = json!({ "new_state": "success" });
    let would = api
        .patch(&format!("{a}/dry_run"), body.clone())
        .await
        .expect(200);
    assert_eq!(
        would["total_entries"], 2,
        "itself, and what failed for its sake"
    );
    let marked = api.patch(&a, body.clone()).await.expect(200);
    assert_eq!(marked["task_instances"][0]["state"], "success");
    api.patch(&a, body).await.expect(409);
    assert_eq!(api.get(RUN).await.expect(200)["state"], "queued");
    api.start_runs().await;
    let b = api.get(&format!("{RUN}/taskInstances/b")).await.expect(200);
    assert_eq!(b["state"], "queued");
    let missing = format!("{RUN}/taskInstances/nope");
    api.patch(&missing, json!({ "new_state": "failed" }))
        .await
        .expect(404);
}
