//! `…/taskInstances`: listing, one, its tries.

use super::{
    dag_runs::{LIST, must_be_all},
    lookup::{self, ALL, Runs, TiPath},
};
use crate::{
    auth::Viewer,
    error::ApiError,
    extract::{At, Body, Query},
    listing::{Kind, Names, Turned, batch},
    parts::App,
    view,
};
use axum::{Json, extract::State};
use gristmill_common::{
    ids::{TiPk, UNMAPPED},
    row::{RunRow, TiRow},
    state::TaskState,
};
use gristmill_store::{
    Condition, Listing, NO_DURATION, Operand, Order, Test, TiField, TiFilter, no_time,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

const NAMES: Names<TiField> = Names {
    ranges: &[
        ("logical_date", TiField::LogicalDate, Kind::Time),
        ("run_after", TiField::RunAfter, Kind::Time),
        ("start_date", TiField::StartedAt, Kind::Time),
        ("end_date", TiField::EndedAt, Kind::Time),
        ("updated_at", TiField::UpdatedAt, Kind::Time),
        ("duration", TiField::Duration, Kind::Seconds),
    ],
    patterns: &[
        ("task_display_name", TiField::TaskId),
        ("dag_id", TiField::DagId),
        ("run_id", TiField::RunId),
        ("pool_name", TiField::Pool),
        ("queue_name", TiField::Queue),
        ("rendered_map_index", TiField::MapName),
    ],
    texts: &[
        ("pool", TiField::Pool),
        ("queue", TiField::Queue),
        ("dag_ids", TiField::DagId),
        ("dag_run_ids", TiField::RunId),
        ("task_ids", TiField::TaskId),
    ],
    numbers: &[
        ("map_index", TiField::MapIndex),
        ("try_number", TiField::TryNumber),
        ("version_number", TiField::VersionNumber),
    ],
    // There are no executors.
    never: &["executor"],
    order: &[
        ("id", TiField::Key),
        ("task_id", TiField::TaskId),
        ("dag_id", TiField::DagId),
        ("run_id", TiField::RunId),
        ("state", TiField::State),
        ("start_date", TiField::StartedAt),
        ("end_date", TiField::EndedAt),
        ("updated_at", TiField::UpdatedAt),
        ("duration", TiField::Duration),
        ("logical_date", TiField::LogicalDate),
        ("run_after", TiField::RunAfter),
        ("data_interval_start", TiField::DataIntervalStart),
        ("data_interval_end", TiField::DataIntervalEnd),
        ("map_index", TiField::MapIndex),
        ("rendered_map_index", TiField::MapName),
        ("try_number", TiField::TryNumber),
        ("queued_when", TiField::QueuedAt),
        ("queued_dttm", TiField::QueuedAt),
        ("scheduled_when", TiField::ScheduledAt),
        ("scheduled_dttm", TiField::ScheduledAt),
        ("pool", TiField::Pool),
        ("queue", TiField::Queue),
        ("priority_weight", TiField::PriorityWeight),
    ],
    key: TiField::Key,
};

/// What an instance is ordered by, as the store has it. Other fields are none that a listing can be ordered by.
fn sorted_by(field: TiField, row: &TiRow, run: &RunRow) -> Operand {
    let time = |at: Option<_>| Operand::Time(at.unwrap_or_else(no_time));
    match field {
        TiField::TaskId => Operand::Text(row.task_id.clone()),
        TiField::MapIndex => Operand::Int(row.map_index.into()),
        TiField::MapName => Operand::Text(row.map_name.clone().unwrap_or_default()),
        TiField::State => Operand::Text(row.state.to_string()),
        TiField::TryNumber => Operand::Int(row.try_number.into()),
        TiField::Queue => Operand::Text(row.queue.clone()),
        TiField::Pool => Operand::Text(row.pool.clone()),
        TiField::PriorityWeight => Operand::Int(row.priority_weight.into()),
        TiField::ScheduledAt => time(row.scheduled_at),
        TiField::QueuedAt => time(row.queued_at),
        TiField::StartedAt => time(row.started_at),
        TiField::EndedAt => time(row.ended_at),
        TiField::UpdatedAt => {
            let last = row.ended_at.or(row.started_at).or(row.queued_at);
            time(last.or(row.scheduled_at))
        }
        TiField::Duration => Operand::Int(match (row.started_at, row.ended_at) {
            (Some(from), Some(to)) => (to - from).num_microseconds().unwrap_or(NO_DURATION),
            _ => NO_DURATION,
        }),
        TiField::DagId => Operand::Text(run.dag_id.clone()),
        TiField::RunId => Operand::Text(run.run_id.clone()),
        TiField::LogicalDate => time(run.logical_date),
        TiField::RunAfter => time(Some(run.run_after)),
        TiField::DataIntervalStart => time(run.data_interval_start),
        TiField::DataIntervalEnd => time(run.data_interval_end),
        TiField::Key | TiField::VersionNumber => Operand::Int(row.pk.0),
    }
}

fn filter(query: &Query) -> Result<TiFilter, ApiError> {
    query.refuse(&[
        "operator",
        "operator_name_pattern",
        "operator_name_prefix_pattern",
    ])?;
    let known: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
    let (limit, offset) = query.page()?;
    let mut conditions = NAMES.conditions(query)?;
    if let Some(group) = query.text("task_group_id") {
        conditions.push(Condition {
            field: TiField::TaskId,
            test: Test::Prefix(vec![format!("{group}.")]),
        });
    }
    Ok(TiFilter {
        states: query.states("state", &known)?,
        task_id: query.text("task_id").map(str::to_owned),
        listing: Listing {
            conditions,
            order: NAMES.order(query)?,
            ..Listing::default()
        },
        limit,
        offset,
        ..TiFilter::default()
    })
}

/// Notes of instances, by key.
pub(super) async fn notes(app: &App, rows: &[TiRow]) -> Result<HashMap<TiPk, String>, ApiError> {
    let keys: Vec<TiPk> = rows.iter().map(|row| row.pk).collect();
    let notes = app.store.task_notes(&keys).await?;
    Ok(notes.into_iter().collect())
}

async fn listed(
    app: &App,
    mut filter: TiFilter,
    mut runs: Runs,
    turned: Option<Turned>,
) -> Result<Json<Value>, ApiError> {
    let limit = filter.limit;
    if let Some(turned) = &turned {
        if filter.listing.order.is_empty() {
            filter.listing.order.push(Order {
                field: TiField::Key,
                descending: false,
            });
        }
        turned.apply(&mut filter.listing);
        (filter.limit, filter.offset) = (limit + 1, 0);
    }
    let page = app.store.task_instances(&filter).await?;
    let mut rows = Vec::with_capacity(page.rows.len());
    for row in page.rows {
        let run = runs.get(app, row.run).await?;
        rows.push((row, run));
    }
    let around = turned.map(|turned| {
        let order = &filter.listing.order;
        turned.cut(&mut rows, limit, &app.secret, |(row, run)| {
            let values = order.iter().map(|order| sorted_by(order.field, row, run));
            values.collect()
        })
    });
    let keys: Vec<TiPk> = rows.iter().map(|(row, _)| row.pk).collect();
    let notes: HashMap<TiPk, String> = app.store.task_notes(&keys).await?.into_iter().collect();
    let mut seen = Vec::with_capacity(rows.len());
    for (row, run) in &rows {
        let version = lookup::version(app, run).await?;
        let mut value = view::task_instance::task_instance(row, run, &version);
        value["note"] = json!(notes.get(&row.pk));
        seen.push(value);
    }
    let mut body = json!({ "task_instances": seen, "total_entries": page.total });
    if let Some(around) = around {
        Turned::tell(&mut body, around);
    }
    Ok(Json(body))
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let mut filter = filter(&query)?;
    let turned = Turned::of("task_instances", &query, &app.secret)?;
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
    listed(&app, filter, runs, turned).await
}

/// `TaskInstancesBatchBody`: the same filters in a body, for more of them than fit into a query.
pub(super) async fn list_batch(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id, list)): At<(String, String, String)>,
    Body(body): Body<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    if list != LIST {
        return Err(ApiError::MethodNotAllowed);
    }
    must_be_all("dag_id", &dag_id)?;
    must_be_all("dag_run_id", &run_id)?;
    const KEYS: &[(&str, &str, batch::Shape)] = &[
        ("dag_ids", "dag_ids", batch::Shape::Texts),
        ("dag_run_ids", "dag_run_ids", batch::Shape::Texts),
        ("task_ids", "task_ids", batch::Shape::Texts),
        ("state", "state", batch::Shape::States),
        ("pool", "pool", batch::Shape::Texts),
        ("queue", "queue", batch::Shape::Texts),
        ("executor", "executor", batch::Shape::Texts),
    ];
    let query = batch::query(body, KEYS, NAMES.ranges)?;
    listed(&app, filter(&query)?, Runs::default(), None).await
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
    listed(&app, filter, Runs::with(run), None).await
}

async fn one(app: &App, path: &TiPath) -> Result<Json<Value>, ApiError> {
    let (run, row) = path.find(app).await?;
    let version = lookup::version(app, &run).await?;
    let mut value = view::task_instance::task_instance(&row, &run, &version);
    value["note"] = json!(notes(app, std::slice::from_ref(&row)).await?.get(&row.pk));
    Ok(Json(value))
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

/// Its ended tries, and the one that is out, oldest first.
async fn all_tries(app: &App, path: &TiPath) -> Result<Vec<Value>, ApiError> {
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
    Ok(tries)
}

async fn listed_tries(app: &App, path: &TiPath) -> Result<Json<Value>, ApiError> {
    let tries = all_tries(app, path).await?;
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
    listed_tries(&app, &path).await
}

pub(super) async fn mapped_tries(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
) -> Result<Json<Value>, ApiError> {
    listed_tries(&app, &path).await
}

/// The path of a try.
#[derive(Debug, Deserialize)]
pub(super) struct TryPath {
    dag_id: String,
    dag_run_id: String,
    task_id: String,
    #[serde(default = "lookup::unmapped")]
    map_index: i32,
    task_try_number: i32,
}

/// One try: `TaskInstanceHistoryResponse`.
pub(super) async fn one_try(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TryPath>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let number = path.task_try_number;
    let path = TiPath {
        dag_id: path.dag_id,
        dag_run_id: path.dag_run_id,
        task_id: path.task_id,
        map_index: query.parse("map_index")?.unwrap_or(path.map_index),
    };
    let tries = all_tries(&app, &path).await?;
    let found = tries.into_iter().find(|one| one["try_number"] == number);
    found.map(Json).ok_or_else(|| {
        ApiError::NotFound(format!(
            "The Task Instance with dag_id: `{}`, run_id: `{}`, task_id: `{}`, try_number: `{number}` and map_index: `{}` was not found",
            path.dag_id, path.dag_run_id, path.task_id, path.map_index
        ))
    })
}
