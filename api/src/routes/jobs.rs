//! `/api/v2/jobs`: the schedulers that report that they live.

use crate::{auth::Viewer, error::ApiError, extract::Query, listing::Small, parts::App, view};
use axum::{Json, extract::State};
use serde_json::{Value, json};

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const JOBS: Small = Small {
        name: "jobs",
        patterns: &[],
        texts: &[
            ("job_state", "state"),
            ("job_type", "job_type"),
            ("hostname", "hostname"),
            ("executor_class", "executor_class"),
        ],
        times: &[("start_date", "start_date"), ("end_date", "end_date")],
        order: &[
            ("id", "id"),
            ("job_type", "job_type"),
            ("state", "state"),
            ("hostname", "hostname"),
            ("start_date", "start_date"),
            ("end_date", "end_date"),
            ("latest_heartbeat", "latest_heartbeat"),
        ],
    };
    // Those that are listed live: the others are forgotten.
    if query.flag("is_alive")? == Some(false) {
        return JOBS.answer(&query, Vec::new());
    }
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
    JOBS.answer(&query, jobs)
}
