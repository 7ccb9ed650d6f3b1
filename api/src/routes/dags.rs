//! `/api/v2/dags`, and the parts of one DAG.

use super::{
    dag_list,
    lookup::{self, ALL},
};
use crate::{
    auth::{About, User, Viewer},
    error::ApiError,
    extract::{At, Body, Query},
    listing::Small,
    parts::App,
    view,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use gristmill_common::limit::LimitKey;
use gristmill_store::{DagRow, StoreError, VersionRow};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A DAG, its newest version, and whether its file is broken now.
async fn whole(app: &App, row: &DagRow) -> Result<(Arc<VersionRow>, bool), ApiError> {
    let version = app.versions.get(&*app.store, row.version).await?;
    let errors = app.store.import_errors().await?;
    Ok((version, errors.iter().any(|e| e.filename == row.fileloc)))
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
) -> Result<Json<Value>, ApiError> {
    let row = lookup::dag(&app, &dag_id).await?;
    let (version, broken) = whole(&app, &row).await?;
    Ok(Json(Value::Object(view::dag::dag(&row, &version, broken))))
}

pub(super) async fn details(
    Viewer(caller): Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
) -> Result<Json<Value>, ApiError> {
    let row = lookup::dag(&app, &dag_id).await?;
    let (version, broken) = whole(&app, &row).await?;
    let liked = app.store.favorites(&caller.name).await?.contains(&dag_id);
    let limits = app.store.limits(&[LimitKey::DagRuns { dag_id }]).await?;
    let active = limits.first().map_or(0, |limit| limit.used);
    let mut details = view::dag::details(&row, &version, broken, active);
    details["is_favorite"] = liked.into();
    Ok(Json(details))
}

/// Versions of one DAG that are looked through for some of them.
const MOST_VERSIONS: i64 = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    is_paused: bool,
}

pub(super) async fn patch(
    User(caller): User,
    State(app): State<App>,
    At(dag_id): At<String>,
    query: Query,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    dag_list::must_mask_pause(&query)?;
    lookup::dag(&app, &dag_id).await?;
    let row = app.store.set_paused(&dag_id, body.is_paused).await?;
    let event = if body.is_paused {
        "pause_dag"
    } else {
        "unpause_dag"
    };
    caller
        .audit(&*app.store, event, About::dag(&dag_id), Value::Null)
        .await;
    let (version, broken) = whole(&app, &row).await?;
    Ok(Json(Value::Object(view::dag::dag(&row, &version, broken))))
}

pub(super) async fn delete(
    User(caller): User,
    State(app): State<App>,
    At(dag_id): At<String>,
) -> Result<Json<Value>, ApiError> {
    lookup::dag(&app, &dag_id).await?;
    app.store.delete_dag(&dag_id).await?;
    caller
        .audit(&*app.store, "delete_dag", About::dag(&dag_id), Value::Null)
        .await;
    Ok(Json(json!({})))
}

pub(super) async fn tasks(
    _: Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const TASKS: Small = Small {
        name: "tasks",
        patterns: &[],
        texts: &[],
        times: &[],
        order: &[
            ("task_id", "task_id"),
            ("task_display_name", "task_display_name"),
            ("owner", "owner"),
            ("retries", "retries"),
            ("pool", "pool"),
            ("queue", "queue"),
            ("priority_weight", "priority_weight"),
            ("trigger_rule", "trigger_rule"),
        ],
    };
    let row = lookup::dag(&app, &dag_id).await?;
    let version = app.versions.get(&*app.store, row.version).await?;
    // All of them, in topological order unless another is asked for.
    TASKS.whole(&query, view::dag::tasks(&version.spec))
}

pub(super) async fn task(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, task_id)): At<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let row = lookup::dag(&app, &dag_id).await?;
    let version = app.versions.get(&*app.store, row.version).await?;
    view::dag::tasks(&version.spec)
        .into_iter()
        .find(|task| task["task_id"] == task_id.as_str())
        .map(Json)
        .ok_or_else(|| ApiError::NotFound(format!("Task with id {task_id} was not found")))
}

pub(super) async fn versions(
    _: Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const VERSIONS: Small = Small {
        name: "dag_versions",
        patterns: &[],
        texts: &[
            ("bundle_name", "bundle_name"),
            ("bundle_version", "bundle_version"),
        ],
        times: &[],
        order: &[
            ("id", "version_number"),
            ("version_number", "version_number"),
            ("bundle_name", "bundle_name"),
            ("bundle_version", "bundle_version"),
            ("created_at", "created_at"),
            ("dag_id", "dag_id"),
        ],
    };
    const JUDGED: [&str; 4] = [
        "version_number",
        "bundle_name",
        "bundle_version",
        "order_by",
    ];
    let (limit, offset) = query.page()?;
    if dag_id != ALL && JUDGED.iter().all(|name| query.text(name).is_none()) {
        lookup::dag(&app, &dag_id).await?;
        let page = app.store.versions(&dag_id, limit, offset).await?;
        let versions: Vec<Value> = page.rows.iter().map(view::version).collect();
        return Ok(Json(
            json!({ "dag_versions": versions, "total_entries": page.total }),
        ));
    }
    let ids = if dag_id == ALL {
        let dags = dag_list::all(&app, true).await?;
        dags.into_iter().map(|dag| dag.dag_id).collect()
    } else {
        lookup::dag(&app, &dag_id).await?;
        vec![dag_id]
    };
    let numbers = query.numbers("version_number")?;
    let mut rows = Vec::new();
    for dag_id in ids {
        let page = app.store.versions(&dag_id, MOST_VERSIONS, 0).await?;
        let fits = |number: i32| numbers.is_empty() || numbers.contains(&number.into());
        let found = page.rows.iter().filter(|v| fits(v.version_number));
        rows.extend(found.map(view::version));
    }
    VERSIONS.answer(&query, rows)
}

pub(super) async fn version(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, number)): At<(String, i32)>,
) -> Result<Json<Value>, ApiError> {
    lookup::dag(&app, &dag_id).await?;
    Ok(Json(view::version(&numbered(&app, &dag_id, number).await?)))
}

/// A version by its number. Numbers rise by one from 1, so its place in the listing is known.
pub(super) async fn numbered(app: &App, dag_id: &str, number: i32) -> Result<VersionRow, ApiError> {
    let newest = app.store.versions(dag_id, 1, 0).await?;
    let top = newest.rows.first().map_or(0, |v| v.version_number);
    let offset = i64::from(top.saturating_sub(number).max(0));
    let page = app.store.versions(dag_id, 1, offset).await?;
    page.rows
        .into_iter()
        .find(|version| version.version_number == number)
        .ok_or_else(|| {
            StoreError::NotFound {
                what: "DAG version",
                name: format!("{dag_id} {number}"),
            }
            .into()
        })
}

pub(super) async fn source(
    _: Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let row = lookup::dag(&app, &dag_id).await?;
    let number = query.parse("version_number")?.unwrap_or(row.version_number);
    let version = numbered(&app, &dag_id, number).await?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if accept.starts_with("text/plain") {
        return Ok(version.source.into_response());
    }
    Ok(Json(json!({
        "content": version.source,
        "dag_id": dag_id,
        "dag_display_name": dag_id,
        "version_number": version.version_number,
    }))
    .into_response())
}
