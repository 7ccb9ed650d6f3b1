//! Variables and connections: stored encrypted, never shown again.

use crate::support::Api;
use serde_json::{Value, json};

#[tokio::test]
async fn connections_keep_their_secrets() {
    let api = Api::new().await;
    let body = json!({
        "connection_id": "shop", "conn_type": "http", "host": "h", "login": "l", "password": "hush-1", "port": 80,
        "extra": "{\"key\": \"hush-2\"}",
    });
    let made = api.post("/api/v2/connections", body.clone()).await;
    assert_eq!(made.expect(201)["password"], "***");
    api.post("/api/v2/connections", body).await.expect(409);
    let changed = api.patch("/api/v2/connections/shop", json!({ "connection_id": "shop", "conn_type": "http", "host": "h2", "password": "***", "extra": "{\"key\": \"***\", \"new\": 1}" })).await;
    let listed = api.get("/api/v2/connections").await;
    let audit = api.get("/api/v2/eventLogs").await;
    for answer in [&made, &changed, &listed, &audit] {
        assert!(!answer.text.contains("hush"), "{}", answer.text);
    }
    let (sealed, _) = api
        .store()
        .secret("connection", "shop")
        .await
        .unwrap()
        .unwrap();
    assert!(!sealed.contains("hush"));
    let opened: Value = serde_json::from_slice(&api.secret.open(&sealed).unwrap()).unwrap();
    assert_eq!(
        (&opened["password"], &opened["host"]),
        (&json!("hush-1"), &json!("h2"))
    );
    assert_eq!(opened["extra"], json!({ "key": "hush-2", "new": 1 }));
    api.post(
        "/api/v2/connections",
        json!({ "connection_id": "a b", "conn_type": "x" }),
    )
    .await
    .expect(422);
    api.post("/api/v2/connections", json!({ "connection_id": "c" }))
        .await
        .expect(422);
    let wrong = api
        .post(
            "/api/v2/connections",
            json!({ "connection_id": "c", "conn_type": "x", "password": 17, "extra": "hush" }),
        )
        .await;
    wrong.expect(422);
    assert!(
        !wrong.text.contains("17"),
        "what was given is not repeated: {}",
        wrong.text
    );
    api.delete("/api/v2/connections/shop").await.expect(204);
    api.get("/api/v2/connections/shop").await.expect(404);
}

#[tokio::test]
async fn variables_are_shown_unless_they_are_secrets() {
    let api = Api::new().await;
    api.post(
        "/api/v2/variables",
        json!({ "key": "region", "value": { "a": 1 } }),
    )
    .await
    .expect(201);
    api.post(
        "/api/v2/variables",
        json!({ "key": "api_token", "value": "hush" }),
    )
    .await
    .expect(201);
    api.post(
        "/api/v2/variables",
        json!({ "key": "region", "value": "x" }),
    )
    .await
    .expect(409);
    assert_eq!(
        api.get("/api/v2/variables/region").await.expect(200)["value"],
        "{\"a\":1}"
    );
    assert_eq!(
        api.get("/api/v2/variables/api_token").await.expect(200)["value"],
        "***"
    );
    let masked = json!({ "key": "region", "value": "new", "description": "d" });
    let changed = api
        .patch("/api/v2/variables/region?update_mask=description", masked)
        .await
        .expect(200);
    assert_eq!(
        (&changed["value"], &changed["description"]),
        (&json!("{\"a\":1}"), &json!("d"))
    );
    assert_eq!(
        api.get("/api/v2/variables").await.expect(200)["total_entries"],
        2
    );
    api.delete("/api/v2/variables/region").await.expect(204);
    api.delete("/api/v2/variables/region").await.expect(404);
}
