//! `/api/v2/assets`: assets, their lineage and events, and what waits for them.

use super::{lookup, trigger};
use crate::{
    auth::{About, User, Viewer},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    listing::{Small, time},
    parts::App,
    view,
};
use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::UNMAPPED,
    row::{RunRow, RunType},
};
use gristmill_store::{
    AssetEventFilter, AssetEventRow, AssetRow, AssetUse, NewAssetEvent, WaitingAsset,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Assets read at a time.
const CHUNK: i64 = 500;
/// Events that are looked through for some of them.
const MOST_EVENTS: i64 = 10_000;
/// Longest `extra` of an event.
const MAX_EXTRA: usize = 32 * 1024;

/// `AssetResponse`.
fn asset(row: &AssetRow) -> Value {
    let of = |kind: AssetUse| -> Vec<Value> {
        row.references
            .iter()
            .filter(|reference| reference.kind == kind)
            .map(|reference| {
                let mut value = json!({
                    "dag_id": reference.dag_id,
                    "created_at": view::time(reference.created_at),
                    "updated_at": view::time(reference.created_at),
                });
                if kind != AssetUse::Schedule {
                    value["task_id"] = reference.task_id.as_str().into();
                }
                value
            })
            .collect()
    };
    json!({
        "id": row.id,
        "name": row.name,
        "uri": row.uri,
        "group": row.group,
        "extra": row.extra,
        "created_at": view::time(row.created_at),
        "updated_at": view::time(row.updated_at),
        "scheduled_dags": of(AssetUse::Schedule),
        "producing_tasks": of(AssetUse::Outlet),
        "consuming_tasks": of(AssetUse::Inlet),
        "aliases": [],
        "watchers": [],
        "last_asset_event": row.last_event.map(|(id, at)| json!({ "id": id, "timestamp": view::time(at) })),
    })
}

/// `AssetEventResponse`; `runs` are those that events of this page made.
fn event(row: &AssetEventRow, runs: &[RunRow]) -> Value {
    let created: Vec<Value> = runs
        .iter()
        .filter(|run| row.runs.contains(&run.pk))
        .map(|run| {
            json!({
                "run_id": run.run_id,
                "dag_id": run.dag_id,
                "logical_date": view::time_or_null(run.logical_date),
                "start_date": view::time(run.started_at.unwrap_or(run.queued_at)),
                "end_date": view::time_or_null(run.ended_at),
                "state": run.state,
                "data_interval_start": view::time_or_null(run.data_interval_start),
                "data_interval_end": view::time_or_null(run.data_interval_end),
                "partition_key": null,
                // The run's id ends with that of the event that made its condition hold.
                "triggering": run.run_id.ends_with(&format!("_{}", row.id)),
            })
        })
        .collect();
    let source = row.source.as_ref();
    json!({
        "id": row.id,
        "asset_id": row.asset_id,
        "uri": row.uri,
        "name": row.name,
        "group": row.group,
        "extra": row.extra,
        "source_task_id": source.map(|s| &s.task_id),
        "source_dag_id": source.map(|s| &s.dag_id),
        "source_run_id": source.map(|s| &s.run_id),
        "source_map_index": source.map_or(UNMAPPED, |s| s.map_index),
        "created_dagruns": created,
        "timestamp": view::time(row.at),
        "partition_key": null,
    })
}

/// `QueuedEventResponse`.
fn queued_event(row: &WaitingAsset) -> Value {
    json!({
        "dag_id": row.dag_id,
        "dag_display_name": row.dag_id,
        "asset_id": row.asset_id,
        "created_at": view::time(row.at),
    })
}

/// Those from before a time, if one is given.
fn queued_events(query: &Query, rows: &[WaitingAsset]) -> Result<Json<Value>, ApiError> {
    let before = before(query)?;
    let events: Vec<Value> = rows
        .iter()
        .filter(|row| before.is_none_or(|before| row.at < before))
        .map(queued_event)
        .collect();
    Ok(Json(
        json!({ "total_entries": events.len(), "queued_events": events }),
    ))
}

fn before(query: &Query) -> Result<Option<DateTime<Utc>>, ApiError> {
    let Some(text) = query.text("before") else {
        return Ok(None);
    };
    let at = time(text).ok_or_else(|| {
        let msg = "Input should be a valid datetime".to_owned();
        ApiError::field(FieldError::query("before", msg, text))
    })?;
    Ok(Some(at))
}

async fn find(app: &App, id: i64) -> Result<AssetRow, ApiError> {
    app.store
        .asset(id)
        .await?
        .ok_or_else(|| ApiError::NotFound(format!("The Asset with ID: `{id}` was not found")))
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const ASSETS: Small = Small {
        name: "assets",
        patterns: &[("name", "name"), ("uri", "uri")],
        texts: &[],
        times: &[],
        order: &[
            ("id", "id"),
            ("name", "name"),
            ("uri", "uri"),
            ("created_at", "created_at"),
            ("updated_at", "updated_at"),
        ],
    };
    const JUDGED: [&str; 5] = [
        "name_pattern",
        "name_prefix_pattern",
        "uri_pattern",
        "uri_prefix_pattern",
        "order_by",
    ];
    let dag_ids = query.all("dag_ids");
    if JUDGED.iter().all(|name| query.text(name).is_none()) {
        let (limit, offset) = query.page()?;
        let page = app.store.assets(None, &dag_ids, limit, offset).await?;
        let rows: Vec<Value> = page.rows.iter().map(asset).collect();
        return Ok(Json(json!({ "assets": rows, "total_entries": page.total })));
    }
    let mut rows = Vec::new();
    loop {
        let read = rows.len() as i64;
        let page = app.store.assets(None, &dag_ids, CHUNK, read).await?;
        rows.extend(page.rows.iter().map(asset));
        if (page.rows.len() as i64) < CHUNK {
            return ASSETS.answer(&query, rows);
        }
    }
}

/// What an asset is called beside its name: nothing is called so here.
pub(super) async fn aliases(
    _: Viewer,
    State(_): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const ALIASES: Small = Small {
        name: "asset_aliases",
        patterns: &[("name", "name")],
        texts: &[],
        times: &[],
        order: &[("id", "id"), ("name", "name"), ("group", "group")],
    };
    ALIASES.answer(&query, Vec::new())
}

pub(super) async fn alias(
    _: Viewer,
    State(_): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    Err(ApiError::NotFound(format!(
        "The Asset Alias with ID: `{id}` was not found"
    )))
}

/// Makes a run of the DAG that updates the asset.
pub(super) async fn materialize(
    User(caller): User,
    State(app): State<App>,
    At(id): At<i64>,
    Body(body): Body<trigger::TriggerBody>,
) -> Result<Json<Value>, ApiError> {
    let asset = find(&app, id).await?;
    let mut makers: Vec<&str> = asset
        .references
        .iter()
        .filter(|reference| reference.kind == AssetUse::Outlet)
        .map(|reference| reference.dag_id.as_str())
        .collect();
    makers.dedup();
    let dag_id = match makers[..] {
        [one] => one.to_owned(),
        [] => {
            return Err(ApiError::NotFound(format!(
                "No DAG materializes asset with ID: {id}"
            )));
        }
        _ => {
            return Err(ApiError::Conflict(format!(
                "More than one DAG materializes asset with ID: {id}: {}; trigger one of them",
                makers.join(", ")
            )));
        }
    };
    if caller.dag_id.as_ref().is_some_and(|only| *only != dag_id) {
        return Err(ApiError::Forbidden);
    }
    let wish = trigger::Wish {
        by: "rest_api",
        run_type: RunType::AssetMaterialization,
        idempotency: None,
    };
    let accepted = trigger::accept(&app, &caller, &dag_id, body, wish).await?;
    Ok(Json(view::run::run(&accepted.row, &accepted.version, None)))
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At(id): At<i64>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(asset(&find(&app, id).await?)))
}

async fn page_of_events(app: &App, filter: &AssetEventFilter) -> Result<Json<Value>, ApiError> {
    let page = app.store.asset_events(filter).await?;
    let mut made: Vec<_> = page.rows.iter().flat_map(|row| row.runs.clone()).collect();
    made.sort_unstable();
    made.dedup();
    let runs = app.store.runs_by_pk(&made).await?;
    let rows: Vec<Value> = page.rows.iter().map(|row| event(row, &runs)).collect();
    Ok(Json(
        json!({ "asset_events": rows, "total_entries": page.total }),
    ))
}

pub(super) async fn events(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const EVENTS: Small = Small {
        name: "asset_events",
        patterns: &[("name", "name")],
        texts: &[],
        times: &[("timestamp", "timestamp")],
        order: &[
            ("id", "id"),
            ("timestamp", "timestamp"),
            ("asset_id", "asset_id"),
            ("source_dag_id", "source_dag_id"),
            ("source_task_id", "source_task_id"),
            ("source_run_id", "source_run_id"),
            ("source_map_index", "source_map_index"),
        ],
    };
    const JUDGED: [&str; 7] = [
        "name_pattern",
        "name_prefix_pattern",
        "timestamp_gte",
        "timestamp_gt",
        "timestamp_lte",
        "timestamp_lt",
        "order_by",
    ];
    query.refuse(&["source_map_index"])?;
    let (limit, offset) = query.page()?;
    let text = |name: &str| query.text(name).map(str::to_owned);
    let mut filter = AssetEventFilter {
        asset_id: query.parse("asset_id")?,
        source_dag_id: text("source_dag_id"),
        source_run_id: text("source_run_id"),
        source_task_id: text("source_task_id"),
        limit,
        offset,
        ..AssetEventFilter::default()
    };
    if JUDGED.iter().all(|name| query.text(name).is_none()) {
        return page_of_events(&app, &filter).await;
    }
    // By other filters and orders the newest events are judged here.
    (filter.limit, filter.offset) = (MOST_EVENTS, 0);
    let Json(mut all) = page_of_events(&app, &filter).await?;
    let rows = all["asset_events"].take();
    EVENTS.answer(&query, serde_json::from_value(rows).unwrap_or_default())
}

/// The events that made a run.
pub(super) async fn of_run(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let (limit, offset) = query.page()?;
    let run = lookup::run(&app, &dag_id, &run_id).await?;
    let filter = AssetEventFilter {
        run: Some(run.pk),
        limit,
        offset,
        ..AssetEventFilter::default()
    };
    page_of_events(&app, &filter).await
}

/// `CreateAssetEventsBody`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    asset_id: i64,
    #[serde(default)]
    extra: Map<String, Value>,
    partition_key: Option<String>,
    #[serde(rename = "access_control")]
    _access_control: Option<Value>,
}

pub(super) async fn create_event(
    User(caller): User,
    State(app): State<App>,
    Body(body): Body<Create>,
) -> Result<Json<Value>, ApiError> {
    if body.partition_key.is_some() {
        return Err(ApiError::NotYet(
            "this version has no partitioned assets yet; leave partition_key out".to_owned(),
        ));
    }
    let size = serde_json::to_vec(&body.extra).map_or(usize::MAX, |text| text.len());
    if size > MAX_EXTRA {
        let msg = format!("it has {size} bytes; at most {MAX_EXTRA} are kept of an event");
        return Err(ApiError::field(FieldError::body("extra", msg, Value::Null)));
    }
    let asset = find(&app, body.asset_id).await?;
    let mut extra = body.extra;
    extra.insert("from_rest_api".to_owned(), true.into());
    let new = NewAssetEvent {
        asset: asset.name.clone(),
        extra,
        source: None,
    };
    let id = app.store.create_asset_event(&new).await?;
    let told = json!({ "asset": asset.name, "event": id });
    caller
        .audit(&*app.store, "create_asset_event", About::nothing(), told)
        .await;
    let filter = AssetEventFilter {
        id: Some(id),
        limit: 1,
        ..AssetEventFilter::default()
    };
    let page = app.store.asset_events(&filter).await?;
    let row = page
        .rows
        .first()
        .ok_or_else(|| ApiError::Internal(format!("the asset event {id} is gone")))?;
    Ok(Json(event(row, &[])))
}

/// What waits for a DAG's next run.
pub(super) async fn queued_of_dag(
    _: Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    lookup::dag(&app, &dag_id).await?;
    let rows = app.store.queued_asset_events(Some(&dag_id), None).await?;
    queued_events(&query, &rows)
}

pub(super) async fn queued_of_dag_and_asset(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, asset_id)): At<(String, i64)>,
) -> Result<Json<Value>, ApiError> {
    let rows = app
        .store
        .queued_asset_events(Some(&dag_id), Some(asset_id))
        .await?;
    rows.first().map(queued_event).map(Json).ok_or_else(|| {
        ApiError::NotFound(format!(
            "Queued event with dag_id: `{dag_id}` and asset_id: `{asset_id}` was not found"
        ))
    })
}

/// What waits for an asset, of all DAGs.
pub(super) async fn queued_of_asset(
    _: Viewer,
    State(app): State<App>,
    At(asset_id): At<i64>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    find(&app, asset_id).await?;
    let rows = app.store.queued_asset_events(None, Some(asset_id)).await?;
    queued_events(&query, &rows)
}

async fn forget(
    caller: &crate::auth::Caller,
    app: &App,
    dag_id: Option<&str>,
    asset_id: Option<i64>,
) -> Result<StatusCode, ApiError> {
    let forgotten = app
        .store
        .delete_queued_asset_events(dag_id, asset_id)
        .await?;
    let about = dag_id.map_or_else(About::nothing, About::dag);
    let told = json!({ "asset_id": asset_id, "events": forgotten });
    caller
        .audit(&*app.store, "delete_queued_asset_events", about, told)
        .await;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn forget_of_dag(
    User(caller): User,
    State(app): State<App>,
    At(dag_id): At<String>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    query.refuse(&["before"])?;
    lookup::dag(&app, &dag_id).await?;
    forget(&caller, &app, Some(&dag_id), None).await
}

pub(super) async fn forget_of_dag_and_asset(
    User(caller): User,
    State(app): State<App>,
    At((dag_id, asset_id)): At<(String, i64)>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    query.refuse(&["before"])?;
    lookup::dag(&app, &dag_id).await?;
    forget(&caller, &app, Some(&dag_id), Some(asset_id)).await
}

pub(super) async fn forget_of_asset(
    User(caller): User,
    State(app): State<App>,
    At(asset_id): At<i64>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    query.refuse(&["before"])?;
    find(&app, asset_id).await?;
    forget(&caller, &app, None, Some(asset_id)).await
}
