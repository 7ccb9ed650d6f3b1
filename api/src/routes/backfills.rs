//! `/api/v2/backfills`.

use crate::{
    auth::{About, User, Viewer},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    listing::Small,
    parts::App,
    view,
};
use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use gristmill_common::{ids::BackfillPk, params::check_params};
use gristmill_store::{
    BackfillFilter, BackfillPlan, BackfillRow, NewBackfill, Reprocess, StoreError,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Airflow's `max_active_runs` of a backfill that asks for none.
const MAX_ACTIVE_RUNS: i32 = 10;
/// Longest conf: it travels in the message of each task of each run.
const MAX_CONF: usize = 32 * 1024;

/// Backfills, newest first, that are put into another order.
const MOST: i64 = 10_000;

/// `BackfillPostBody`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    dag_id: String,
    from_date: DateTime<Utc>,
    to_date: DateTime<Utc>,
    #[serde(default)]
    run_backwards: bool,
    dag_run_conf: Option<Map<String, Value>>,
    #[serde(default)]
    reprocess_behavior: Reprocess,
    max_active_runs: Option<i32>,
    /// Runs are always of the newest version.
    #[serde(rename = "run_on_latest_version")]
    _run_on_latest_version: Option<bool>,
}

impl Create {
    async fn checked(self, app: &App) -> Result<NewBackfill, ApiError> {
        let dag = app
            .store
            .dag(&self.dag_id)
            .await?
            .ok_or_else(|| ApiError::NotFound(format!("Could not find dag {}", self.dag_id)))?;
        let version = app.versions.get(&*app.store, dag.version).await?;
        let conf = self.dag_run_conf.unwrap_or_default();
        let size = serde_json::to_vec(&conf).map_or(usize::MAX, |text| text.len());
        if size > MAX_CONF {
            return Err(ApiError::TooLarge(format!(
                "dag_run_conf has {size} bytes; it may have {MAX_CONF}: pass large data by reference"
            )));
        }
        if !version.spec.params.is_empty() {
            check_params(&version.spec, &conf).map_err(ApiError::BadParams)?;
        }
        let max_active_runs = self.max_active_runs.unwrap_or(MAX_ACTIVE_RUNS);
        if max_active_runs < 1 {
            let msg = "Input should be at least 1".to_owned();
            let error = FieldError::body("max_active_runs", msg, max_active_runs.into());
            return Err(ApiError::field(error));
        }
        Ok(NewBackfill {
            dag_id: self.dag_id,
            from_date: self.from_date,
            to_date: self.to_date,
            run_backwards: self.run_backwards,
            max_active_runs,
            reprocess: self.reprocess_behavior,
            conf,
        })
    }
}

/// What the request asks for cannot be filled in.
fn refused(error: StoreError, new: &NewBackfill) -> ApiError {
    match error {
        StoreError::Refused(why) => {
            let range = format!("{} to {}", new.from_date, new.to_date);
            ApiError::field(FieldError::body("from_date", why, range.into()))
        }
        StoreError::Exists { name, .. } => ApiError::Conflict(format!(
            "There is already a running backfill for dag {}: wait for the end of backfill {name}, or cancel it",
            new.dag_id
        )),
        other => other.into(),
    }
}

/// `BackfillResponse`, and how far it is.
fn backfill(row: &BackfillRow) -> Value {
    json!({
        "id": row.id,
        "dag_id": row.dag_id,
        "dag_display_name": row.dag_id,
        "from_date": view::time(row.from_date),
        "to_date": view::time(row.to_date),
        "dag_run_conf": row.conf,
        "is_paused": row.is_paused,
        "reprocess_behavior": row.reprocess,
        "max_active_runs": row.max_active_runs,
        "created_at": view::time(row.created_at),
        "completed_at": view::time_or_null(row.completed_at),
        "updated_at": view::time(row.updated_at),
        "run_backwards": row.run_backwards,
        "cancelled_at": view::time_or_null(row.cancelled_at),
        "left_out": row.left_out,
        "runs": {
            "queued": row.queued,
            "running": row.running,
            "success": row.success,
            "failed": row.failed,
        },
    })
}

async fn find(app: &App, id: BackfillPk) -> Result<BackfillRow, ApiError> {
    app.store
        .backfill(id)
        .await?
        .ok_or_else(|| ApiError::NotFound(format!("Backfill with id {id} was not found")))
}

/// One that can still be changed.
async fn active(app: &App, id: BackfillPk) -> Result<BackfillRow, ApiError> {
    let row = find(app, id).await?;
    if row.completed_at.is_some() {
        return Err(ApiError::Conflict(
            "Backfill is already completed.".to_owned(),
        ));
    }
    Ok(row)
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const BACKFILLS: Small = Small {
        name: "backfills",
        patterns: &[],
        texts: &[],
        times: &[],
        order: &[
            ("id", "id"),
            ("dag_id", "dag_id"),
            ("from_date", "from_date"),
            ("to_date", "to_date"),
            ("created_at", "created_at"),
            ("updated_at", "updated_at"),
            ("completed_at", "completed_at"),
            ("is_paused", "is_paused"),
            ("max_active_runs", "max_active_runs"),
        ],
    };
    let (limit, offset) = query.page()?;
    let mut filter = BackfillFilter {
        dag_id: query.text("dag_id").map(str::to_owned),
        active: query.flag("active")?.unwrap_or(false),
        limit,
        offset,
    };
    let ordered = query.text("order_by").is_some();
    if ordered {
        (filter.limit, filter.offset) = (MOST, 0);
    }
    let page = app.store.backfills(&filter).await?;
    let rows: Vec<Value> = page.rows.iter().map(backfill).collect();
    if ordered {
        return BACKFILLS.answer(&query, rows);
    }
    Ok(Json(
        json!({ "backfills": rows, "total_entries": page.total }),
    ))
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(backfill(&find(&app, BackfillPk(id)).await?)))
}

pub(super) async fn create(
    User(caller): User,
    State(app): State<App>,
    Body(body): Body<Create>,
) -> Result<Json<Value>, ApiError> {
    let new = body.checked(&app).await?;
    let plan = app
        .store
        .create_backfill(&new, false)
        .await
        .map_err(|error| refused(error, &new))?;
    let id = plan
        .id
        .ok_or_else(|| ApiError::Internal("a backfill was made without an id".to_owned()))?;
    let extra = json!({ "backfill": id, "runs": plan.runs.len(), "left_out": plan.left_out.len() });
    caller
        .audit(
            &*app.store,
            "create_backfill",
            About::dag(&new.dag_id),
            extra,
        )
        .await;
    Ok(Json(backfill(&find(&app, id).await?)))
}

/// The dates of the runs that would be made, in their order, and those that would be left out.
pub(super) async fn dry_run(
    _: Viewer,
    State(app): State<App>,
    Body(body): Body<Create>,
) -> Result<Json<Value>, ApiError> {
    let new = body.checked(&app).await?;
    let BackfillPlan { runs, left_out, .. } = app
        .store
        .create_backfill(&new, true)
        .await
        .map_err(|error| refused(error, &new))?;
    let rows: Vec<Value> = runs
        .iter()
        .map(|run| {
            json!({
                "logical_date": view::time(run.logical_date),
                "partition_key": null,
                "partition_date": null,
                "data_interval_start": view::time(run.interval_start),
                "data_interval_end": view::time(run.interval_end),
            })
        })
        .collect();
    let left_out: Vec<Value> = left_out.into_iter().map(view::time).collect();
    Ok(Json(
        json!({ "total_entries": rows.len(), "backfills": rows, "left_out": left_out }),
    ))
}

async fn set_paused(
    caller: &crate::auth::Caller,
    app: &App,
    id: i64,
    paused: bool,
) -> Result<Json<Value>, ApiError> {
    let id = BackfillPk(id);
    let row = active(app, id).await?;
    app.store.pause_backfill(id, paused).await?;
    let event = if paused {
        "pause_backfill"
    } else {
        "unpause_backfill"
    };
    caller
        .audit(
            &*app.store,
            event,
            About::dag(&row.dag_id),
            json!({ "backfill": id }),
        )
        .await;
    Ok(Json(backfill(&find(app, id).await?)))
}

pub(super) async fn pause(
    User(caller): User,
    State(app): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    set_paused(&caller, &app, id, true).await
}

pub(super) async fn unpause(
    User(caller): User,
    State(app): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    set_paused(&caller, &app, id, false).await
}

pub(super) async fn cancel(
    User(caller): User,
    State(app): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    let id = BackfillPk(id);
    let row = active(&app, id).await?;
    let cancelled = app.store.cancel_backfill(id).await?;
    let extra = json!({ "backfill": id, "cancelled_runs": cancelled });
    caller
        .audit(
            &*app.store,
            "cancel_backfill",
            About::dag(&row.dag_id),
            extra,
        )
        .await;
    Ok(Json(backfill(&find(&app, id).await?)))
}
