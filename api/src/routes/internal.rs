//! `/internal/v1`: for workers. A run's own token reads the durable copies of that run's XComs, and what earlier runs of its DAG left in
//! a cache, and nothing else.

use super::{lookup, xcoms};
use crate::{
    auth::bearer,
    error::{ApiError, FieldError},
    extract::{At, Query},
    parts::App,
};
use axum::Json;
use axum::{
    body::Bytes,
    extract::{FromRequestParts, State},
    http::request::Parts,
    response::Response,
};
use chrono::{TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use gristmill_common::{
    ids::RunPk,
    row::{RETURN_VALUE, XcomValue},
    spec::CACHE_XCOM,
};
use serde_json::{Value, json};

/// The run that the request's token is for.
#[derive(Debug)]
pub(super) struct RunToken(i64);

impl FromRequestParts<App> for RunToken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let token = bearer(parts).ok_or(ApiError::NotAuthenticated("Not authenticated"))?;
        let run = app.secret.verify_run_token(token);
        run.map(Self)
            .ok_or(ApiError::NotAuthenticated("Not authenticated"))
    }
}

/// The value of a task's XCom, null if there is none; of a mapped task the list of its instances' values in their order,
/// or with `map_index` the value of one.
pub(super) async fn xcoms(
    RunToken(allowed): RunToken,
    State(app): State<App>,
    At(run): At<i64>,
    query: Query,
) -> Result<Response, ApiError> {
    if run != allowed {
        return Err(ApiError::Forbidden);
    }
    let task_id = query.text("task_id").ok_or_else(|| {
        ApiError::field(FieldError::query(
            "task_id",
            "Field required".to_owned(),
            "",
        ))
    })?;
    let key = query.text("key").unwrap_or(RETURN_VALUE);
    let run = app.store.run_by_pk(RunPk(run)).await?;
    let run =
        run.ok_or_else(|| ApiError::NotFound("the run does not exist any more".to_owned()))?;
    let version = lookup::version(&app, &run).await?;
    let idx = version
        .spec
        .idx(task_id)
        .ok_or_else(|| ApiError::NotFound(format!("Task with id {task_id} was not found")))?;
    let is_mapped = version
        .spec
        .task(idx)
        .is_some_and(|task| version.spec.mapping(task).is_some());
    let mut rows = app.store.xcoms_of_task(run.pk, idx, key).await?;
    let index: Option<i32> = query.parse("map_index")?;
    rows.retain(|row| index.is_none_or(|index| row.map_index == index));
    if !is_mapped || index.is_some() {
        let value = rows.into_iter().next().map(|row| row.value);
        return Ok(xcoms::json_stream(match value {
            Some(value) => xcoms::value_stream(&app.objects, value).await?,
            None => stream::iter([Ok(Bytes::from_static(b"null"))]).boxed(),
        }));
    }
    // Value by value: together they may be larger than what fits here.
    let objects = app.objects.clone();
    let values = stream::iter(rows.into_iter().enumerate())
        .then(move |(i, row)| {
            let objects = objects.clone();
            async move {
                let comma = stream::iter((i > 0).then(|| Ok(Bytes::from_static(b","))));
                let value = xcoms::value_stream(&objects, row.value).await?;
                Ok::<_, gristmill_objects::ObjectError>(comma.chain(value))
            }
        })
        .try_flatten();
    let all = stream::iter([Ok(Bytes::from_static(b"["))])
        .chain(values)
        .chain(stream::iter([Ok(Bytes::from_static(b"]"))]));
    Ok(xcoms::json_stream(all.boxed()))
}

/// The newest success of the run's DAG that noted this key and is not older than `ttl_ms`, with its XComs: values, or the keys
/// of the objects that hold them. Null if there is none.
pub(super) async fn cache(
    RunToken(allowed): RunToken,
    State(app): State<App>,
    At(run): At<i64>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    if run != allowed {
        return Err(ApiError::Forbidden);
    }
    let missing = |name| ApiError::field(FieldError::query(name, "Field required".to_owned(), ""));
    let key = query
        .text("key")
        .filter(|key| key.starts_with(CACHE_XCOM))
        .ok_or_else(|| missing("key"))?;
    let ttl: i64 = query.parse("ttl_ms")?.ok_or_else(|| missing("ttl_ms"))?;
    let oldest =
        TimeDelta::try_milliseconds(ttl).and_then(|ttl| Utc::now().checked_sub_signed(ttl));
    let Some(hit) = app
        .store
        .cached_result(key, oldest.unwrap_or_default())
        .await?
    else {
        return Ok(Json(Value::Null));
    };
    // The key names its DAG by a hash only.
    let run = app.store.run_by_pk(RunPk(run)).await?;
    if run.is_none_or(|run| run.dag_id != hit.dag_id) {
        return Ok(Json(Value::Null));
    }
    let rows = app.store.xcoms(hit.run, Some(hit.ti), None).await?;
    let xcoms: Vec<Value> = rows
        .into_iter()
        .map(|row| match row.value {
            XcomValue::Inline(value) => json!({"key": row.key, "value": value}),
            XcomValue::Object { key, size } => {
                json!({"key": row.key, "object": key, "size": size})
            }
        })
        .collect();
    Ok(Json(json!({
        "dag_id": hit.dag_id,
        "run_id": hit.run_id,
        "task_id": hit.task_id,
        "map_index": hit.map_index,
        "ended_at": hit.ended_at,
        "xcoms": xcoms,
    })))
}
