//! Who gets in.

use crate::support::{Api, CHAIN};
use axum::http::Method;
use gristmill_api::{Role, ensure_admin, issue_token};
use serde_json::json;

#[tokio::test]
async fn the_first_user_signs_in_and_out_of_date_passwords_do_not() {
    let api = Api::new().await;
    let password = ensure_admin(api.store(), None)
        .await
        .unwrap()
        .expect("generated");
    assert_eq!(
        ensure_admin(api.store(), Some("other".into()))
            .await
            .unwrap(),
        None
    );
    let sign_in = async |password: &str| {
        let body = json!({ "username": "admin", "password": password });
        api.as_caller(None, Method::POST, "/auth/token", Some(body))
            .await
    };
    assert_eq!(sign_in("other").await.detail(401), "Invalid credentials");
    let token = sign_in(&password).await.expect(201)["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    api.as_caller(Some(&token), Method::GET, "/api/v2/tokens", None)
        .await
        .expect(200);
    let form = api
        .with_header(
            Method::POST,
            "/auth/token",
            ("content-type", "application/x-www-form-urlencoded"),
            format!("username=admin&password={password}"),
        )
        .await;
    form.expect(201);
    for _ in 0..6 {
        sign_in("guess").await;
    }
    let slowed = sign_in(&password).await;
    assert_eq!(slowed.status, 429);
    assert!(slowed.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn every_operation_needs_a_token_but_those_that_say_so() {
    let api = Api::new().await;
    let document = api.get("/openapi.json").await.expect(200);
    let open = [
        "/auth/token",
        "/health",
        "/metrics",
        "/api/v2/monitor/health",
        "/api/v2/version",
        // They say that there is no page to sign in at.
        "/api/v2/auth/login",
        "/api/v2/auth/logout",
    ];
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let concrete = path
                .replace("{map_index}", "0")
                .replace("{version_number}", "1")
                .replace("{try_number}", "1");
            let concrete = concrete.replace(['{', '}'], "");
            let answer = api.as_caller(None, method.clone(), &concrete, None).await;
            if open.contains(&path.as_str()) {
                assert_ne!(answer.status, 401, "{method} {path}");
            } else {
                assert_eq!(answer.detail(401), "Not authenticated", "{method} {path}");
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} operations are described");
    for bad in ["gm_wrong", "a.b.c", ""] {
        let answer = api
            .as_caller(Some(bad), Method::GET, "/api/v2/dags", None)
            .await;
        assert_eq!(answer.detail(401), "Not authenticated");
    }
}

#[tokio::test]
async fn roles_bound_what_a_token_may_do() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    let cases = [
        (Method::GET, "/api/v2/dags", None, Role::Viewer),
        (Method::GET, "/api/v2/queues", None, Role::Viewer),
        (
            Method::PATCH,
            "/api/v2/dags/chain",
            Some(json!({ "is_paused": false })),
            Role::User,
        ),
        (
            Method::POST,
            "/api/v2/dags/chain/dagRuns",
            Some(json!({})),
            Role::User,
        ),
        (Method::GET, "/api/v2/variables", None, Role::Op),
        (Method::GET, "/api/v2/connections", None, Role::Op),
        (Method::POST, "/api/v2/queues/q/pause", None, Role::Op),
        (Method::GET, "/api/v2/tokens", None, Role::Admin),
    ];
    for role in [Role::Viewer, Role::User, Role::Op, Role::Admin] {
        let token = issue_token(api.store(), role.as_str(), role, None, None)
            .await
            .unwrap();
        for (method, path, body, needed) in &cases {
            let answer = api
                .as_caller(Some(&token), method.clone(), path, body.clone())
                .await;
            if role >= *needed {
                assert!(
                    answer.status.is_success(),
                    "{role} {method} {path}: {}",
                    answer.text
                );
            } else {
                assert_eq!(answer.detail(403), "Forbidden", "{role} {method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_for_one_dag_reaches_no_other() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    api.deploy("dag_id: other\ntasks: {a: {noop: {}}}").await;
    let token = issue_token(api.store(), "ci", Role::Op, Some("chain".into()), None)
        .await
        .unwrap();
    let get = async |path: &str| {
        api.as_caller(Some(&token), Method::GET, path, None)
            .await
            .status
            .as_u16()
    };
    assert_eq!(get("/api/v2/dags/chain").await, 200);
    assert_eq!(get("/api/v2/dags/chain/dagRuns").await, 200);
    assert_eq!(get("/api/v2/dags/other").await, 403);
    assert_eq!(get("/api/v2/dags/~/dagRuns").await, 403);
    assert_eq!(get("/api/v2/dags").await, 403);
    assert_eq!(get("/api/v2/queues").await, 403);
}

#[tokio::test]
async fn tokens_are_made_shown_once_and_revoked() {
    let api = Api::new().await;
    let made = api
        .post(
            "/api/v2/tokens",
            json!({ "name": "ci", "role": "viewer", "expires_in_s": 60 }),
        )
        .await;
    let token = made.expect(201)["token"].as_str().unwrap().to_owned();
    api.post("/api/v2/tokens", json!({ "name": "ci", "role": "viewer" }))
        .await
        .expect(409);
    api.post("/api/v2/tokens", json!({ "name": "x", "role": "king" }))
        .await
        .expect(422);
    let list = api.get("/api/v2/tokens").await;
    assert!(!list.text.contains(&token));
    assert_eq!(
        api.as_caller(Some(&token), Method::GET, "/api/v2/dags", None)
            .await
            .status,
        200
    );
    api.delete("/api/v2/tokens/ci").await.expect(204);
    assert_eq!(
        api.as_caller(Some(&token), Method::GET, "/api/v2/dags", None)
            .await
            .status,
        401
    );
    let past = Some(chrono::Utc::now() - chrono::TimeDelta::seconds(1));
    let expired = issue_token(api.store(), "old", Role::Admin, None, past)
        .await
        .unwrap();
    let answer = api
        .as_caller(Some(&expired), Method::GET, "/api/v2/dags", None)
        .await;
    assert_eq!(answer.detail(401), "Token Expired");
}
