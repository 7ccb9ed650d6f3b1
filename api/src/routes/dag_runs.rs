//! `/api/v2/dags/{dag_id}/dagRuns`: listing, one, deleting.

use super::lookup::{self, ALL};
use crate::{
    auth::{About, User, Viewer},
    error::ApiError,
    extract::{At, Query},
    parts::App,
    view,
};
use axum::{Json, extract::State, http::StatusCode};
use gristmill_common::row::RunRow;
use gristmill_store::RunFilter;
use serde_json::{Value, json};

const STATES: [&str; 4] = ["queued", "running", "success", "failed"];

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    query.refuse_unknown_filters(&[])?;
    query.newest_first_only()?;
    let (limit, offset) = query.page()?;
    let dag_id = (dag_id != ALL).then_some(dag_id);
    if let Some(dag_id) = &dag_id {
        lookup::dag(&app, dag_id).await?;
    }
    let page = app
        .store
        .runs(&RunFilter {
            dag_id,
            states: query.states("state", &STATES)?,
            run_id: query.text("run_id").map(str::to_owned),
            limit,
            offset,
        })
        .await?;
    let mut runs = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        let version = lookup::version(&app, row).await?;
        runs.push(view::run::run(row, &version, None));
    }
    Ok(Json(
        json!({ "dag_runs": runs, "total_entries": page.total }),
    ))
}

/// A run's JSON, with its instances counted by state.
pub(super) async fn whole(app: &App, row: &RunRow) -> Result<Value, ApiError> {
    let version = lookup::version(app, row).await?;
    let counts = app.store.state_counts(row.pk).await?;
    Ok(view::run::run(row, &version, Some(&counts)))
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let row = lookup::run(&app, &dag_id, &run_id).await?;
    whole(&app, &row).await.map(Json)
}

pub(super) async fn delete(
    User(caller): User,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let row = lookup::run(&app, &dag_id, &run_id).await?;
    app.store.delete_run(row.pk).await?;
    caller
        .audit(
            &*app.store,
            "delete_dag_run",
            About::run(&dag_id, &run_id),
            Value::Null,
        )
        .await;
    Ok(StatusCode::NO_CONTENT)
}
