//! `…/taskInstances/{task_id}/logs/{try_number}`: a page of JSON as Airflow gives it, or the whole log streamed.

use super::lookup::TiPath;
use crate::{
    auth::Viewer,
    error::{ApiError, FieldError},
    extract::{At, Query},
    log::{AttemptLog, Follower},
    parts::App,
};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use gristmill_common::ids::UNMAPPED;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait of a page for something new.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest that one stream is followed.
const FOLLOWED: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Deserialize)]
pub(super) struct LogPath {
    dag_id: String,
    dag_run_id: String,
    task_id: String,
    try_number: String,
}

pub(super) async fn logs(
    _: Viewer,
    State(app): State<App>,
    At(path): At<LogPath>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let try_number = match path.try_number.as_str() {
        "latest" => 0,
        text => text.parse::<u16>().map(i32::from).map_err(|error| {
            ApiError::field(FieldError {
                kind: "type_error",
                loc: vec!["path".into(), "try_number".into()],
                msg: error.to_string(),
                input: text.into(),
            })
        })?,
    };
    let at = TiPath {
        dag_id: path.dag_id,
        dag_run_id: path.dag_run_id,
        task_id: path.task_id,
        map_index: query.parse("map_index")?.unwrap_or(UNMAPPED),
    };
    let (run, ti) = at.find(&app).await?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let Some(log) = AttemptLog::find(&app, &run, &ti, try_number).await? else {
        if try_number > 1 {
            return Err(ApiError::NotFound(format!(
                "try {try_number} of task {} has not been made",
                at.task_id
            )));
        }
        // Nothing is known of the first try yet: an empty log that may still come.
        let token = (!ti.state.is_finished()).then(|| "0".to_owned());
        return Ok(Json(json!({ "content": [], "continuation_token": token })).into_response());
    };
    let offset = match (query.text("token"), query.parse::<usize>("tail")?) {
        (Some(token), _) => token.parse().map_err(|_| {
            ApiError::BadRequest(format!(
                "Bad log token {token:?}; use the continuation_token of an answer"
            ))
        })?,
        (None, Some(lines)) if lines > 0 => log.tail(&app, lines).await?,
        (None, _) => 0,
    };
    let follow = query.flag("follow")?.unwrap_or(false);
    match accept {
        accept if accept.starts_with("application/x-ndjson") => Ok(streamed(
            app,
            log,
            offset,
            follow,
            "application/x-ndjson",
            |bytes| bytes,
        )),
        accept if accept.starts_with("text/plain") => Ok(streamed(
            app,
            log,
            offset,
            follow,
            "text/plain; charset=utf-8",
            as_text,
        )),
        _ => {
            let patience = query
                .parse::<u64>("wait")?
                .map_or(Duration::ZERO, Duration::from_secs);
            page(&app, log, offset, patience.min(LONGEST)).await
        }
    }
}

/// One page. The token is null only when the attempt has ended and nothing is left.
async fn page(
    app: &App,
    log: AttemptLog,
    offset: u64,
    patience: Duration,
) -> Result<Response, ApiError> {
    let ended = log.has_ended(app).await?;
    let mut follower = Follower::new(log.clone(), offset);
    let (bytes, over) = follower.next(app, Instant::now() + patience).await?;
    let over = over || (ended && log.read(app, follower.offset(), true).await?.is_empty());
    let token = (!over).then(|| follower.offset().to_string());
    let content: Vec<Value> = lines(&bytes).map(message).collect();
    Ok(Json(json!({ "content": content, "continuation_token": token })).into_response())
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// `StructuredLogMessage`; a line that is none becomes its event.
fn message(line: &[u8]) -> Value {
    match serde_json::from_slice::<Map<String, Value>>(line) {
        Ok(map) if map.get("event").is_some_and(Value::is_string) => Value::Object(map),
        _ => json!({ "timestamp": null, "event": String::from_utf8_lossy(line) }),
    }
}

fn as_text(bytes: Bytes) -> Bytes {
    let mut text = String::with_capacity(bytes.len());
    for line in lines(&bytes).map(message) {
        if let Some(at) = line["timestamp"].as_str() {
            text.push_str(at);
            text.push(' ');
        }
        if let Some(level) = line["level"].as_str().filter(|level| *level != "info") {
            text.push_str(&level.to_ascii_uppercase());
            text.push(' ');
        }
        text.push_str(line["event"].as_str().unwrap_or_default());
        text.push('\n');
    }
    text.into()
}

/// The log piece by piece, never whole in memory; with `follow` until the attempt has ended.
fn streamed(
    app: App,
    log: AttemptLog,
    offset: u64,
    follow: bool,
    kind: &'static str,
    convert: fn(Bytes) -> Bytes,
) -> Response {
    let now = Instant::now();
    let until = if follow { now + FOLLOWED } else { now };
    let pieces = stream::try_unfold(
        (app, Follower::new(log, offset)),
        move |(app, mut follower)| async move {
            match follower.next(&app, until).await {
                Ok((bytes, _)) if bytes.is_empty() => Ok(None),
                Ok((bytes, _)) => Ok(Some((convert(bytes), (app, follower)))),
                Err(error) => Err(std::io::Error::other(error.to_string())),
            }
        },
    );
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}
