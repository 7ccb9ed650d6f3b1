//! What clearing and marking have in common: which runs, which instances, and what is answered.

use super::{lookup, task_instances};
use crate::{
    auth::{About, Caller},
    error::ApiError,
    parts::App,
    view,
};
use axum::Json;
use chrono::{DateTime, Utc};
use gristmill_common::{
    engine::Selection,
    ids::{RunPk, TaskIdx},
    row::RunRow,
    spec::DagSpec,
};
use gristmill_store::{Amend, Amended, Change, DispatchContext, RunFilter};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Runs that one request changes at most: it would hold its caller for minutes.
const MAX_RUNS: usize = 1_000;
/// Runs looked through for those of a time.
const PAGE: i64 = 1_000;
/// Instances that an answer lists at most; it counts all.
const MAX_LISTED: usize = 10_000;

/// Without an epoch nothing is dispatched: that is the schedulers' part.
pub(super) fn context(app: &App) -> DispatchContext {
    let secret = app.secret.clone();
    DispatchContext {
        epoch: None,
        claim_window: Duration::ZERO,
        batch: 0,
        plans: app.plans.clone(),
        published: Arc::default(),
        token: Arc::new(move |run: RunPk| secret.run_token(run.0)),
    }
}

/// A task by the name that a user gives it: its own id, or a group's (a `data` task's) for all its members.
pub(super) fn named(spec: &DagSpec, task_id: &str) -> Vec<TaskIdx> {
    if let Some(idx) = spec.idx(task_id) {
        return vec![idx];
    }
    let prefix = format!("{task_id}.");
    (0..)
        .zip(&spec.tasks)
        .filter(|(_, task)| task.task_id.starts_with(&prefix))
        .map(|(idx, _)| idx)
        .collect()
}

/// Which runs of a DAG a request is about, beside the one that it names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Around {
    pub(super) past: bool,
    pub(super) future: bool,
}

/// The runs that a request is about, oldest first.
pub(super) async fn runs(
    app: &App,
    dag_id: &str,
    run: Option<&str>,
    around: Around,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> Result<Vec<RunRow>, ApiError> {
    let Some(run_id) = run else {
        lookup::dag(app, dag_id).await?;
        return between(app, dag_id, from, to).await;
    };
    let run = lookup::run(app, dag_id, run_id).await?;
    if !around.past && !around.future {
        return Ok(vec![run]);
    }
    let Some(date) = run.logical_date else {
        return Err(ApiError::BadRequest(
            "Cannot use include_past or include_future with no logical_date(e.g. manually or asset triggered)."
                .to_owned(),
        ));
    };
    let from = (!around.past).then_some(date);
    let to = (!around.future).then_some(date);
    between(app, dag_id, from, to).await
}

async fn between(
    app: &App,
    dag_id: &str,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> Result<Vec<RunRow>, ApiError> {
    let mut found = Vec::new();
    let mut offset = 0;
    loop {
        let filter = RunFilter {
            dag_id: Some(dag_id.to_owned()),
            limit: PAGE,
            offset,
            ..RunFilter::default()
        };
        let page = app.store.runs(&filter).await?;
        let rows = page.rows.len() as i64;
        found.extend(page.rows.into_iter().filter(|row| match row.logical_date {
            Some(date) => from.is_none_or(|from| from <= date) && to.is_none_or(|to| date <= to),
            // A run without a date is of no time.
            None => from.is_none() && to.is_none(),
        }));
        if found.len() > MAX_RUNS {
            return Err(ApiError::BadRequest(format!(
                "more than {MAX_RUNS} runs of '{dag_id}' are meant; narrow them down by start_date and end_date"
            )));
        }
        offset += rows;
        if rows < PAGE {
            found.reverse();
            return Ok(found);
        }
    }
}

/// A request for one run, about these tasks (with a map index only that instance), as far as its version has them.
pub(super) fn selection(
    spec: &DagSpec,
    tasks: Option<&[(String, Option<i32>)]>,
) -> Result<Selection, ApiError> {
    let Some(tasks) = tasks else {
        return Ok(Selection::default());
    };
    let mut picked = Vec::new();
    for (task_id, map_index) in tasks {
        let found = named(spec, task_id);
        if found.is_empty() {
            return Err(ApiError::NotFound(format!(
                "Task id {task_id} not found in the version of '{}' that the run has",
                spec.dag_id
            )));
        }
        picked.extend(found.into_iter().map(|idx| (idx, *map_index)));
    }
    Ok(Selection {
        tasks: Some(picked),
        ..Selection::default()
    })
}

/// What was asked of several runs, gathered into one answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    rows: Vec<Value>,
    pub(super) total: usize,
}

impl Answer {
    /// `TaskInstanceCollectionResponse`.
    pub(super) fn json(self) -> Json<Value> {
        Json(json!({ "task_instances": self.rows, "total_entries": self.total }))
    }

    /// Changes one run, or says what would be changed.
    pub(super) async fn amend(
        &mut self,
        app: &App,
        caller: &Caller,
        run: &RunRow,
        request: Request,
    ) -> Result<(), ApiError> {
        let about = About::run(&run.dag_id, &run.run_id);
        let audit = caller.entry(app.store.now(), request.event, about, request.extra);
        let amend = Amend {
            run: run.pk,
            change: request.change,
            by: caller.name.clone(),
            dry_run: request.dry_run,
            refuse_running: request.refuse_running,
            note: request.note,
            list: MAX_LISTED.saturating_sub(self.rows.len()),
            audit: (!request.dry_run).then_some(audit),
        };
        let Amended { rows, total } = app.store.amend(&amend, &context(app)).await?;
        self.total += total;
        if !rows.is_empty() {
            let run = lookup::run(app, &run.dag_id, &run.run_id).await?;
            let version = lookup::version(app, &run).await?;
            let notes = task_instances::notes(app, &rows).await?;
            for row in &rows {
                let mut value = view::task_instance::task_instance(row, &run, &version);
                value["note"] = json!(notes.get(&row.pk));
                self.rows.push(value);
            }
        }
        Ok(())
    }
}

/// What is asked of one run.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) change: Change,
    pub(super) dry_run: bool,
    pub(super) refuse_running: bool,
    pub(super) note: Option<String>,
    /// The audit log's name for it, and what else stands there.
    pub(super) event: &'static str,
    pub(super) extra: Value,
}

impl Request {
    pub(super) fn new(change: Change, event: &'static str) -> Self {
        Self {
            change,
            dry_run: false,
            refuse_running: false,
            note: None,
            event,
            extra: Value::Null,
        }
    }
}
