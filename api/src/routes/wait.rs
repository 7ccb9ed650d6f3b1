//! `GET …/dagRuns/{dag_run_id}/wait`: answers when the run has ended, or when the caller's patience has.

use super::{dag_runs::whole, lookup, xcoms};
use crate::{
    auth::Viewer,
    error::{ApiError, FieldError},
    extract::{At, Query},
    parts::App,
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use gristmill_common::{ids::RunPk, row::RunRow, span::Span};
use gristmill_store::StoreError;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait of one request; the caller asks again.
const LONGEST: Duration = Duration::from_secs(600);
/// Between two looks at the run at least, however many other runs change; and at most, should a notice be lost.
const SOONEST: Duration = Duration::from_millis(5);
const LATEST: Duration = Duration::from_millis(250);

/// `60`, `60s`, `2m`: at most ten minutes.
pub(super) fn patience(name: &str, text: &str) -> Result<Duration, ApiError> {
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => text.parse::<Span>().map(Span::duration),
    };
    parsed
        .map(|duration| duration.min(LONGEST))
        .map_err(|error| ApiError::field(FieldError::query(name, error.to_string(), text)))
}

pub(super) async fn wait(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    let patience = patience("timeout", query.text("timeout").unwrap_or("60"))?;
    let run = lookup::run(&app, &dag_id, &run_id).await?;
    let run = until_ended(&app, run.pk, patience).await?;
    let mut body = whole(&app, &run).await?;
    if !run.state.is_finished() {
        return Ok((
            StatusCode::ACCEPTED,
            [(header::RETRY_AFTER, "0")],
            Json(body),
        )
            .into_response());
    }
    let wanted = query.all("result");
    if !wanted.is_empty() {
        let mut results = Map::new();
        for task in wanted {
            let value = xcoms::result_of(&app, &run, &task).await?;
            results.insert(task, value);
        }
        body["results"] = Value::Object(results);
    }
    Ok(Json(body).into_response())
}

/// The run, once it has ended or the patience is over. Wakes when any run changes; no polling in between.
pub(super) async fn until_ended(
    app: &App,
    run: RunPk,
    patience: Duration,
) -> Result<RunRow, ApiError> {
    let until = Instant::now() + patience;
    loop {
        let seen = app.store.run_changes();
        let row = app
            .runs
            .ask(run)
            .await??
            .ok_or_else(|| StoreError::NotFound {
                what: "run",
                name: run.to_string(),
            })?;
        let now = Instant::now();
        if row.state.is_finished() || now >= until {
            return Ok(row);
        }
        app.store.run_changed(seen, LATEST.min(until - now)).await;
        tokio::time::sleep_until((now + SOONEST).min(until)).await;
    }
}
