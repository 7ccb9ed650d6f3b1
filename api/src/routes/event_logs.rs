//! `/api/v2/eventLogs`, the audit log, and `/api/v2/importErrors`.

use crate::{
    auth::Viewer,
    error::{ApiError, FieldError},
    extract::{At, Query},
    listing::{Names, Small, time},
    parts::App,
    view,
};
use axum::{Json, extract::State};
use gristmill_store::{
    AuditField, AuditFilter, AuditRow, Comparison, Condition, ImportErrorRow, Listing, Operand,
    Test,
};
use serde_json::{Value, json};

const NAMES: Names<AuditField> = Names {
    ranges: &[],
    patterns: &[
        ("dag_id", AuditField::DagId),
        ("task_id", AuditField::TaskId),
        ("run_id", AuditField::RunId),
        ("owner", AuditField::Actor),
        ("event", AuditField::Event),
    ],
    texts: &[
        ("dag_id", AuditField::DagId),
        ("task_id", AuditField::TaskId),
        ("run_id", AuditField::RunId),
        ("owner", AuditField::Actor),
        ("event", AuditField::Event),
        ("included_events", AuditField::Event),
    ],
    numbers: &[],
    // Entries are of tasks, not of single instances of them.
    never: &["map_index", "try_number"],
    order: &[
        ("id", AuditField::Key),
        ("event_log_id", AuditField::Key),
        ("when", AuditField::At),
        ("dttm", AuditField::At),
        ("event", AuditField::Event),
        ("owner", AuditField::Actor),
        ("dag_id", AuditField::DagId),
        ("task_id", AuditField::TaskId),
        ("run_id", AuditField::RunId),
    ],
    key: AuditField::Key,
};

/// `EventLogResponse`.
fn entry((id, row): &(i64, AuditRow)) -> Value {
    json!({
        "event_log_id": id,
        "when": view::time(row.at),
        "event": row.event,
        "owner": row.actor,
        "dag_id": row.dag_id,
        "dag_display_name": row.dag_id,
        "run_id": row.run_id,
        "task_id": row.task_id,
        "task_display_name": row.task_id,
        "map_index": null,
        "try_number": null,
        "logical_date": null,
        "extra": (!row.extra.is_null()).then(|| row.extra.to_string()),
    })
}

fn filter(query: &Query) -> Result<AuditFilter, ApiError> {
    let (limit, offset) = query.page()?;
    let mut conditions = NAMES.conditions(query)?;
    let bounds = [("after", Comparison::Greater), ("before", Comparison::Less)];
    for (name, comparison) in bounds {
        if let Some(text) = query.text(name) {
            let at = time(text).ok_or_else(|| {
                let msg = "Input should be a valid datetime".to_owned();
                ApiError::field(FieldError::query(name, msg, text))
            })?;
            let test = Test::Compare(comparison, Operand::Time(at));
            conditions.push(Condition {
                field: AuditField::At,
                test,
            });
        }
    }
    let excluded = query.all("excluded_events");
    if !excluded.is_empty() {
        conditions.push(Condition {
            field: AuditField::Event,
            test: Test::NoneOf(excluded.into_iter().map(Operand::Text).collect()),
        });
    }
    Ok(AuditFilter {
        listing: Listing {
            conditions,
            order: NAMES.order(query)?,
            ..Listing::default()
        },
        limit,
        offset,
    })
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let page = app.store.audit_entries(&filter(&query)?).await?;
    let entries: Vec<Value> = page.rows.iter().map(entry).collect();
    Ok(Json(
        json!({ "event_logs": entries, "total_entries": page.total }),
    ))
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    let filter = AuditFilter {
        listing: Listing {
            conditions: vec![Condition {
                field: AuditField::Key,
                test: Test::OneOf(vec![Operand::Int(id)]),
            }],
            ..Listing::default()
        },
        limit: 1,
        offset: 0,
    };
    let page = app.store.audit_entries(&filter).await?;
    page.rows
        .first()
        .map(|found| Json(entry(found)))
        .ok_or_else(|| ApiError::NotFound(format!("The Event Log with id: `{id}` not found")))
}

/// `ImportErrorResponse`.
fn import_error(row: &ImportErrorRow) -> Value {
    json!({
        "import_error_id": row.id,
        "timestamp": view::time(row.at),
        "filename": row.filename,
        "bundle_name": "dags",
        "stack_trace": row.error,
    })
}

pub(super) async fn import_errors(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const ERRORS: Small = Small {
        name: "import_errors",
        patterns: &[("filename", "filename")],
        texts: &[("filename", "filename"), ("bundle_name", "bundle_name")],
        times: &[],
        order: &[
            ("id", "import_error_id"),
            ("import_error_id", "import_error_id"),
            ("timestamp", "timestamp"),
            ("filename", "filename"),
            ("bundle_name", "bundle_name"),
            ("stacktrace", "stack_trace"),
        ],
    };
    let rows = app.store.import_errors().await?;
    ERRORS.answer(&query, rows.iter().map(import_error).collect())
}

pub(super) async fn one_import_error(
    _: Viewer,
    State(app): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    let rows = app.store.import_errors().await?;
    rows.iter()
        .find(|row| row.id == id)
        .map(|row| Json(import_error(row)))
        .ok_or_else(|| {
            ApiError::NotFound(format!(
                "The ImportError with import_error_id: `{id}` was not found"
            ))
        })
}
