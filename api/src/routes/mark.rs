//! Setting the state and the note of task instances (`PATCH …/taskInstances/{task_id}`), with the dry run that Airflow has.

use super::{
    amend::{self, Answer, Around, Request},
    lookup::{self, TiPath},
};
use crate::{
    auth::{About, Caller, User},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    parts::App,
    view,
};
use axum::{Json, extract::State};
use gristmill_common::{
    ids::UNMAPPED,
    row::{RunRow, TiRow},
    state::TaskState,
};
use gristmill_store::{Change, TiFilter};
use serde::Deserialize;
use serde_json::{Value, json};

const MAX_NOTE: usize = 1000;
/// Instances of one task that a note is set on at most.
const MOST_NOTES: i64 = 10_000;

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
    /// The fields that `update_mask` leaves.
    fn masked(mut self, query: &Query) -> Self {
        if !query.masks("new_state") {
            self.new_state = None;
        }
        if !query.masks("note") {
            self.note = None;
        }
        self
    }

    /// The state to set; absent: only the note is.
    fn state(&self) -> Result<Option<TaskState>, ApiError> {
        if self
            .note
            .as_ref()
            .is_some_and(|note| note.chars().count() > MAX_NOTE)
        {
            let msg = format!("String should have at most {MAX_NOTE} characters");
            return Err(ApiError::field(FieldError::body("note", msg, Value::Null)));
        }
        match self.new_state.as_deref() {
            Some("success") => Ok(Some(TaskState::Success)),
            Some("failed") => Ok(Some(TaskState::Failed)),
            Some("skipped") => Ok(Some(TaskState::Skipped)),
            Some(other) => Err(ApiError::field(FieldError::body(
                "new_state",
                format!("{other:?} is not one of success, failed, skipped"),
                other.into(),
            ))),
            None if self.note.is_some() => Ok(None),
            None => Err(ApiError::field(FieldError::body(
                "new_state",
                "give success, failed or skipped, or a note".to_owned(),
                Value::Null,
            ))),
        }
    }
}

/// The instances that a path names: one, or all of a mapped task or a group.
async fn named(app: &App, run: &RunRow, path: &TiPath, most: i64) -> Result<Vec<TiRow>, ApiError> {
    let version = lookup::version(app, run).await?;
    let mut found = Vec::new();
    for idx in amend::named(&version.spec, &path.task_id) {
        let task_id = version.spec.task(idx).map(|task| task.task_id.clone());
        let filter = TiFilter {
            run: Some(run.pk),
            task_id,
            map_index: (path.map_index > UNMAPPED).then_some(path.map_index),
            limit: most,
            ..TiFilter::default()
        };
        found.extend(app.store.task_instances(&filter).await?.rows);
    }
    Ok(found)
}

/// Sets the note of what the path names.
async fn put_note(app: &App, run: &RunRow, path: &TiPath, note: &str) -> Result<(), ApiError> {
    let rows = named(app, run, path, MOST_NOTES).await?;
    if rows.is_empty() {
        return Err(path.not_found());
    }
    for row in rows {
        let note = Some(note).filter(|note| !note.is_empty());
        app.store.put_task_note(&row, note).await?;
    }
    Ok(())
}

/// Sets a state, a note or both, or says what a state would change.
pub(super) async fn mark(
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
        let is_named = run.run_id == path.dag_run_id;
        if is_named && named(app, run, path, 1).await?.is_empty() {
            return Err(path.not_found());
        }
        if let (Some(note), false, true) = (&body.note, dry_run, is_named) {
            put_note(app, run, path, note).await?;
        }
        let Some(state) = state else { continue };
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
    let Some(state) = state else {
        return noted(app, caller, path, body, dry_run).await;
    };
    if answer.total == 0 && !dry_run {
        return Err(ApiError::Conflict(format!(
            "Task id {} is already in {state} state, or has no such instance",
            path.task_id
        )));
    }
    Ok(answer.json())
}

/// What a note alone was set on.
async fn noted(
    app: &App,
    caller: &Caller,
    path: &TiPath,
    body: &Patch,
    dry_run: bool,
) -> Result<Json<Value>, ApiError> {
    let run = path.run(app).await?;
    let version = lookup::version(app, &run).await?;
    let rows = named(app, &run, path, MOST_NOTES).await?;
    if rows.is_empty() {
        return Err(path.not_found());
    }
    let mut seen = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut value = view::task_instance::task_instance(row, &run, &version);
        value["note"] = json!(body.note.as_ref().filter(|note| !note.is_empty()));
        seen.push(value);
    }
    if !dry_run {
        let about = About::run(&run.dag_id, &run.run_id);
        let extra =
            json!({ "task_id": path.task_id, "map_index": path.map_index, "note": body.note });
        caller
            .audit(&*app.store, "note_task_instances", about, extra)
            .await;
    }
    Ok(Json(
        json!({ "task_instances": seen, "total_entries": seen.len() }),
    ))
}

/// The path, with the map index that the query may have.
fn placed(mut path: TiPath, query: &Query) -> Result<TiPath, ApiError> {
    if let Some(map_index) = query.parse("map_index")? {
        path.map_index = map_index;
    }
    Ok(path)
}

pub(super) async fn patch(
    User(caller): User,
    State(app): State<App>,
    At(path): At<TiPath>,
    query: Query,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    let path = placed(path, &query)?;
    mark(&app, &caller, &path, &body.masked(&query), false).await
}

pub(super) async fn dry_run(
    User(caller): User,
    State(app): State<App>,
    At(path): At<TiPath>,
    query: Query,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    let path = placed(path, &query)?;
    mark(&app, &caller, &path, &body.masked(&query), true).await
}

/// The path of a group of tasks in a run.
#[derive(Debug, Deserialize)]
pub(super) struct GroupPath {
    dag_id: String,
    dag_run_id: String,
    group_id: String,
}

impl GroupPath {
    /// As the path of a task, which a group's id stands for.
    async fn placed(self, app: &App) -> Result<TiPath, ApiError> {
        let run = lookup::run(app, &self.dag_id, &self.dag_run_id).await?;
        let version = lookup::version(app, &run).await?;
        let prefix = format!("{}.", self.group_id);
        if !version
            .spec
            .tasks
            .iter()
            .any(|task| task.task_id.starts_with(&prefix))
        {
            return Err(ApiError::NotFound(format!(
                "Task group '{}' not found in DAG '{}'",
                self.group_id, self.dag_id
            )));
        }
        Ok(TiPath {
            dag_id: self.dag_id,
            dag_run_id: self.dag_run_id,
            task_id: self.group_id,
            map_index: UNMAPPED,
        })
    }
}

pub(super) async fn patch_group(
    User(caller): User,
    State(app): State<App>,
    At(path): At<GroupPath>,
    query: Query,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    let path = path.placed(&app).await?;
    mark(&app, &caller, &path, &body.masked(&query), false).await
}

pub(super) async fn dry_run_group(
    User(caller): User,
    State(app): State<App>,
    At(path): At<GroupPath>,
    query: Query,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    let path = path.placed(&app).await?;
    mark(&app, &caller, &path, &body.masked(&query), true).await
}
