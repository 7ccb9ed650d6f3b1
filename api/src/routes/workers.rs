//! `/api/v2/workers`: who holds a lease.

use crate::{auth::Viewer, error::ApiError, parts::App, view};
use axum::{Json, extract::State};
use gristmill_presence::LeaseView;
use serde_json::{Value, json};

fn worker(lease: &LeaseView) -> Value {
    json!({
        "incarnation": lease.info.incarnation,
        "name": lease.info.name,
        "hostname": lease.info.hostname,
        "pid": lease.info.pid,
        "queues": lease.info.queues,
        "slots": lease.info.slots,
        "running": lease.status.running,
        "free": lease.status.free,
        "paused": lease.status.paused,
        "draining": lease.status.draining,
        "version": lease.info.version,
        "started_at": view::time(lease.info.started_at),
        "renewed_at": view::time_or_null(chrono::DateTime::from_timestamp_millis(lease.renewed_at_ms)),
    })
}

pub(super) async fn list(_: Viewer, State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let snapshot = app.presence.leases().await?;
    let workers: Vec<Value> = snapshot.leases.iter().map(worker).collect();
    Ok(Json(
        json!({ "total_entries": workers.len(), "workers": workers }),
    ))
}
