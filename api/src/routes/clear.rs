//! Clearing: instances of one or several runs (`clearTaskInstances`), a run (`…/clear`), several (`clearDagRuns`).

use super::{
    amend::{self, Answer, Around, Request},
    dag_runs::whole,
    lookup::{self, ALL},
};
use crate::{
    auth::{Caller, User},
    error::{ApiError, FieldError},
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

/// Clears one run, or says what it would clear.
async fn clear_run(
    app: &App,
    caller: &Caller,
    row: &RunRow,
    body: &ClearRun,
    answer: &mut Answer,
) -> Result<(), ApiError> {
    check_version(app, row, body.run_on_latest_version).await?;
    // A run has all tasks of its version: none is new.
    if body.only_new {
        return Ok(());
    }
    let selection = gristmill_common::engine::Selection {
        states: states(body.only_failed, false),
        ..Default::default()
    };
    let request = Request {
        dry_run: body.dry_run,
        note: body.note.clone(),
        extra: json!({ "only_failed": body.only_failed }),
        ..Request::new(Change::Clear(selection), "clear_dag_run")
    };
    answer.amend(app, caller, row, request).await
}

pub(super) async fn run(
    User(caller): User,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    Body(body): Body<ClearRun>,
) -> Result<Json<Value>, ApiError> {
    let row = lookup::run(&app, &dag_id, &run_id).await?;
    let mut answer = Answer::default();
    clear_run(&app, &caller, &row, &body, &mut answer).await?;
    if body.dry_run {
        return Ok(answer.json());
    }
    let row = lookup::run(&app, &dag_id, &run_id).await?;
    whole(&app, &row).await.map(Json)
}

/// A run of [`ClearRuns`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunRef {
    dag_id: Option<String>,
    dag_run_id: String,
    /// Airflow's body is shared with the update of runs.
    #[serde(rename = "state")]
    _state: Option<String>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

/// Airflow's `BulkDAGRunClearBody`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClearRuns {
    dag_runs: Option<Vec<RunRef>>,
    #[serde(default = "yes")]
    dry_run: bool,
    #[serde(default)]
    only_failed: bool,
    #[serde(default)]
    only_new: bool,
    run_on_latest_version: Option<bool>,
    note: Option<String>,
    partition_key: Option<String>,
    partition_date_start: Option<DateTime<Utc>>,
    partition_date_end: Option<DateTime<Utc>>,
}

/// Clears several runs; all of them have to be there before the first is touched.
pub(super) async fn runs(
    User(caller): User,
    State(app): State<App>,
    At(dag_id): At<String>,
    Body(body): Body<ClearRuns>,
) -> Result<Json<Value>, ApiError> {
    let partitioned = body.partition_key.is_some()
        || body.partition_date_start.is_some()
        || body.partition_date_end.is_some();
    if partitioned {
        return Err(ApiError::NotYet(
            "there are no partitioned runs here; name runs in dag_runs".to_owned(),
        ));
    }
    let Some(named) = body.dag_runs else {
        let msg = "name at least one run".to_owned();
        return Err(ApiError::field(FieldError::body(
            "dag_runs",
            msg,
            Value::Null,
        )));
    };
    let mut rows = Vec::with_capacity(named.len());
    for one in &named {
        let of = match (&one.dag_id, dag_id.as_str()) {
            (Some(of), ALL) => of,
            (Some(of), path) if of == path => of,
            (None, path) if path != ALL => &dag_id,
            _ => {
                return Err(ApiError::BadRequest(format!(
                    "run {:?} needs the dag_id of the path, or its own where the path has ~",
                    one.dag_run_id
                )));
            }
        };
        rows.push(lookup::run(&app, of, &one.dag_run_id).await?);
    }
    let wish = ClearRun {
        dry_run: body.dry_run,
        only_failed: body.only_failed,
        only_new: body.only_new,
        run_on_latest_version: body.run_on_latest_version,
        note: body.note,
    };
    let mut answer = Answer::default();
    for row in &rows {
        clear_run(&app, &caller, row, &wish, &mut answer).await?;
    }
    if wish.dry_run {
        return Ok(answer.json());
    }
    let mut cleared = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = lookup::run(&app, &row.dag_id, &row.run_id).await?;
        cleared.push(whole(&app, &row).await?);
    }
    Ok(Json(
        json!({ "dag_runs": cleared, "total_entries": cleared.len() }),
    ))
}
