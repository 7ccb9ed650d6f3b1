//! `/api/v2/pools`.

use crate::{
    auth::{About, Op, Viewer},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    listing::Small,
    parts::App,
};
use axum::{Json, extract::State, http::StatusCode};
use gristmill_common::{ids::valid_name, spec::DEFAULT_POOL};
use gristmill_store::PoolRow;
use serde::Deserialize;
use serde_json::{Value, json};

/// `PoolResponse`.
async fn pool(app: &App, row: &PoolRow) -> Result<Value, ApiError> {
    let within = app.store.pool_use(&row.name).await?;
    let waiting = match row.include_deferred {
        true => within.deferred_slots,
        false => 0,
    };
    let occupied = row.occupied + waiting;
    Ok(json!({
        "name": row.name,
        "slots": row.slots,
        "description": row.description,
        "include_deferred": row.include_deferred,
        "occupied_slots": occupied,
        "running_slots": within.running,
        "queued_slots": within.queued,
        "scheduled_slots": within.scheduled,
        // What waits without a worker, whether it counts or not.
        "deferred_slots": within.deferred_slots,
        // -1: without end.
        "open_slots": if row.slots < 0 { -1 } else { (row.slots - occupied).max(0) },
        "team_name": null,
    }))
}

pub(super) async fn find(app: &App, name: &str) -> Result<PoolRow, ApiError> {
    let pools = app.store.pools().await?;
    pools
        .into_iter()
        .find(|row| row.name == name)
        .ok_or_else(|| ApiError::NotFound(format!("The Pool with name: `{name}` was not found")))
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const POOLS: Small = Small {
        name: "pools",
        patterns: &[("pool_name", "name")],
        texts: &[],
        times: &[],
        order: &[
            ("id", "name"),
            ("name", "name"),
            ("pool", "name"),
            ("slots", "slots"),
            ("description", "description"),
        ],
    };
    let rows = app.store.pools().await?;
    let names = rows
        .iter()
        .map(|row| json!({ "name": row.name, "slots": row.slots, "description": row.description }))
        .collect();
    let (page, total) = POOLS.page(&query, names)?;
    let mut pools = Vec::with_capacity(page.len());
    for named in page {
        if let Some(row) = rows.iter().find(|row| named["name"] == row.name.as_str()) {
            pools.push(pool(&app, row).await?);
        }
    }
    Ok(Json(json!({ "pools": pools, "total_entries": total })))
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At(name): At<String>,
) -> Result<Json<Value>, ApiError> {
    let row = find(&app, &name).await?;
    pool(&app, &row).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    slots: i64,
    description: Option<String>,
    #[serde(default)]
    include_deferred: bool,
    #[serde(rename = "team_name")]
    _team_name: Option<String>,
}

fn check(slots: i64) -> Result<(), ApiError> {
    if slots < -1 || slots > i64::from(i32::MAX) {
        let msg = "Input should be -1 (without end) or a number of slots".to_owned();
        return Err(ApiError::field(FieldError::body(
            "slots",
            msg,
            slots.into(),
        )));
    }
    Ok(())
}

pub(super) async fn create(
    Op(caller): Op,
    State(app): State<App>,
    Body(body): Body<Create>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    check(body.slots)?;
    if !valid_name(&body.name) {
        let msg = "a pool's name has 1 to 250 letters, digits, _ - and .".to_owned();
        return Err(ApiError::field(FieldError::body(
            "name",
            msg,
            body.name.into(),
        )));
    }
    if find(&app, &body.name).await.is_ok() {
        return Err(ApiError::Exists(format!(
            "pool {:?} exists already",
            body.name
        )));
    }
    let row = app
        .store
        .put_pool(
            &body.name,
            body.slots,
            body.description.as_deref(),
            body.include_deferred,
        )
        .await?;
    let extra = json!({ "pool": body.name, "slots": body.slots, "include_deferred": body.include_deferred });
    caller
        .audit(&*app.store, "create_pool", About::nothing(), extra)
        .await;
    Ok((StatusCode::CREATED, Json(pool(&app, &row).await?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    #[serde(alias = "name")]
    pool: Option<String>,
    slots: Option<i64>,
    description: Option<String>,
    include_deferred: Option<bool>,
    #[serde(rename = "team_name")]
    _team_name: Option<String>,
}

pub(super) async fn patch(
    Op(caller): Op,
    State(app): State<App>,
    At(name): At<String>,
    query: Query,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    let row = find(&app, &name).await?;
    let chosen = |field: &str| query.masks(field);
    if body.pool.is_some_and(|new| new != name) {
        return Err(ApiError::BadRequest(
            "Invalid body, pool name from request body doesn't match uri parameter".to_owned(),
        ));
    }
    let slots = body.slots.filter(|_| chosen("slots")).unwrap_or(row.slots);
    check(slots)?;
    let include_deferred = body
        .include_deferred
        .filter(|_| chosen("include_deferred"))
        .unwrap_or(row.include_deferred);
    let description = body
        .description
        .filter(|_| chosen("description"))
        .or(row.description);
    let row = app
        .store
        .put_pool(&name, slots, description.as_deref(), include_deferred)
        .await?;
    let extra = json!({ "pool": name, "slots": slots, "include_deferred": include_deferred });
    caller
        .audit(&*app.store, "edit_pool", About::nothing(), extra)
        .await;
    pool(&app, &row).await.map(Json)
}

pub(super) async fn delete(
    Op(caller): Op,
    State(app): State<App>,
    At(name): At<String>,
) -> Result<StatusCode, ApiError> {
    if name == DEFAULT_POOL {
        return Err(ApiError::BadRequest(
            "Default Pool can't be deleted".to_owned(),
        ));
    }
    find(&app, &name).await?;
    app.store.delete_pool(&name).await?;
    caller
        .audit(
            &*app.store,
            "delete_pool",
            About::nothing(),
            json!({ "pool": name }),
        )
        .await;
    Ok(StatusCode::NO_CONTENT)
}
