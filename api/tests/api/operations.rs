//! Queues, workers and pools.

use crate::support::{Api, CHAIN};
use serde_json::{Value, json};

#[tokio::test]
async fn a_queue_shows_each_stage_once() {
    let api = Api::new().await;
    api.deploy("dag_id: wide\ntasks:\n  a: {noop: {}, queue: gpu, pool: small}\n  b: {noop: {}, queue: gpu, pool: small}\n").await;
    api.post("/api/v2/pools", json!({ "name": "small", "slots": 1 }))
        .await
        .expect(201);
    api.trigger("wide", "r1").await;
    let applied = api.start_runs().await;
    assert_eq!(applied.outbox.len(), 1, "the pool has one slot");
    let publish = applied.outbox.iter().map(|row| {
        gristmill_broker::Publication::new(
            gristmill_broker::Target::Work(row.queue.clone()),
            row.body.clone(),
        )
    });
    api.parts.broker.declare_work_queue("gpu").await.unwrap();
    api.parts.broker.publish(publish.collect()).await;
    api.worker("w1", "gpu", 4).await;
    let queue = api.get("/api/v2/queues/gpu").await.expect(200);
    let keys: Vec<&str> = queue
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "queue",
            "scheduled",
            "broker",
            "running",
            "oldest_age_s",
            "consumers",
            "slots",
            "free_slots",
            "paused",
            "rate_limit",
            "dead"
        ]
    );
    let numbers = [
        "scheduled",
        "broker",
        "running",
        "consumers",
        "slots",
        "free_slots",
        "dead",
    ]
    .map(|k| queue[k].clone());
    assert_eq!(numbers, [1, 1, 0, 1, 4, 3, 0].map(Value::from));
    assert!(queue["oldest_age_s"].is_number());

    assert_eq!(
        api.post("/api/v2/queues/gpu/pause", json!({}))
            .await
            .expect(200)["paused"],
        true
    );
    assert_eq!(
        api.patch("/api/v2/queues/gpu", json!({ "paused": false }))
            .await
            .expect(200)["paused"],
        false
    );
    api.get("/api/v2/queues/none").await.expect(404);
    let workers = api.get("/api/v2/workers").await.expect(200);
    assert_eq!(
        (
            &workers["workers"][0]["name"],
            &workers["workers"][0]["free"]
        ),
        (&json!("w1"), &json!(3))
    );

    api.presence.faults().unavailable(true);
    api.broker.faults().disconnect();
    let queue = api.get("/api/v2/queues/gpu").await.expect(200);
    assert_eq!(
        (&queue["broker"], &queue["slots"], &queue["scheduled"]),
        (&Value::Null, &Value::Null, &json!(1))
    );
    let away = api.get("/api/v2/workers").await;
    assert!(away.headers.contains_key("retry-after"));
    away.expect(503);
}

#[tokio::test]
async fn pools_are_made_changed_and_deleted() {
    let api = Api::new().await;
    let made = api
        .post(
            "/api/v2/pools",
            json!({ "name": "p", "slots": 3, "description": "d" }),
        )
        .await
        .expect(201);
    assert_eq!(
        (&made["open_slots"], &made["include_deferred"]),
        (&json!(3), &json!(false))
    );
    api.post("/api/v2/pools", json!({ "name": "p", "slots": 3 }))
        .await
        .expect(409);
    api.post("/api/v2/pools", json!({ "name": "q", "slots": -2 }))
        .await
        .expect(422);
    api.post("/api/v2/pools", json!({ "name": "q" }))
        .await
        .expect(422);
    let changed = api
        .patch("/api/v2/pools/p", json!({ "slots": -1 }))
        .await
        .expect(200);
    assert_eq!(
        (&changed["open_slots"], &changed["description"]),
        (&json!(-1), &json!("d"))
    );
    let kept = api
        .patch(
            "/api/v2/pools/p?update_mask=description",
            json!({ "slots": 9, "description": "e" }),
        )
        .await
        .expect(200);
    assert_eq!(
        (&kept["slots"], &kept["description"]),
        (&json!(-1), &json!("e"))
    );
    api.delete("/api/v2/pools/default_pool").await.expect(400);
    api.delete("/api/v2/pools/p").await.expect(204);
    api.get("/api/v2/pools/p").await.expect(404);
    assert_eq!(
        api.get("/api/v2/pools").await.expect(200)["total_entries"],
        1
    );
}

#[tokio::test]
async fn runs_are_counted_by_state() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    api.trigger("chain", "r1").await;
    let stats = api.get("/api/v2/dagStats?dag_ids=chain").await.expect(200);
    assert_eq!(
        stats["dags"][0]["stats"][0],
        json!({ "state": "queued", "count": 1 })
    );
}
