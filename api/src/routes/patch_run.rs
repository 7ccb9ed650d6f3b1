//! Cancelling a run, also by Airflow's way of setting its state to `failed`.

use super::{dag_runs::whole, lookup};
use crate::{
    auth::{About, Caller, User},
    error::{ApiError, FieldError},
    extract::{At, Body},
    parts::App,
};
use axum::{Json, extract::State};
use gristmill_common::{engine::Command, ids::RunPk, row::RunRow};
use gristmill_store::DispatchContext;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

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
    state: Option<String>,
    note: Option<String>,
}

pub(super) async fn patch(
    User(caller): User,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    let row = lookup::run(&app, &dag_id, &run_id).await?;
    if body.note.is_some() {
        return Err(ApiError::NotYet(
            "this version cannot change a run's note yet; give it when you trigger the run"
                .to_owned(),
        ));
    }
    match body.state.as_deref() {
        Some("failed") => stop(&app, &caller, &row, None).await.map(Json),
        Some(state @ ("success" | "queued")) => Err(ApiError::NotYet(format!(
            "this version cannot set a run's state to {state:?} yet; \"failed\" cancels it"
        ))),
        Some(other) => Err(ApiError::field(FieldError::body(
            "state",
            "Input should be 'queued', 'success' or 'failed'".to_owned(),
            other.into(),
        ))),
        None => whole(&app, &row).await.map(Json),
    }
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

/// Without an epoch nothing is dispatched: that is the schedulers' part.
fn context(app: &App) -> DispatchContext {
    let secret = app.secret.clone();
    DispatchContext {
        epoch: None,
        claim_window: Duration::ZERO,
        batch: 0,
        plans: app.plans.clone(),
        published: Arc::default(),
        token: Arc::new(move |run: RunPk| secret.run_token(run.0)),
    }
}
