//! `/api/v2/eventLogs`, the audit log, and `/api/v2/importErrors`.

use crate::{auth::Viewer, error::ApiError, extract::Query, parts::App, view};
use axum::{Json, extract::State};
use serde_json::{Value, json};

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let (limit, offset) = query.page()?;
    let page = app.store.audit(limit, offset).await?;
    let entries: Vec<Value> = page
        .rows
        .iter()
        .zip(offset..)
        .map(|(row, place)| {
            json!({
                // Entries are never taken out of the middle, so the place counted from the oldest names one.
                "event_log_id": page.total - place,
                "when": view::time(row.at),
                "event": row.event,
                "owner": row.actor,
                "dag_id": row.dag_id,
                "dag_display_name": row.dag_id,
                "run_id": row.run_id,
                "task_id": row.task_id,
                "task_display_name": row.task_id,
                "map_index": null,
                "try_number": null,
                "logical_date": null,
                "extra": (!row.extra.is_null()).then(|| row.extra.to_string()),
            })
        })
        .collect();
    Ok(Json(
        json!({ "event_logs": entries, "total_entries": page.total }),
    ))
}

pub(super) async fn import_errors(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let (limit, offset) = query.page()?;
    let rows = app.store.import_errors().await?;
    let errors: Vec<Value> = rows
        .iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|row| {
            json!({
                "import_error_id": row.id,
                "timestamp": view::time(row.at),
                "filename": row.filename,
                "bundle_name": "dags",
                "stack_trace": row.error,
            })
        })
        .collect();
    Ok(Json(
        json!({ "import_errors": errors, "total_entries": rows.len() }),
    ))
}
