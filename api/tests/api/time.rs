//! Backfills and assets: Airflow's shapes, and what is refused.

use crate::support::Api;
use axum::http::Method;
use serde_json::{Value, json};

const DAILY: &str = "
dag_id: daily
schedule: '@daily'
start_date: 2026-01-01
params: {n: {type: integer, default: 1}}
tasks: {t: {noop: , outlets: orders}}
";
const BACKFILLS: &str = "/api/v2/backfills";

fn january(days: u32) -> Value {
    json!({
        "dag_id": "daily", "from_date": "2026-01-01T00:00:00Z", "to_date": format!("2026-01-{days:02}T00:00:00Z"),
    })
}

fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}

#[tokio::test]
async fn a_backfill_is_made_shown_paused_and_cancelled() {
    let api = Api::new().await;
    api.deploy(DAILY).await;
    let dry = api
        .post(&format!("{BACKFILLS}/dry_run"), january(3))
        .await
        .expect(200);
    assert_eq!(dry["total_entries"], 3);
    assert_eq!(
        dry["backfills"][0]["logical_date"],
        "2026-01-01T00:00:00.000000Z"
    );
    let made = api.post(BACKFILLS, january(3)).await.expect(200);
    for (key, value) in [
        ("dag_id", json!("daily")),
        ("max_active_runs", json!(10)),
        ("reprocess_behavior", json!("none")),
        ("is_paused", json!(false)),
        ("completed_at", Value::Null),
        (
            "runs",
            json!({"queued": 3, "running": 0, "success": 0, "failed": 0}),
        ),
    ] {
        assert_eq!(made[key], value, "{key}");
    }
    let one = format!("{BACKFILLS}/{}", made["id"]);
    let put = async |action: &str, status: u16| {
        let path = format!("{one}/{action}");
        let header = ("accept", "application/json");
        api.with_header(Method::PUT, &path, header, "")
            .await
            .expect(status)
    };
    assert_eq!(put("pause", 200).await["is_paused"], true);
    let run = "/api/v2/dags/daily/dagRuns/backfill__2026-01-01T00:00:00%2B00:00";
    assert_eq!(api.get(run).await.expect(200)["run_type"], "backfill");
    let why = api
        .get(&format!("{run}/taskInstances/t/explain"))
        .await
        .expect(200);
    assert!(why.to_string().contains("backfill_paused"), "{why}");
    assert_eq!(put("unpause", 200).await["is_paused"], false);
    let beside = api.post(BACKFILLS, january(9)).await.detail(409);
    assert!(beside.contains("already a running backfill"), "{beside}");
    let cancelled = put("cancel", 200).await;
    assert_eq!(cancelled["runs"]["failed"], 3);
    assert!(cancelled["completed_at"].is_string());
    for action in ["pause", "unpause", "cancel"] {
        put(action, 409).await;
    }
    let listed = api
        .get(&format!("{BACKFILLS}?dag_id=daily"))
        .await
        .expect(200);
    assert_eq!(listed["total_entries"], 1);
    let active = api
        .get(&format!("{BACKFILLS}?active=true"))
        .await
        .expect(200);
    assert_eq!(active["total_entries"], 0);
    assert_eq!(api.get(run).await.expect(200)["cancelled"], true);
}

#[tokio::test]
async fn what_cannot_be_filled_in_is_refused() {
    let api = Api::new().await;
    api.deploy(DAILY).await;
    api.deploy("dag_id: by_hand\ntasks: {t: {noop: }}").await;
    for (body, status, word) in [
        (
            with(january(3), "dag_id", json!("by_hand")),
            422,
            "no schedule of dates",
        ),
        (
            with(january(3), "to_date", json!("2025-01-01T00:00:00Z")),
            422,
            "is after",
        ),
        (
            with(january(3), "max_active_runs", json!(0)),
            422,
            "at least 1",
        ),
        (
            with(january(3), "reprocess_behavior", json!("all")),
            422,
            "all",
        ),
        (with(january(3), "from", json!(1)), 422, "from"),
        (
            with(january(3), "dag_run_conf", json!({"n": "many"})),
            400,
            "many",
        ),
        (with(january(3), "dag_id", json!("none")), 404, "none"),
    ] {
        let answer = api.post(BACKFILLS, body).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert!(answer.text.contains(word), "{}", answer.text);
    }
    api.get(&format!("{BACKFILLS}/99")).await.expect(404);
}

#[tokio::test]
async fn an_update_of_an_asset_is_told_by_hand() {
    let api = Api::new().await;
    api.deploy(DAILY).await;
    let reader =
        "dag_id: reader\nschedule: {all: [orders, prices]}\ntasks: {t: {noop: , inlets: prices}}";
    api.deploy(reader).await;
    let assets = api.get("/api/v2/assets").await.expect(200);
    assert_eq!(assets["total_entries"], 2);
    let orders = &assets["assets"][0];
    assert_eq!(
        (&orders["name"], &orders["uri"]),
        (&json!("orders"), &json!("orders"))
    );
    assert_eq!(orders["producing_tasks"][0]["task_id"], "t");
    assert_eq!(orders["scheduled_dags"][0]["dag_id"], "reader");
    assert_eq!(
        assets["assets"][1]["consuming_tasks"][0]["dag_id"],
        "reader"
    );
    let event = json!({"asset_id": orders["id"], "extra": {"rows": 3}});
    let told = api.post("/api/v2/assets/events", event).await.expect(200);
    assert_eq!(
        (&told["source_map_index"], &told["source_dag_id"]),
        (&json!(-1), &Value::Null)
    );
    let waiting = "/api/v2/dags/reader/assets/queuedEvents";
    let queued = api.get(waiting).await.expect(200);
    assert_eq!(queued["queued_events"][0]["asset_id"], orders["id"]);
    let of_asset = format!("/api/v2/dags/reader/assets/{}/queuedEvents", orders["id"]);
    api.get(&of_asset).await.expect(200);
    assert_eq!(api.delete(waiting).await.status.as_u16(), 204);
    api.get(&of_asset).await.expect(404);
    let events = api
        .get("/api/v2/assets/events?source_dag_id=daily")
        .await
        .expect(200);
    assert_eq!(events["total_entries"], 0);
    let unknown = json!({"asset_id": 99});
    api.post("/api/v2/assets/events", unknown).await.expect(404);
    let details = api.get("/api/v2/dags/reader/details").await.expect(200);
    let all = json!({"all": [{"asset": {"name": "orders"}}, {"asset": {"name": "prices"}}]});
    assert_eq!(details["asset_expression"], all);
}
