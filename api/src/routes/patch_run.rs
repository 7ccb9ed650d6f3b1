//! Cancelling a run, and setting its state and its note.

use super::{
    amend::{Answer, Request, context},
    dag_runs::whole,
    lookup,
};
use crate::{
    auth::{About, Caller, User},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    parts::App,
};
use axum::{Json, extract::State};
use gristmill_common::{engine::Command, row::RunRow, state::RunState};
use gristmill_store::Change;
use serde::Deserialize;
use serde_json::{Value, json};

const MAX_NOTE: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancel {
    reason: Option<String>,
}

pub(super) async fn cancel(
    User(caller): User,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    Body(body): Body<Cancel>,
) -> Result<Json<Value>, ApiError> {
    let row = lookup::run(&app, &dag_id, &run_id).await?;
    stop(&app, &caller, &row, body.reason).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    pub(super) state: Option<String>,
    pub(super) note: Option<String>,
}

pub(super) async fn patch(
    User(caller): User,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    query: Query,
    Body(mut body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    if !query.masks("state") {
        body.state = None;
    }
    if !query.masks("note") {
        body.note = None;
    }
    patch_one(&app, &caller, &dag_id, &run_id, body)
        .await
        .map(Json)
}

/// Sets what the body has of a run.
pub(super) async fn patch_one(
    app: &App,
    caller: &Caller,
    dag_id: &str,
    run_id: &str,
    body: Patch,
) -> Result<Value, ApiError> {
    if body
        .note
        .as_ref()
        .is_some_and(|note| note.chars().count() > MAX_NOTE)
    {
        let msg = format!("String should have at most {MAX_NOTE} characters");
        return Err(ApiError::field(FieldError::body("note", msg, Value::Null)));
    }
    let row = lookup::run(app, dag_id, run_id).await?;
    let change = match body.state.as_deref() {
        Some("failed") if !row.state.is_finished() => {
            stop(app, caller, &row, None).await?;
            Change::Note
        }
        Some("failed") => Change::MarkRun(RunState::Failed),
        Some("success") => Change::MarkRun(RunState::Success),
        Some("queued") => Change::MarkRun(RunState::Queued),
        Some(other) => {
            return Err(ApiError::field(FieldError::body(
                "state",
                "Input should be 'queued', 'success' or 'failed'".to_owned(),
                other.into(),
            )));
        }
        None => Change::Note,
    };
    if body.note.is_some() || !matches!(change, Change::Note) {
        let request = Request {
            extra: json!({ "state": body.state, "note": body.note }),
            note: body.note,
            ..Request::new(change, "patch_dag_run")
        };
        Answer::default().amend(app, caller, &row, request).await?;
    }
    let row = lookup::run(app, dag_id, run_id).await?;
    whole(app, &row).await
}

/// Ends the run: what has not started is skipped; a scheduler, which this wakes, has the rest killed.
async fn stop(
    app: &App,
    caller: &Caller,
    row: &RunRow,
    reason: Option<String>,
) -> Result<Value, ApiError> {
    if row.state.is_finished() {
        return Err(ApiError::Conflict(format!(
            "run {:?} of {:?} has ended already: {}",
            row.run_id, row.dag_id, row.state
        )));
    }
    let reason = match reason {
        Some(why) => format!("cancelled by {}: {why}", caller.name),
        None => format!("cancelled by {}", caller.name),
    };
    // A run that is being stopped already stays so; asking again is no error.
    let command = Command::StopRun {
        run: row.pk,
        cancelled: true,
        reason: reason.clone(),
    };
    app.store.apply(&[command], &[], &context(app)).await?;
    let about = About::run(&row.dag_id, &row.run_id);
    caller
        .audit(
            &*app.store,
            "cancel_dag_run",
            about,
            json!({ "reason": reason }),
        )
        .await;
    let row = lookup::run(app, &row.dag_id, &row.run_id).await?;
    whole(app, &row).await
}
