//! Files that tasks have left: listed, and downloaded as they are.

use super::{
    lookup::{self, TiPath},
    xcoms,
};
use crate::{
    auth::Viewer,
    error::ApiError,
    extract::{At, Query},
    parts::App,
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::TryStreamExt;
use gristmill_common::{
    ids::UNMAPPED,
    row::{ARTIFACTS, XcomRow},
};
use gristmill_objects::artifacts::{Artifact, listed};
use serde_json::{Value, json};

/// The files in an XCom.
async fn files(app: &App, row: XcomRow) -> Result<Vec<Artifact>, ApiError> {
    let stream = xcoms::value_stream(&app.objects, row.value).await?;
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    let value: Value = serde_json::from_slice(&pieces.concat())
        .map_err(|error| ApiError::Internal(format!("a list of artifacts is no JSON: {error}")))?;
    Ok(listed(&value))
}

fn shown(task_id: &str, map_index: i32, file: &Artifact) -> Value {
    json!({
        "task_id": task_id,
        "map_index": map_index,
        "name": file.name,
        "size": file.size,
    })
}

/// Of all tasks of a run.
pub(super) async fn of_run(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let run = lookup::run(&app, &dag_id, &run_id).await?;
    let version = lookup::version(&app, &run).await?;
    let mut all = Vec::new();
    for row in app.store.xcoms(run.pk, None, Some(ARTIFACTS)).await? {
        let task = version.spec.task(row.task_idx);
        let task_id = task.map_or("", |task| task.task_id.as_str());
        let map_index = row.map_index;
        let files = files(&app, row).await?;
        all.extend(files.iter().map(|file| shown(task_id, map_index, file)));
    }
    page(&query, &all)
}

fn page(query: &Query, all: &[Value]) -> Result<Json<Value>, ApiError> {
    let (limit, offset) = query.page()?;
    let page: Vec<&Value> = all
        .iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .collect();
    Ok(Json(
        json!({ "artifacts": page, "total_entries": all.len() }),
    ))
}

/// Of one instance.
async fn of_instance(app: &App, path: &TiPath) -> Result<Vec<Artifact>, ApiError> {
    let (run, ti) = path.find(app).await?;
    let rows = app
        .store
        .xcoms(run.pk, Some(ti.pk), Some(ARTIFACTS))
        .await?;
    match rows.into_iter().next() {
        Some(row) => files(app, row).await,
        None => Ok(Vec::new()),
    }
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    At(mut path): At<TiPath>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    path.map_index = query.parse("map_index")?.unwrap_or(UNMAPPED);
    let files = of_instance(&app, &path).await?;
    let all: Vec<Value> = files
        .iter()
        .map(|file| shown(&path.task_id, path.map_index, file))
        .collect();
    page(&query, &all)
}

/// A file's content, streamed from the object store.
pub(super) async fn download(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, dag_run_id, task_id, name)): At<(String, String, String, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    let path = TiPath {
        dag_id,
        dag_run_id,
        task_id,
        map_index: query.parse("map_index")?.unwrap_or(UNMAPPED),
    };
    let files = of_instance(&app, &path).await?;
    let file = files.iter().find(|file| file.name == name);
    let file = file
        .ok_or_else(|| ApiError::NotFound(format!("{} has no artifact `{name}`", path.task_id)))?;
    let content = app.objects.stream_get(&file.object).await?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let last: String = name.rsplit('/').next().unwrap_or_default().to_owned();
    let last = last.replace(|c| !plain(c), "_");
    let headers = [
        // Whatever it is, a browser saves it: a page from here would act as its viewer.
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{last}\""),
        ),
        (header::CONTENT_LENGTH, file.size.to_string()),
        (
            HeaderName::from_static("x-content-type-options"),
            "nosniff".to_owned(),
        ),
    ];
    Ok((headers, Body::from_stream(content)).into_response())
}
