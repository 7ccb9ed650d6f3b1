//! `…/xcomEntries`. Large values rest in the object store and are streamed from there.

use super::lookup::{self, ALL, TiPath};
use crate::{
    auth::Viewer,
    error::ApiError,
    extract::{At, Query},
    parts::App,
    view,
};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt, stream};
use gristmill_common::{
    ids::UNMAPPED,
    row::{RETURN_VALUE, RunRow, XcomRow, XcomValue},
};
use gristmill_objects::{ByteStream, ObjectError, ObjectStore};
use gristmill_store::VersionRow;
use serde_json::{Value, json};

/// Largest value that an answer made of several takes in; a larger one is asked for by itself.
const MAX_WITHIN: u64 = 4 << 20;

/// `XComResponse`: all but the value.
fn entry(row: &XcomRow, run: &RunRow, version: &VersionRow) -> Value {
    let task_id = version
        .spec
        .task(row.task_idx)
        .map_or("", |t| t.task_id.as_str());
    let size = match &row.value {
        XcomValue::Inline(_) => None,
        XcomValue::Object { size, .. } => Some(*size),
    };
    json!({
        "key": row.key,
        // Accepted with the ending of its try, which the run's end bounds.
        "timestamp": view::time(run.ended_at.or(run.started_at).unwrap_or(run.queued_at)),
        "logical_date": view::time_or_null(run.logical_date),
        "map_index": row.map_index,
        "task_id": task_id,
        "task_display_name": task_id,
        "dag_id": run.dag_id,
        "dag_display_name": run.dag_id,
        "run_id": run.run_id,
        "run_after": view::time(run.run_after),
        "size": size,
    })
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    At(mut path): At<TiPath>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let (limit, offset) = query.page()?;
    let key = query.text("xcom_key");
    let map_index = query.parse::<i32>("map_index")?;
    let run = path.run(&app).await?;
    let version = lookup::version(&app, &run).await?;
    let ti = if path.task_id == ALL {
        None
    } else {
        path.map_index = map_index.unwrap_or(UNMAPPED);
        if map_index.is_none() && version.spec.idx(&path.task_id).is_none() {
            return Err(path.not_found());
        }
        app.store
            .task_instance(run.pk, &path.task_id, path.map_index)
            .await?
            .filter(|ti| ti.is_visible())
            .map(|ti| ti.pk)
    };
    let mut rows = app.store.xcoms(run.pk, ti, key).await?;
    if path.task_id != ALL && ti.is_none() {
        // A mapped task without an index: all its instances.
        let idx = version.spec.idx(&path.task_id);
        rows.retain(|row| {
            Some(row.task_idx) == idx && map_index.is_none_or(|m| m == row.map_index)
        });
    }
    let entries: Vec<Value> = rows
        .iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|row| entry(row, &run, &version))
        .collect();
    Ok(Json(
        json!({ "xcom_entries": entries, "total_entries": rows.len() }),
    ))
}

/// One value, as JSON of its own type.
pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id, task_id, key)): At<(String, String, String, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    let map_index = query.parse("map_index")?.unwrap_or(UNMAPPED);
    let missing = || ApiError::NotFound(format!("XCom entry with key: `{key}` not found"));
    let run = lookup::run(&app, &dag_id, &run_id).await?;
    let version = lookup::version(&app, &run).await?;
    let ti = app
        .store
        .task_instance(run.pk, &task_id, map_index)
        .await?
        .ok_or_else(missing)?;
    let rows = app.store.xcoms(run.pk, Some(ti.pk), Some(&key)).await?;
    let row = rows.into_iter().next().ok_or_else(missing)?;
    let mut body = entry(&row, &run, &version);
    match row.value {
        XcomValue::Inline(value) => {
            body["value"] = value;
            Ok(Json(body).into_response())
        }
        object @ XcomValue::Object { .. } => {
            let head = body.to_string();
            let head = head.trim_end_matches('}').to_owned();
            let value = value_stream(&app.objects, object).await?;
            let all = stream::iter([Ok(Bytes::from(format!("{head},\"value\":")))])
                .chain(value)
                .chain(stream::iter([Ok(Bytes::from_static(b"}"))]));
            Ok(json_stream(all.boxed()))
        }
    }
}

pub(super) fn json_stream(stream: ByteStream) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(stream),
    )
        .into_response()
}

/// A value's JSON, wherever it is.
pub(super) async fn value_stream(
    objects: &ObjectStore,
    value: XcomValue,
) -> Result<ByteStream, ObjectError> {
    match value {
        XcomValue::Inline(value) => Ok(stream::iter([Ok(Bytes::from(value.to_string()))]).boxed()),
        XcomValue::Object { key, .. } => objects.stream_get(&key).await,
    }
}

/// A task's return value; of a mapped task the list of its instances' values; null where there is none.
pub(super) async fn result_of(app: &App, run: &RunRow, task_id: &str) -> Result<Value, ApiError> {
    let version = lookup::version(app, run).await?;
    let idx = version
        .spec
        .idx(task_id)
        .ok_or_else(|| ApiError::NotFound(format!("Task with id {task_id} was not found")))?;
    let rows = app.store.xcoms_of_task(run.pk, idx, RETURN_VALUE).await?;
    let is_mapped = version
        .spec
        .task(idx)
        .is_some_and(|task| version.spec.mapping(task).is_some());
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        values.push(match row.value {
            XcomValue::Inline(value) => value,
            XcomValue::Object { size, .. } if size > MAX_WITHIN => {
                return Err(ApiError::TooLarge(format!(
                    "the result of {task_id} has {size} bytes; read it from xcomEntries/{RETURN_VALUE}"
                )));
            }
            object @ XcomValue::Object { .. } => {
                let pieces: Vec<Bytes> = value_stream(&app.objects, object).await?.try_collect().await?;
                serde_json::from_slice(&pieces.concat())
                    .map_err(|error| ApiError::Internal(format!("an XCom of {task_id} is no JSON: {error}")))?
            }
        });
    }
    Ok(match (is_mapped, values.pop()) {
        (false, value) => value.unwrap_or(Value::Null),
        (true, None) => json!([]),
        (true, Some(last)) => {
            values.push(last);
            Value::Array(values)
        }
    })
}
