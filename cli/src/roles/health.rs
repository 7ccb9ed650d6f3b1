//! A role's own health and metrics over HTTP, for container health checks and Prometheus.

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use gristmill_telemetry::MetricsHandle;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;

/// Answers whether the role is well, and what is wrong if it is not.
pub(super) type Probe = Arc<dyn Fn() -> Vec<(String, Result<(), String>)> + Send + Sync>;

/// Serves `/health` and `/metrics` in the background, if an address is given.
pub(super) async fn serve(
    listen: Option<SocketAddr>,
    metrics: MetricsHandle,
    probe: Probe,
) -> std::io::Result<()> {
    let Some(listen) = listen else { return Ok(()) };
    let listener = TcpListener::bind(listen).await?;
    let app = Router::new()
        .route("/health", get(health))
        .with_state(probe)
        .route("/metrics", get(move || async move { metrics.render() }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the health server ended");
        }
    });
    Ok(())
}

async fn health(State(probe): State<Probe>) -> impl IntoResponse {
    let parts = probe();
    let well = parts.iter().all(|(_, state)| state.is_ok());
    let parts: serde_json::Map<String, Value> = parts
        .into_iter()
        .map(|(name, state)| {
            let state = match state {
                Ok(()) => json!({"status": "healthy"}),
                Err(reason) => json!({"status": "unhealthy", "reason": reason}),
            };
            (name, state)
        })
        .collect();
    let status = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({"status": if well { "healthy" } else { "unhealthy" }, "parts": parts})),
    )
}
