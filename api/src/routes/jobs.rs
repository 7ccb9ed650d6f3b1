//! `/api/v2/jobs`: the schedulers that report that they live.

use crate::{auth::Viewer, error::ApiError, parts::App, view};
use axum::{Json, extract::State};
use serde_json::{Value, json};

pub(super) async fn list(_: Viewer, State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let components = app.store.components().await?;
    let jobs: Vec<Value> = components
        .iter()
        .zip(1..)
        .map(|(component, id)| {
            json!({
                "id": id,
                "dag_id": null,
                "dag_display_name": null,
                "state": "running",
                "job_type": if component.kind == "scheduler" { "SchedulerJob" } else { component.kind.as_str() },
                "start_date": view::time(component.started_at),
                "end_date": null,
                "latest_heartbeat": view::time(component.heartbeat_at),
                "executor_class": null,
                "hostname": component.hostname,
                "unixname": null,
                "component_id": component.id,
            })
        })
        .collect();
    Ok(Json(json!({ "total_entries": jobs.len(), "jobs": jobs })))
}
