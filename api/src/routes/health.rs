//! Health for people and monitors, the version, and metrics for Prometheus. None of it needs a token.

use crate::{error::ApiError, parts::App, view};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A scheduler that was not heard of for this long is not well.
const SCHEDULER_SILENCE: chrono::TimeDelta = chrono::TimeDelta::seconds(30);
/// How long a part may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

type Found = Result<(), String>;

async fn database(app: &App) -> Found {
    match tokio::time::timeout(PATIENCE, app.store.check_schema()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("waiting for the database: {error}")),
        Err(_) => Err(format!(
            "waiting for the database: no answer within {PATIENCE:?}"
        )),
    }
}

fn broker(app: &App) -> Found {
    let health = app.broker.health();
    match (health.connected, health.blocked) {
        (true, None) => Ok(()),
        (true, Some(why)) => Err(format!("the broker takes no messages: {why}")),
        (false, _) => {
            let why = health.last_error.unwrap_or_else(|| "connecting".to_owned());
            Err(format!("waiting for the broker: {why}"))
        }
    }
}

/// Redis, and the number of workers that hold a lease.
async fn presence(app: &App) -> Result<usize, String> {
    match tokio::time::timeout(PATIENCE, app.presence.leases()).await {
        Ok(Ok(snapshot)) => Ok(snapshot.leases.len()),
        Ok(Err(error)) => Err(format!("waiting for Redis: {error}")),
        Err(_) => Err(format!("waiting for Redis: no answer within {PATIENCE:?}")),
    }
}

fn shown(state: &Found) -> Value {
    match state {
        Ok(()) => json!({ "status": "healthy" }),
        Err(reason) => json!({ "status": "unhealthy", "reason": reason }),
    }
}

/// 200 if all that this process needs can be reached, else 503; with the reason of each part.
pub(super) async fn health(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let (database, presence) = tokio::join!(database(&app), presence(&app));
    let mut parts = vec![
        ("database".to_owned(), database),
        ("broker".to_owned(), broker(&app)),
        ("redis".to_owned(), presence.map(drop)),
    ];
    parts.extend(app.probe.iter().flat_map(|probe| probe()));
    let well = parts.iter().all(|(_, state)| state.is_ok());
    let status = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let parts: Map<String, Value> = parts
        .iter()
        .map(|(name, state)| (name.clone(), shown(state)))
        .collect();
    let word = if well { "healthy" } else { "unhealthy" };
    (status, Json(json!({ "status": word, "parts": parts })))
}

/// Airflow's health, always 200, with parts of our own beside it.
pub(super) async fn monitor(State(app): State<App>) -> Json<Value> {
    let (database, presence) = tokio::join!(database(&app), presence(&app));
    let heard = match &database {
        Ok(()) => last_heartbeat(&app).await,
        Err(_) => None,
    };
    let scheduler = heard.map(|at| {
        let silent = app.store.now() - at > SCHEDULER_SILENCE;
        if silent { "unhealthy" } else { "healthy" }
    });
    Json(json!({
        "metadatabase": { "status": if database.is_ok() { "healthy" } else { "unhealthy" } },
        "scheduler": {
            "status": scheduler,
            "latest_scheduler_heartbeat": view::time_or_null(heard),
        },
        "triggerer": { "status": null, "latest_triggerer_heartbeat": null },
        "dag_processor": { "status": null, "latest_dag_processor_heartbeat": null },
        "broker": shown(&broker(&app)),
        "redis": shown(&presence.as_ref().map(|_| ()).map_err(Clone::clone)),
        "workers": { "count": presence.ok() },
    }))
}

async fn last_heartbeat(app: &App) -> Option<DateTime<Utc>> {
    let components = tokio::time::timeout(PATIENCE, app.store.components())
        .await
        .ok()?
        .ok()?;
    components
        .iter()
        .filter(|c| c.kind == "scheduler")
        .map(|c| c.heartbeat_at)
        .max()
}

pub(super) async fn version(State(app): State<App>) -> Json<Value> {
    Json(json!({ "version": app.version, "git_version": null }))
}

pub(super) async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let render = app
        .metrics
        .as_ref()
        .ok_or_else(|| ApiError::NotFound("this process records no metrics".to_owned()))?;
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, render()).into_response())
}
