//! Setting the state of task instances (`PATCH …/taskInstances/{task_id}`), with the dry run that Airflow has.

use super::{
    amend::{self, Answer, Around, Request},
    lookup::{self, TiPath},
};
use crate::{
    auth::{Caller, User},
    error::{ApiError, FieldError},
    extract::{At, Body},
    parts::App,
};
use axum::{Json, extract::State};
use gristmill_common::{ids::UNMAPPED, state::TaskState};
use gristmill_store::Change;
use serde::Deserialize;
use serde_json::{Value, json};

/// Airflow's `PatchTaskInstanceBody`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    new_state: Option<String>,
    note: Option<String>,
    #[serde(default)]
    include_upstream: bool,
    #[serde(default)]
    include_downstream: bool,
    #[serde(default)]
    include_future: bool,
    #[serde(default)]
    include_past: bool,
}

impl Patch {
    fn state(&self) -> Result<TaskState, ApiError> {
        match self.new_state.as_deref() {
            Some("success") => Ok(TaskState::Success),
            Some("failed") => Ok(TaskState::Failed),
            Some("skipped") => Ok(TaskState::Skipped),
            Some(other) => Err(ApiError::field(FieldError::body(
                "new_state",
                format!("{other:?} is not one of success, failed, skipped"),
                other.into(),
            ))),
            None if self.note.is_some() => Err(ApiError::NotYet(
                "this version keeps no notes of task instances".to_owned(),
            )),
            None => Err(ApiError::field(FieldError::body(
                "new_state",
                "give success, failed or skipped".to_owned(),
                Value::Null,
            ))),
        }
    }
}

async fn mark(
    app: &App,
    caller: &Caller,
    path: &TiPath,
    body: &Patch,
    dry_run: bool,
) -> Result<Json<Value>, ApiError> {
    let state = body.state()?;
    let around = Around {
        past: body.include_past,
        future: body.include_future,
    };
    let run_id = Some(path.dag_run_id.as_str());
    let runs = amend::runs(app, &path.dag_id, run_id, around, None, None).await?;
    let map_index = (path.map_index > UNMAPPED).then_some(path.map_index);
    let tasks = [(path.task_id.clone(), map_index)];
    let mut answer = Answer::default();
    for run in &runs {
        let version = lookup::version(app, run).await?;
        let mut selection = match amend::selection(&version.spec, Some(&tasks)) {
            Err(ApiError::NotFound(_)) if run.run_id != path.dag_run_id => continue,
            Err(ApiError::NotFound(_)) => return Err(path.not_found()),
            selection => selection?,
        };
        selection.upstream = body.include_upstream;
        selection.downstream = body.include_downstream;
        let request = Request {
            dry_run,
            extra: json!({ "task_id": path.task_id, "map_index": map_index, "new_state": state,
                "upstream": body.include_upstream, "downstream": body.include_downstream }),
            ..Request::new(Change::Mark(selection, state), "mark_task_instances")
        };
        answer.amend(app, caller, run, request).await?;
    }
    if answer.total == 0 && !dry_run {
        return Err(ApiError::Conflict(format!(
            "Task id {} is already in {state} state, or has no such instance",
            path.task_id
        )));
    }
    Ok(answer.json())
}

pub(super) async fn patch(
    User(caller): User,
    State(app): State<App>,
    At(path): At<TiPath>,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    mark(&app, &caller, &path, &body, false).await
}

pub(super) async fn dry_run(
    User(caller): User,
    State(app): State<App>,
    At(path): At<TiPath>,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    mark(&app, &caller, &path, &body, true).await
}
