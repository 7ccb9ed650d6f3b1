//! `…/taskInstances`: listing, one, its tries.

use super::lookup::{self, ALL, Runs, TiPath};
use crate::{
    auth::Viewer,
    error::ApiError,
    extract::{At, Query},
    parts::App,
    view,
};
use axum::{Json, extract::State};
use gristmill_common::{ids::UNMAPPED, state::TaskState};
use gristmill_store::TiFilter;
use serde_json::{Value, json};

fn filter(query: &Query) -> Result<TiFilter, ApiError> {
    query.refuse_unknown_filters(&["map_index"])?;
    let known: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
    let (limit, offset) = query.page()?;
    let text = |name: &str| query.text(name).map(str::to_owned);
    Ok(TiFilter {
        states: query.states("state", &known)?,
        task_id: text("task_id"),
        queue: text("queue"),
        pool: text("pool"),
        map_index: query.parse("map_index")?,
        limit,
        offset,
        ..TiFilter::default()
    })
}

async fn listed(app: &App, filter: &TiFilter, mut runs: Runs) -> Result<Json<Value>, ApiError> {
    let page = app.store.task_instances(filter).await?;
    let mut rows = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        let run = runs.get(app, row.run).await?;
        let version = lookup::version(app, &run).await?;
        rows.push(view::task_instance::task_instance(row, &run, &version));
    }
    Ok(Json(
        json!({ "task_instances": rows, "total_entries": page.total }),
    ))
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let mut filter = filter(&query)?;
    let mut runs = Runs::default();
    match (dag_id.as_str(), run_id.as_str()) {
        (ALL, ALL) => {}
        (ALL, _) => {
            return Err(ApiError::BadRequest(
                "dag_id is required when dag_run_id is specified".to_owned(),
            ));
        }
        (_, ALL) => {
            lookup::dag(&app, &dag_id).await?;
            filter.dag_id = Some(dag_id);
        }
        _ => {
            let run = lookup::run(&app, &dag_id, &run_id).await?;
            filter.run = Some(run.pk);
            runs = Runs::with(run);
        }
    }
    listed(&app, &filter, runs).await
}

/// The instances of a mapped task.
pub(super) async fn list_mapped(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let mut filter = filter(&query)?;
    let run = path.run(&app).await?;
    let version = lookup::version(&app, &run).await?;
    let idx = version
        .spec
        .idx(&path.task_id)
        .ok_or_else(|| path.not_found())?;
    if version
        .spec
        .task(idx)
        .is_none_or(|task| version.spec.mapping(task).is_none())
    {
        return Err(ApiError::NotFound(format!(
            "Task id {} is not mapped",
            path.task_id
        )));
    }
    filter.run = Some(run.pk);
    filter.task_id = Some(path.task_id);
    listed(&app, &filter, Runs::with(run)).await
}

async fn one(app: &App, path: &TiPath) -> Result<Json<Value>, ApiError> {
    let (run, row) = path.find(app).await?;
    let version = lookup::version(app, &run).await?;
    Ok(Json(view::task_instance::task_instance(
        &row, &run, &version,
    )))
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
) -> Result<Json<Value>, ApiError> {
    match one(&app, &path).await {
        Err(ApiError::NotFound(text)) if is_expanded(&app, &path).await? => {
            Err(ApiError::NotFound(format!(
                "{text}; the task is mapped, add the map_index value to the URL"
            )))
        }
        other => other,
    }
}

/// Whether the path names a mapped task whose instances exist.
async fn is_expanded(app: &App, path: &TiPath) -> Result<bool, ApiError> {
    let Ok(run) = path.run(app).await else {
        return Ok(false);
    };
    let node = app
        .store
        .task_instance(run.pk, &path.task_id, UNMAPPED)
        .await?;
    Ok(node.is_some_and(|node| !node.is_visible()))
}

pub(super) async fn get_mapped(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
) -> Result<Json<Value>, ApiError> {
    one(&app, &path).await
}

async fn all_tries(app: &App, path: &TiPath) -> Result<Json<Value>, ApiError> {
    let (run, row) = path.find(app).await?;
    let version = lookup::version(app, &run).await?;
    let ended = app.store.attempts(row.pk).await?;
    let mut tries: Vec<Value> = ended
        .iter()
        .map(|attempt| view::task_instance::attempt(attempt, &row, &run, &version))
        .collect();
    // The try that is out has no record of its end yet.
    if row
        .attempt
        .is_some_and(|now| ended.iter().all(|attempt| attempt.attempt != now))
    {
        tries.push(view::task_instance::task_instance(&row, &run, &version));
    }
    Ok(Json(
        json!({ "total_entries": tries.len(), "task_instances": tries }),
    ))
}

pub(super) async fn tries(
    _: Viewer,
    State(app): State<App>,
    At(mut path): At<TiPath>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    path.map_index = query.parse("map_index")?.unwrap_or(UNMAPPED);
    all_tries(&app, &path).await
}

pub(super) async fn mapped_tries(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
) -> Result<Json<Value>, ApiError> {
    all_tries(&app, &path).await
}
