//! `/api/v2/parallelism`: how many task instances of the whole deployment may hold slots at one time.

use crate::{
    auth::{About, Op, Viewer},
    error::{ApiError, FieldError},
    extract::Body,
    parts::App,
};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

async fn answer(app: &App) -> Result<Json<Value>, ApiError> {
    let (cap, active) = app.store.parallelism().await?;
    Ok(Json(json!({ "parallelism": cap, "active": active })))
}

pub(super) async fn get(_: Viewer, State(app): State<App>) -> Result<Json<Value>, ApiError> {
    answer(&app).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Put {
    /// Null: no limit.
    parallelism: Value,
}

pub(super) async fn put(
    Op(caller): Op,
    State(app): State<App>,
    Body(body): Body<Put>,
) -> Result<Json<Value>, ApiError> {
    let cap = match &body.parallelism {
        Value::Null => None,
        value => {
            let cap = value
                .as_i64()
                .filter(|cap| (0..=i64::from(i32::MAX)).contains(cap));
            let wrong = || {
                let msg =
                    "Input should be a number of task instances, at least 0, or null for no limit";
                ApiError::field(FieldError::body(
                    "parallelism",
                    msg.to_owned(),
                    value.clone(),
                ))
            };
            Some(cap.ok_or_else(wrong)?)
        }
    };
    app.store.set_parallelism(cap).await?;
    let extra = json!({ "parallelism": cap });
    caller
        .audit(&*app.store, "set_parallelism", About::nothing(), extra)
        .await;
    answer(&app).await
}
