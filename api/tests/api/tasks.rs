//! Task instances, explain and XComs.

use crate::support::{Api, CHAIN, events};
use axum::http::Method;
use bytes::Bytes;
use gristmill_common::{
    message::{Ending, XcomOut},
    row::XcomValue,
};
use gristmill_objects::xcom;
use gristmill_presence::{ClaimRequest, Presence};
use serde_json::{Value, json};

const TIS: &str = "/api/v2/dags/chain/dagRuns/r1/taskInstances";

#[tokio::test]
async fn instances_are_listed_and_shown() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    let run = api.trigger("chain", "r1").await;
    assert_eq!(
        api.get(TIS).await.expect(200)["total_entries"],
        0,
        "the run has not started"
    );
    api.start_runs().await;
    let list = api.get(TIS).await.expect(200);
    assert_eq!(list["total_entries"], 2);
    for key in [
        "id",
        "executor_config",
        "run_after",
        "pool",
        "pool_slots",
        "max_tries",
        "try_number",
        "map_index",
    ] {
        assert!(
            !list["task_instances"][0][key].is_null(),
            "{key} is required"
        );
    }
    let b = api.get(&format!("{TIS}/b")).await.expect(200);
    assert_eq!(
        (&b["state"], &b["operator"]),
        (&Value::Null, &json!("noop"))
    );
    let queued = api
        .get("/api/v2/dags/~/dagRuns/~/taskInstances?state=queued")
        .await
        .expect(200);
    assert_eq!(
        (
            &queued["total_entries"],
            &queued["task_instances"][0]["dag_run_id"]
        ),
        (&json!(1), &json!("r1"))
    );
    let none = api.get(&format!("{TIS}?state=no_status")).await.expect(200);
    assert_eq!(none["task_instances"][0]["task_id"], "b");
    api.get(&format!("{TIS}?state=odd")).await.expect(422);
    api.get("/api/v2/dags/~/dagRuns/r1/taskInstances")
        .await
        .expect(400);
    api.get(&format!("{TIS}/nope")).await.expect(404);
    api.get(&format!("{TIS}/a/7")).await.expect(404);
    api.get(&format!("{TIS}/a/x")).await.expect(422);
    api.get(&format!("{TIS}/a/listMapped")).await.expect(404);

    let ti = api.ti(run, "a").await;
    api.apply(events::started(&ti)).await;
    let tries = api.get(&format!("{TIS}/a/tries")).await.expect(200);
    assert_eq!(
        (
            &tries["total_entries"],
            &tries["task_instances"][0]["state"]
        ),
        (&json!(1), &json!("running"))
    );
    api.apply(events::finished(&ti, Ending::Success, vec![]))
        .await;
    let tries = api.get(&format!("{TIS}/a/tries")).await.expect(200);
    assert_eq!(
        (
            &tries["total_entries"],
            &tries["task_instances"][0]["state"]
        ),
        (&json!(1), &json!("success"))
    );
}

async fn kinds(api: &Api, task: &str) -> Vec<String> {
    let answer = api.get(&format!("{TIS}/{task}/explain")).await.expect(200);
    let reasons = answer["reasons"].as_array().unwrap();
    reasons
        .iter()
        .map(|r| r["kind"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn explain_follows_an_instance_to_its_end() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    api.store()
        .heartbeat("scheduler", "s1", "host")
        .await
        .unwrap();
    api.patch("/api/v2/dags/chain", json!({ "is_paused": true }))
        .await
        .expect(200);
    let run = api.trigger("chain", "r1").await;
    assert_eq!(kinds(&api, "a").await, ["dag_paused"]);
    api.patch("/api/v2/dags/chain", json!({ "is_paused": false }))
        .await
        .expect(200);
    assert_eq!(kinds(&api, "a").await, ["ready"]);
    api.post("/api/v2/queues/default/pause", json!({}))
        .await
        .expect(200);
    api.start_runs().await;
    assert_eq!(kinds(&api, "a").await, ["queue_paused", "no_worker"]);
    assert_eq!(kinds(&api, "b").await, ["upstream"]);
    api.post("/api/v2/queues/default/resume", json!({}))
        .await
        .expect(200);
    api.worker("w1", "default", 2).await;
    let context = api.context().await;
    api.store().dispatch_ready(&context).await.unwrap();
    assert_eq!(kinds(&api, "a").await, ["in_broker"]);
    let ti = api.ti(run, "a").await;
    let claim = ClaimRequest {
        ti: ti.pk.0,
        fence: ti.fence.0,
        epoch: ti.epoch,
        claim_by_ms: ti.claim_by.unwrap().timestamp_millis(),
    };
    api.presence.claim("w1", &[claim]).await.unwrap();
    assert_eq!(kinds(&api, "a").await, ["claimed"]);
    api.apply(events::started(&ti)).await;
    assert_eq!(kinds(&api, "a").await, ["running"]);
    api.apply(events::finished(&ti, Ending::FailedForGood, vec![]))
        .await;
    assert_eq!(kinds(&api, "a").await, ["ended"]);
    let blocked = api.get(&format!("{TIS}/b/dependencies")).await.expect(200);
    assert_eq!(blocked["dependencies"][0]["name"], "upstream_failed");
    api.get(&format!("{TIS}/nope/explain")).await.expect(404);
}

#[tokio::test]
async fn xcoms_small_and_large() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    let run = api.trigger("chain", "r1").await;
    api.start_runs().await;
    let ti = api.ti(run, "a").await;
    let large = json!("x".repeat(100_000));
    let stored = Bytes::from(large.to_string());
    let reference = xcom::put(
        &api.parts.objects,
        run.0,
        ti.pk.0,
        ti.fence.0,
        "big",
        stored,
    )
    .await
    .unwrap();
    let out = |key: &str, value| XcomOut {
        key: key.to_owned(),
        value,
    };
    let xcoms = vec![
        out("return_value", XcomValue::Inline(json!([1, 2]))),
        out(
            "big",
            XcomValue::Object {
                key: reference.key,
                size: reference.size,
            },
        ),
    ];
    api.apply(events::finished(&ti, Ending::Success, xcoms))
        .await;
    let list = api.get(&format!("{TIS}/a/xcomEntries")).await.expect(200);
    assert_eq!(list["total_entries"], 2);
    assert_eq!(
        api.get(&format!("{TIS}/~/xcomEntries?xcom_key=big"))
            .await
            .expect(200)["xcom_entries"][0]["task_id"],
        "a"
    );
    let small = api
        .get(&format!("{TIS}/a/xcomEntries/return_value"))
        .await
        .expect(200);
    assert_eq!(
        (&small["value"], &small["run_id"]),
        (&json!([1, 2]), &json!("r1"))
    );
    assert_eq!(
        api.get(&format!("{TIS}/a/xcomEntries/big"))
            .await
            .expect(200)["value"],
        large
    );
    api.get(&format!("{TIS}/a/xcomEntries/none"))
        .await
        .expect(404);

    let path = |task: &str, key: &str| {
        format!("/internal/v1/runs/{}/xcoms?task_id={task}&key={key}", run.0)
    };
    let token = api.secret.run_token(run.0);
    let ask = async |token: &str, path: String| {
        api.as_caller(Some(token), Method::GET, &path, None).await
    };
    assert_eq!(
        ask(&token, path("a", "return_value")).await.expect(200),
        json!([1, 2])
    );
    assert_eq!(ask(&token, path("a", "big")).await.expect(200), large);
    assert_eq!(
        ask(&token, path("a", "none")).await.expect(200),
        Value::Null
    );
    ask(&token, path("zzz", "none")).await.expect(404);
    ask(&api.secret.run_token(run.0 + 1), path("a", "big"))
        .await
        .expect(403);
    ask("gmrun_1_00", path("a", "big")).await.expect(401);
    assert_eq!(
        ask(&token, "/api/v2/dags".to_owned()).await.status,
        401,
        "it opens nothing else"
    );
}

#[tokio::test]
async fn a_mapped_task_shows_its_instances() {
    let api = Api::new().await;
    api.deploy("dag_id: chain\ntasks:\n  a: {noop: {}, expand: {x: [1, 2]}, map_index_template: 'no {{ map.x }}'}\n")
        .await;
    let run = api.trigger("chain", "r1").await;
    api.start_runs().await;
    let mapped = api.get(&format!("{TIS}/a/listMapped")).await.expect(200);
    assert_eq!(mapped["total_entries"], 2);
    assert_eq!(mapped["task_instances"][1]["map_values"], json!({ "x": 2 }));
    assert_eq!(mapped["task_instances"][1]["rendered_map_index"], "no 2");
    assert_eq!(
        api.get(&format!("{TIS}/a/1")).await.expect(200)["map_index"],
        1
    );
    assert!(
        api.get(&format!("{TIS}/a"))
            .await
            .detail(404)
            .contains("mapped")
    );
    for index in [1, 0] {
        let ti = api
            .store()
            .task_instance(run, "a", index)
            .await
            .unwrap()
            .unwrap();
        let value = XcomValue::Inline(json!(index * 10));
        let xcom = XcomOut {
            key: "return_value".into(),
            value,
        };
        api.apply(events::finished(&ti, Ending::Success, vec![xcom]))
            .await;
    }
    let token = api.secret.run_token(run.0);
    let path = format!(
        "/internal/v1/runs/{}/xcoms?task_id=a&key=return_value",
        run.0
    );
    assert_eq!(
        api.as_caller(Some(&token), Method::GET, &path, None)
            .await
            .expect(200),
        json!([0, 10])
    );
    let waited = api
        .get("/api/v2/dags/chain/dagRuns/r1/wait?result=a")
        .await
        .expect(200);
    assert_eq!(waited["results"]["a"], json!([0, 10]));
    assert_eq!(
        api.get(&format!("{TIS}/a/explain?map_index=1"))
            .await
            .expect(200)["state"],
        "success"
    );
}
