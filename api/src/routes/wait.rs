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
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use gristmill_common::{ids::RunPk, row::RunRow, span::Span};
use gristmill_store::StoreError;
use serde_json::{Map, Value, json};
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
    if let Some(interval) = query.text("interval") {
        let interval = interval.parse::<f64>().ok().filter(|i| *i > 0.0);
        let interval = interval.and_then(|i| Duration::try_from_secs_f64(i).ok());
        let interval = interval.ok_or_else(|| {
            let msg = "Input should be a number greater than 0".to_owned();
            ApiError::field(FieldError::query(
                "interval",
                msg,
                query.text("interval").unwrap_or_default(),
            ))
        })?;
        let run = lookup::run(&app, &dag_id, &run_id).await?;
        return Ok(told(app, run.pk, interval, query.all("result")));
    }
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
        body["results"] = results(&app, &run, &wanted).await?;
    }
    Ok(Json(body).into_response())
}

/// The results of these tasks, by task.
async fn results(app: &App, run: &RunRow, wanted: &[String]) -> Result<Value, ApiError> {
    let mut results = Map::new();
    for task in wanted {
        let value = xcoms::result_of(app, run, task).await?;
        results.insert(task.clone(), value);
    }
    Ok(Value::Object(results))
}

/// As Airflow waits (`interval` is given): a line of JSON each so often until the run has ended. It has no content type,
/// because Airflow's client takes none for lines.
fn told(app: App, run: RunPk, interval: Duration, wanted: Vec<String>) -> Response {
    let lines = stream::try_unfold(
        Some((app, wanted, Duration::ZERO)),
        move |left| async move {
            let Some((app, wanted, patience)) = left else {
                return Ok(None);
            };
            let row = until_ended(&app, run, patience).await?;
            let mut line = json!({ "state": row.state });
            let ended = row.state.is_finished();
            if ended && !wanted.is_empty() {
                line["results"] = results(&app, &row, &wanted).await?;
            }
            let left = (!ended).then_some((app, wanted, interval));
            Ok::<_, ApiError>(Some((Bytes::from(format!("{line}\n")), left)))
        },
    );
    Body::from_stream(lines).into_response()
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
