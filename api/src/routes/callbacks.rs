//! `/callbacks`: what was called, whether it was delivered, and another try. `…/deadlines` of a run: what it has missed.

use super::lookup;
use crate::{
    auth::{About, Op, Viewer},
    error::ApiError,
    extract::{At, Query},
    parts::App,
    view::{time, time_or_null},
};
use axum::{Json, extract::State};
use gristmill_common::deadline::{self, Known};
use gristmill_store::{CallFilter, CallRow};
use serde_json::{Value, json};

/// As it is shown: the URL's query is left out, where tokens may stand.
fn view(call: &CallRow) -> Value {
    let url = call
        .webhook
        .as_ref()
        .and_then(|webhook| webhook.url.as_deref())
        .map(|url| url.split('?').next().unwrap_or_default());
    json!({
        "callback_id": call.id,
        "dag_id": call.dag_id,
        "dag_run_id": call.run_id,
        "task_id": call.task_id,
        "map_index": call.map_index,
        "try_number": call.try_number,
        "event": call.event.as_str(),
        "state": call.state.as_str(),
        "target": call.target,
        "url": url,
        "connection": call.webhook.as_ref().and_then(|webhook| webhook.connection.as_ref()),
        "body": call.body,
        "attempts": call.attempts,
        "created_at": time(call.created_at),
        "next_attempt_at": time_or_null(call.next_at),
        "given_up_at": time(call.give_up_at),
        "ended_at": time_or_null(call.ended_at),
        "last_status": call.status,
        "last_error": call.error,
    })
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let (limit, offset) = query.page()?;
    let dag_id: Option<String> = query.parse("dag_id")?;
    let run_id: Option<String> = query.parse("dag_run_id")?;
    let run = match (&dag_id, &run_id) {
        (Some(dag_id), Some(run_id)) => Some(lookup::run(&app, dag_id, run_id).await?.pk),
        (None, Some(_)) => {
            return Err(ApiError::BadRequest(
                "dag_id is required when dag_run_id is specified".to_owned(),
            ));
        }
        _ => None,
    };
    let filter = CallFilter {
        id: None,
        dag_id,
        run,
        state: query.parse("state")?,
        limit,
        offset,
    };
    let page = app.store.calls(&filter).await?;
    let calls: Vec<Value> = page.rows.iter().map(view).collect();
    Ok(Json(
        json!({ "callbacks": calls, "total_entries": page.total }),
    ))
}

async fn find(app: &App, id: i64) -> Result<CallRow, ApiError> {
    let filter = CallFilter {
        id: Some(id),
        limit: 1,
        ..CallFilter::default()
    };
    let found = app.store.calls(&filter).await?.rows.pop();
    found.ok_or_else(|| ApiError::NotFound(format!("there is no callback {id}")))
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(view(&find(&app, id).await?)))
}

pub(super) async fn retry(
    Op(caller): Op,
    State(app): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    let call = find(&app, id).await?;
    if !app.store.retry_call(id).await? {
        let why = call.error.unwrap_or_default();
        return Err(ApiError::Conflict(format!(
            "callback {id} cannot be delivered, because it could not be made: {why}"
        )));
    }
    let extra = json!({ "callback_id": id });
    let about = About::run(&call.dag_id, &call.run_id);
    caller
        .audit(&*app.store, "callback_retried", about, extra)
        .await;
    Ok(Json(view(&find(&app, id).await?)))
}

/// Every deadline that the run has, and when it was missed.
pub(super) async fn deadlines(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let run = lookup::run(&app, &dag_id, &run_id).await?;
    let version = lookup::version(&app, &run).await?;
    let missed = app.store.missed_deadlines(run.pk).await?;
    let spec = &version.spec;
    // Those by the average of earlier runs are shown once they were missed: it changes with every run.
    let known = match run.backfill {
        None => deadline::all(spec, &Known::of(&run, None)),
        Some(_) => Vec::new(),
    };
    let task_of = |due: &deadline::Due<'_>| {
        due.task
            .and_then(|idx| spec.task(idx))
            .map(|task| task.task_id.clone())
    };
    let mut shown: Vec<Value> = missed
        .iter()
        .map(|missed| {
            json!({
                "task_id": missed.task_id,
                "position": missed.position,
                "due_at": time(missed.due_at),
                "missed_at": time(missed.missed_at),
            })
        })
        .collect();
    for due in &known {
        let task_id = task_of(due);
        let is_shown = missed
            .iter()
            .any(|missed| missed.task_id == task_id && missed.position == due.position);
        if !is_shown {
            shown.push(json!({
                "task_id": task_id,
                "position": due.position,
                "due_at": time(due.at),
                "missed_at": null,
            }));
        }
    }
    let total = shown.len();
    Ok(Json(json!({ "deadlines": shown, "total_entries": total })))
}
