//! `…/hitlDetails`: what is asked of people, in Airflow's shapes, and their answers.

use super::lookup::{self, ALL, Runs, TiPath};
use crate::{
    auth::{About, Caller, Role, User, Viewer},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    listing::Small,
    parts::App,
    view,
};
use axum::{Json, extract::State};
use gristmill_common::{ids::TiPk, state::TaskState};
use gristmill_store::{Answer, ApprovalFilter, ApprovalRow};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Details that are judged one by one.
const MOST: i64 = 10_000;

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let (limit, offset) = query.page()?;
    let mut filter = ApprovalFilter {
        answered: query.flag("response_received")?,
        limit,
        offset,
        ..ApprovalFilter::default()
    };
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
    const DETAILS: Small = Small {
        name: "hitl_details",
        patterns: &[("dag_id", "dag_id"), ("task_id", "task_id")],
        texts: &[
            ("task_id", "task_id"),
            ("state", "state"),
            ("responded_by_user_id", "responded_by"),
            ("responded_by_user_name", "responded_by"),
        ],
        times: &[("created_at", "created_at")],
        order: &[
            ("ti_id", "ti_id"),
            ("subject", "subject"),
            ("responded_at", "responded_at"),
            ("created_at", "created_at"),
            ("dag_id", "dag_id"),
            ("run_id", "run_id"),
            ("task_display_name", "task_id"),
            ("task_instance_operator", "operator"),
            ("run_after", "run_after"),
        ],
    };
    query.refuse(&["subject_search", "body_search", "map_index"])?;
    let judged = DETAILS.asks(&query);
    if judged {
        (filter.limit, filter.offset) = (MOST, 0);
    }
    let page = app.store.approvals(&filter).await?;
    let mut details = Vec::with_capacity(page.rows.len());
    for asked in &page.rows {
        let run = runs.get(&app, asked.run).await?;
        let version = lookup::version(&app, &run).await?;
        let row = app
            .store
            .task_instance(asked.run, &asked.task_id, asked.map_index)
            .await?;
        // Deleted since it was listed.
        let Some(row) = row else { continue };
        details.push(view::approval::detail(asked, &row, &run, &version));
    }
    if !judged {
        return Ok(Json(
            json!({ "hitl_details": details, "total_entries": page.total }),
        ));
    }
    // What a detail is judged by lies deeper in it: beside it for as long as it takes.
    let flat = details.into_iter().map(|detail| {
        let ti = &detail["task_instance"];
        json!({ "ti_id": ti["id"], "dag_id": ti["dag_id"], "run_id": ti["dag_run_id"], "task_id": ti["task_id"],
            "state": ti["state"], "operator": ti["operator"], "run_after": ti["run_after"],
            "subject": detail["subject"], "responded_at": detail["responded_at"],
            "responded_by": detail["responded_by_user"]["id"], "created_at": detail["created_at"], "detail": detail })
    });
    let (rows, total) = DETAILS.page(&query, flat.collect())?;
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|mut row| row["detail"].take())
        .collect();
    Ok(Json(
        json!({ "hitl_details": rows, "total_entries": total }),
    ))
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
) -> Result<Json<Value>, ApiError> {
    let (run, row) = path.find(&app).await?;
    let asked = newest(&app, &path, row.pk).await?;
    let version = lookup::version(&app, &run).await?;
    Ok(Json(view::approval::detail(&asked, &row, &run, &version)))
}

/// The path of what was asked in one try.
#[derive(Debug, Deserialize)]
pub(super) struct TryPath {
    dag_id: String,
    dag_run_id: String,
    task_id: String,
    map_index: i32,
    try_number: i32,
}

/// What was asked in one try: `HITLDetailHistory`.
pub(super) async fn one_try(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TryPath>,
) -> Result<Json<Value>, ApiError> {
    let number = path.try_number;
    let path = TiPath {
        dag_id: path.dag_id,
        dag_run_id: path.dag_run_id,
        task_id: path.task_id,
        map_index: path.map_index,
    };
    let (run, row) = path.find(&app).await?;
    let filter = ApprovalFilter {
        ti: Some(row.pk),
        limit: MOST,
        ..ApprovalFilter::default()
    };
    let asked = app.store.approvals(&filter).await?.rows;
    let asked = asked.into_iter().find(|asked| asked.try_number == number);
    let asked = asked.ok_or_else(|| {
        ApiError::NotFound(format!(
            "Human-in-the-loop detail does not exist for try {number} of task instance {} of run {}",
            path.task_id, path.dag_run_id
        ))
    })?;
    let version = lookup::version(&app, &run).await?;
    let mut detail = view::approval::detail(&asked, &row, &run, &version);
    let ended = app.store.attempts(row.pk).await?;
    if let Some(attempt) = ended.iter().find(|attempt| attempt.try_number == number) {
        detail["task_instance"] = view::task_instance::attempt(attempt, &row, &run, &version);
    }
    Ok(Json(detail))
}

/// What was asked of an instance last.
async fn newest(app: &App, path: &TiPath, ti: TiPk) -> Result<ApprovalRow, ApiError> {
    let filter = ApprovalFilter {
        ti: Some(ti),
        limit: 1,
        ..ApprovalFilter::default()
    };
    let found = app.store.approvals(&filter).await?.rows.pop();
    found.ok_or_else(|| {
        ApiError::NotFound(format!(
            "Human-in-the-loop detail does not exist for task instance {} of run {}",
            path.task_id, path.dag_run_id
        ))
    })
}

/// `UpdateHITLDetailPayload`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    chosen_options: Vec<String>,
    #[serde(default)]
    params_input: Map<String, Value>,
}

pub(super) async fn answer(
    User(caller): User,
    State(app): State<App>,
    At(path): At<TiPath>,
    Body(body): Body<Update>,
) -> Result<Json<Value>, ApiError> {
    let (run, row) = path.find(&app).await?;
    let asked = newest(&app, &path, row.pk).await?;
    if !may_answer(&caller, &asked.who) {
        return Err(ApiError::Forbidden);
    }
    if asked.answer.is_some() || row.state != TaskState::AwaitingInput {
        let by = asked
            .answered_by
            .map_or_else(String::new, |by| format!("; it was answered by {by}"));
        return Err(ApiError::Conflict(format!(
            "{} of run {} awaits no answer: it is {}{by}",
            path.task_id, path.dag_run_id, row.state
        )));
    }
    if !body.params_input.is_empty() {
        return Err(ApiError::field(FieldError::body(
            "params_input",
            "an approval takes no parameters".to_owned(),
            Value::Object(body.params_input),
        )));
    }
    let option = match body.chosen_options.as_slice() {
        [one] if asked.options.contains(one) => one.clone(),
        _ => {
            let msg = format!("choose exactly one of: {}", asked.options.join(", "));
            return Err(ApiError::field(FieldError::body(
                "chosen_options",
                msg,
                json!(body.chosen_options),
            )));
        }
    };
    let about = About::run(&path.dag_id, &path.dag_run_id);
    let extra = json!({ "map_index": path.map_index, "chosen_options": [option] });
    let mut audit = caller.entry(app.store.now(), "answer_approval", about, extra);
    audit.task_id = Some(path.task_id.clone());
    app.store
        .answer(&Answer {
            run: run.pk,
            ti: row.pk,
            option,
            by: caller.name.clone(),
            audit: Some(audit),
        })
        .await?;
    let asked = newest(&app, &path, row.pk).await?;
    Ok(Json(view::approval::response(&asked)))
}

/// Whether a caller is among those named: by name, or by having at least a role that is named.
fn may_answer(caller: &Caller, who: &[String]) -> bool {
    who.iter().any(|name| {
        *name == caller.name || name.parse::<Role>().is_ok_and(|role| caller.role >= role)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_roles_may_answer() {
        let caller = |name: &str, role| Caller {
            name: name.to_owned(),
            role,
            dag_id: None,
        };
        let may = |name: &str, role, who: &[&str]| {
            let who: Vec<String> = who.iter().map(|w| (*w).to_owned()).collect();
            may_answer(&caller(name, role), &who)
        };
        assert!(may("ann", Role::User, &["ann"]));
        assert!(!may("ben", Role::User, &["ann"]));
        assert!(!may("ben", Role::User, &["op"]));
        assert!(may("ben", Role::Op, &["op"]) && may("ben", Role::Admin, &["ann", "op"]));
        assert!(!may("ben", Role::Admin, &["ann"]));
        assert!(!may("ben", Role::Admin, &[]));
    }
}
