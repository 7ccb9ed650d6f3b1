//! Health, the version, the pages.

use crate::support::Api;
use axum::http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn health_names_the_part_that_is_away() {
    let api = Api::new().await;
    let well = api
        .as_caller(None, Method::GET, "/health", None)
        .await
        .expect(200);
    assert_eq!(well["parts"]["database"]["status"], "healthy");
    api.broker.faults().disconnect();
    api.presence.faults().unavailable(true);
    let ill = api
        .as_caller(None, Method::GET, "/health", None)
        .await
        .expect(503);
    for part in ["broker", "redis"] {
        let reason = ill["parts"][part]["reason"].as_str().unwrap();
        assert!(reason.starts_with("waiting for"), "{reason}");
    }
    let monitor = api
        .as_caller(None, Method::GET, "/api/v2/monitor/health", None)
        .await
        .expect(200);
    assert_eq!(monitor["metadatabase"]["status"], "healthy");
    assert_eq!(
        monitor["scheduler"]["status"],
        json!(null),
        "none has ever run"
    );
    assert_eq!(monitor["broker"]["status"], "unhealthy");
    api.store()
        .heartbeat("scheduler", "s1", "host")
        .await
        .unwrap();
    let monitor = api.get("/api/v2/monitor/health").await.expect(200);
    assert_eq!(monitor["scheduler"]["status"], "healthy");
    assert_eq!(
        api.get("/api/v2/jobs").await.expect(200)["jobs"][0]["job_type"],
        "SchedulerJob"
    );
}

#[tokio::test]
async fn pages_and_metrics() {
    let api = Api::new().await;
    assert!(api.get("/api/v2/version").await.expect(200)["version"].is_string());
    let page = api.get("/").await;
    assert!(
        page.text.contains("<title>Gristmill")
            && page.headers.contains_key("content-security-policy")
    );
    assert!(api.get("/docs").await.text.contains("/api/v2/queues"));
    api.get("/metrics").await.expect(404);
}

#[tokio::test]
async fn serving_ends_in_order() {
    let api = Api::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(gristmill_api::serve(
        listener,
        gristmill_api::router(api.parts.clone()),
        stop.clone(),
    ));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /api/v2/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stop.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), serving).await;
    ended.expect("ends soon").unwrap().unwrap();
}
