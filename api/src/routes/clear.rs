//! Clearing: instances of one or several runs (`clearTaskInstances`), and a run (`…/clear`).

use super::{
    amend::{self, Answer, Around, Request},
    dag_runs::whole,
    lookup,
};
use crate::{
    auth::User,
    error::ApiError,
    extract::{At, Body},
    parts::App,
};
use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use gristmill_common::{row::RunRow, state::TaskState};
use gristmill_store::Change;
use serde::Deserialize;
use serde_json::{Value, json};

/// A task, or one instance of a mapped one.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum TaskRef {
    Task(String),
    Instance(String, i32),
}

impl TaskRef {
    fn named(&self) -> (String, Option<i32>) {
        match self {
            Self::Task(id) => (id.clone(), None),
            Self::Instance(id, index) => (id.clone(), (*index >= 0).then_some(*index)),
        }
    }
}

/// Airflow's `ClearTaskInstancesBody`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClearTasks {
    #[serde(default = "yes")]
    dry_run: bool,
    dag_run_id: Option<String>,
    start_date: Option<DateTime<Utc>>,
    end_date: Option<DateTime<Utc>>,
    task_ids: Option<Vec<TaskRef>>,
    /// Unless it is given: `true`, but not beside `only_running`.
    only_failed: Option<bool>,
    #[serde(default)]
    only_running: bool,
    #[serde(default = "yes")]
    reset_dag_runs: bool,
    #[serde(default)]
    include_upstream: bool,
    #[serde(default)]
    include_downstream: bool,
    #[serde(default)]
    include_past: bool,
    #[serde(default)]
    include_future: bool,
    #[serde(default)]
    prevent_running_task: bool,
    run_on_latest_version: Option<bool>,
    note: Option<String>,
    /// Airflow 2 had it; there are no sub-DAGs that it could be about.
    #[serde(default, rename = "include_subdags")]
    _include_subdags: bool,
}

/// Airflow's `DAGRunClearBody`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClearRun {
    #[serde(default = "yes")]
    dry_run: bool,
    #[serde(default)]
    only_failed: bool,
    #[serde(default)]
    only_new: bool,
    run_on_latest_version: Option<bool>,
    note: Option<String>,
}

fn yes() -> bool {
    true
}

pub(super) fn states(only_failed: bool, only_running: bool) -> Vec<TaskState> {
    let mut states = Vec::new();
    if only_failed {
        states.extend([TaskState::Failed, TaskState::UpstreamFailed]);
    }
    if only_running {
        states.push(TaskState::Running);
    }
    states
}

/// A run is pinned to its version. Asking for the newest is no wish if it has that one.
async fn check_version(app: &App, run: &RunRow, latest: Option<bool>) -> Result<(), ApiError> {
    if latest != Some(true) {
        return Ok(());
    }
    let dag = lookup::dag(app, &run.dag_id).await?;
    if dag.version == run.version {
        return Ok(());
    }
    Err(ApiError::NotYet(format!(
        "run {:?} has an older version of '{}' and goes on with it; this version cannot move it to the latest (run_on_latest_version): trigger a new run instead",
        run.run_id, run.dag_id
    )))
}

pub(super) async fn task_instances(
    User(caller): User,
    State(app): State<App>,
    At(dag_id): At<String>,
    Body(body): Body<ClearTasks>,
) -> Result<Json<Value>, ApiError> {
    let around = Around {
        past: body.include_past,
        future: body.include_future,
    };
    let run_id = body.dag_run_id.as_deref();
    let runs = amend::runs(
        &app,
        &dag_id,
        run_id,
        around,
        body.start_date,
        body.end_date,
    )
    .await?;
    let tasks: Option<Vec<(String, Option<i32>)>> = body
        .task_ids
        .as_ref()
        .map(|ids| ids.iter().map(TaskRef::named).collect());
    let only_failed = body.only_failed.unwrap_or(!body.only_running);
    let mut answer = Answer::default();
    for run in &runs {
        check_version(&app, run, body.run_on_latest_version).await?;
        if !body.reset_dag_runs && run.state.is_finished() && !body.dry_run {
            return Err(ApiError::BadRequest(format!(
                "run {:?} has ended: without reset_dag_runs what is cleared there would never run",
                run.run_id
            )));
        }
        let version = lookup::version(&app, run).await?;
        let mut selection = match amend::selection(&version.spec, tasks.as_deref()) {
            // Another run of the DAG may have a version without the task.
            Err(ApiError::NotFound(_)) if run_id != Some(&*run.run_id) => continue,
            selection => selection?,
        };
        selection.upstream = body.include_upstream;
        selection.downstream = body.include_downstream;
        selection.scope = true;
        selection.states = states(only_failed, body.only_running);
        let request = Request {
            dry_run: body.dry_run,
            refuse_running: body.prevent_running_task,
            extra: json!({ "task_ids": tasks, "only_failed": only_failed, "only_running": body.only_running,
                "upstream": body.include_upstream, "downstream": body.include_downstream, "note": body.note }),
            ..Request::new(Change::Clear(selection), "clear_task_instances")
        };
        answer.amend(&app, &caller, run, request).await?;
    }
    Ok(answer.json())
}

pub(super) async fn run(
    User(caller): User,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    Body(body): Body<ClearRun>,
) -> Result<Json<Value>, ApiError> {
    let row = lookup::run(&app, &dag_id, &run_id).await?;
    check_version(&app, &row, body.run_on_latest_version).await?;
    let mut answer = Answer::default();
    // A run has all tasks of its version: none is new.
    if !body.only_new {
        let selection = gristmill_common::engine::Selection {
            states: states(body.only_failed, false),
            ..Default::default()
        };
        let request = Request {
            dry_run: body.dry_run,
            note: body.note,
            extra: json!({ "only_failed": body.only_failed }),
            ..Request::new(Change::Clear(selection), "clear_dag_run")
        };
        answer.amend(&app, &caller, &row, request).await?;
    }
    if body.dry_run {
        return Ok(answer.json());
    }
    let row = lookup::run(&app, &dag_id, &run_id).await?;
    whole(&app, &row).await.map(Json)
}
