//! `/api/v2/dags/{dag_id}/dagRuns`: listing, one, deleting.

use super::lookup::{self, ALL};
use crate::{
    auth::{About, Caller, User, Viewer},
    error::ApiError,
    extract::{At, Body, Query},
    listing::{Kind, Names, Turned, batch},
    parts::App,
    view,
};
use axum::{Json, extract::State, http::StatusCode};
use gristmill_common::row::RunRow;
use gristmill_store::{
    Condition, Listing, NO_DURATION, Operand, Order, RunField, RunFilter, Test, no_time,
};
use serde_json::{Map, Value, json};

/// The last part of the paths of these operations, where others have a name.
pub(super) const LIST: &str = "list";
const STATES: [&str; 4] = ["queued", "running", "success", "failed"];

pub(super) const NAMES: Names<RunField> = Names {
    ranges: &[
        ("logical_date", RunField::LogicalDate, Kind::Time),
        ("run_after", RunField::RunAfter, Kind::Time),
        ("start_date", RunField::StartedAt, Kind::Time),
        ("end_date", RunField::EndedAt, Kind::Time),
        ("updated_at", RunField::UpdatedAt, Kind::Time),
        ("duration", RunField::Duration, Kind::Seconds),
    ],
    patterns: &[("run_id", RunField::RunId), ("dag_id", RunField::DagId)],
    texts: &[
        ("run_type", RunField::RunType),
        ("bundle_version", RunField::Bundle),
        ("dag_ids", RunField::DagId),
    ],
    numbers: &[("dag_version", RunField::VersionNumber)],
    // No run has a partition, nor is it kept who triggered it or which assets it feeds.
    never: &[
        "partition_date_gte",
        "partition_date_lte",
        "partition_key_pattern",
        "partition_key_prefix_pattern",
        "triggering_user_name_pattern",
        "triggering_user_name_prefix_pattern",
        "consuming_asset_pattern",
    ],
    order: &[
        ("id", RunField::Key),
        ("dag_id", RunField::DagId),
        ("run_id", RunField::RunId),
        ("dag_run_id", RunField::RunId),
        ("state", RunField::State),
        ("run_type", RunField::RunType),
        ("logical_date", RunField::LogicalDate),
        ("run_after", RunField::RunAfter),
        ("start_date", RunField::StartedAt),
        ("end_date", RunField::EndedAt),
        ("updated_at", RunField::UpdatedAt),
        ("queued_at", RunField::QueuedAt),
        ("duration", RunField::Duration),
        ("data_interval_start", RunField::DataIntervalStart),
        ("data_interval_end", RunField::DataIntervalEnd),
    ],
    key: RunField::Key,
};

/// What a run is ordered by, as the store has it. Other fields are none that a listing can be ordered by.
fn sorted_by(field: RunField, row: &RunRow) -> Operand {
    let time = |at: Option<_>| Operand::Time(at.unwrap_or_else(no_time));
    match field {
        RunField::DagId => Operand::Text(row.dag_id.clone()),
        RunField::RunId => Operand::Text(row.run_id.clone()),
        RunField::State => Operand::Text(row.state.to_string()),
        RunField::RunType => Operand::Text(row.run_type.to_string()),
        RunField::LogicalDate => time(row.logical_date),
        RunField::DataIntervalStart => time(row.data_interval_start),
        RunField::DataIntervalEnd => time(row.data_interval_end),
        RunField::RunAfter => time(Some(row.run_after)),
        RunField::QueuedAt => time(Some(row.queued_at)),
        RunField::StartedAt => time(row.started_at),
        RunField::EndedAt => time(row.ended_at),
        RunField::UpdatedAt => time(row.ended_at.or(row.started_at).or(Some(row.queued_at))),
        RunField::Duration => Operand::Int(match (row.started_at, row.ended_at) {
            (Some(from), Some(to)) => (to - from).num_microseconds().unwrap_or(NO_DURATION),
            _ => NO_DURATION,
        }),
        RunField::Key | RunField::VersionNumber | RunField::Bundle | RunField::Conf => {
            Operand::Int(row.pk.0)
        }
    }
}

/// What the query asks for, of one DAG or of all.
pub(super) fn filter(dag_id: Option<String>, query: &Query) -> Result<RunFilter, ApiError> {
    let (limit, offset) = query.page()?;
    let mut conditions = NAMES.conditions(query)?;
    if let Some(text) = query.text("conf_contains") {
        conditions.push(Condition {
            field: RunField::Conf,
            test: Test::Like(vec![text.to_owned()]),
        });
    }
    let listing = Listing {
        conditions,
        order: NAMES.order(query)?,
        ..Listing::default()
    };
    Ok(RunFilter {
        dag_id,
        states: query.states("state", &STATES)?,
        run_id: query.text("run_id").map(str::to_owned),
        listing,
        limit,
        offset,
    })
}

async fn listed(app: &App, dag_id: String, query: &Query) -> Result<Json<Value>, ApiError> {
    let dag_id = (dag_id != ALL).then_some(dag_id);
    if let Some(dag_id) = &dag_id {
        lookup::dag(app, dag_id).await?;
    }
    let mut filter = filter(dag_id, query)?;
    let turned = Turned::of("dag_runs", query, &app.secret)?;
    let limit = filter.limit;
    if let Some(turned) = &turned {
        if filter.listing.order.is_empty() {
            filter.listing.order.push(Order {
                field: RunField::Key,
                descending: true,
            });
        }
        turned.apply(&mut filter.listing);
        (filter.limit, filter.offset) = (limit + 1, 0);
    }
    let mut page = app.store.runs(&filter).await?;
    let around = turned.map(|turned| {
        let order = &filter.listing.order;
        turned.cut(&mut page.rows, limit, &app.secret, |row| {
            let values = order.iter().map(|order| sorted_by(order.field, row));
            values.collect()
        })
    });
    let mut runs = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        let version = lookup::version(app, row).await?;
        runs.push(view::run::run(row, &version, None));
    }
    let mut body = json!({ "dag_runs": runs, "total_entries": page.total });
    if let Some(around) = around {
        Turned::tell(&mut body, around);
    }
    Ok(Json(body))
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    listed(&app, dag_id, &query).await
}

/// `DAGRunsBatchBody`: the same filters in a body, for more of them than fit into a query.
pub(super) async fn list_batch(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, list)): At<(String, String)>,
    Body(body): Body<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    if list != LIST {
        return Err(ApiError::MethodNotAllowed);
    }
    must_be_all("dag_id", &dag_id)?;
    const KEYS: &[(&str, &str, batch::Shape)] = &[
        ("dag_ids", "dag_ids", batch::Shape::Texts),
        ("states", "state", batch::Shape::States),
        ("conf_contains", "conf_contains", batch::Shape::Text),
    ];
    let query = batch::query(body, KEYS, NAMES.ranges)?;
    listed(&app, dag_id, &query).await
}

/// These operations are about everything: their paths have `~`.
pub(super) fn must_be_all(name: &str, value: &str) -> Result<(), ApiError> {
    if value == ALL {
        return Ok(());
    }
    Err(ApiError::field(crate::error::FieldError {
        kind: "literal_error",
        loc: vec!["path".into(), name.into()],
        msg: "Input should be '~'; name DAGs and runs in the body".to_owned(),
        input: value.into(),
    }))
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
    delete_one(&app, &caller, &dag_id, &run_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn delete_one(
    app: &App,
    caller: &Caller,
    dag_id: &str,
    run_id: &str,
) -> Result<(), ApiError> {
    let row = lookup::run(app, dag_id, run_id).await?;
    app.store.delete_run(row.pk).await?;
    let about = About::run(dag_id, run_id);
    caller
        .audit(&*app.store, "delete_dag_run", about, Value::Null)
        .await;
    Ok(())
}
