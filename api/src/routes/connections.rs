//! `/api/v2/connections`: encrypted at rest; passwords and the values in `extra` are never shown again.

use super::variables::MASKED;
use crate::{
    auth::{About, Caller, Op},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    parts::App,
};
use axum::{Json, extract::State, http::StatusCode};
use gristmill_common::ids::valid_name;
use serde_json::{Map, Value, json};

const KIND: &str = "connection";
/// What may be shown, beside `extra` with masked values.
const SHOWN: [&str; 6] = [
    "conn_type",
    "description",
    "host",
    "login",
    "port",
    "schema",
];
const MAX_BYTES: usize = 64 * 1024;

/// `ConnectionResponse`.
fn connection(id: &str, meta: &Value) -> Value {
    let mut value = json!({ "connection_id": id, "team_name": null });
    for field in SHOWN.iter().chain(&["password", "extra"]) {
        value[*field] = meta.get(*field).cloned().unwrap_or(Value::Null);
    }
    if value["conn_type"].is_null() {
        value["conn_type"] = "".into();
    }
    value
}

/// What may be shown of an opened connection.
fn meta_of(opened: &Map<String, Value>) -> Value {
    let mut meta: Map<String, Value> = SHOWN
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), opened.get(*field)?.clone())))
        .collect();
    if opened.get("password").is_some_and(|p| !p.is_null()) {
        meta.insert("password".to_owned(), MASKED.into());
    }
    if let Some(Value::Object(extra)) = opened.get("extra") {
        let masked: Map<String, Value> = extra
            .keys()
            .map(|key| (key.clone(), MASKED.into()))
            .collect();
        meta.insert("extra".to_owned(), Value::Object(masked).to_string().into());
    }
    Value::Object(meta)
}

async fn find(app: &App, id: &str) -> Result<(String, Value), ApiError> {
    let found = app.store.secret(KIND, id).await?;
    found.ok_or_else(|| {
        ApiError::NotFound(format!(
            "The Connection with connection_id: `{id}` was not found"
        ))
    })
}

pub(super) async fn list(
    _: Op,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let (limit, offset) = query.page()?;
    let all = app.store.secrets(KIND).await?;
    let page: Vec<Value> = all
        .iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|(id, meta)| connection(id, meta))
        .collect();
    Ok(Json(
        json!({ "connections": page, "total_entries": all.len() }),
    ))
}

pub(super) async fn get_one(
    _: Op,
    State(app): State<App>,
    At(id): At<String>,
) -> Result<Json<Value>, ApiError> {
    let (_, meta) = find(&app, &id).await?;
    Ok(Json(connection(&id, &meta)))
}

/// Checks a body field by field and lays it over what is there. A masked value that comes back means the old one.
fn merge(
    mut into: Map<String, Value>,
    body: Map<String, Value>,
    chosen: impl Fn(&str) -> bool,
) -> Result<Map<String, Value>, ApiError> {
    for (field, value) in body {
        // What was given may be a secret, and is not repeated.
        let wrong = |kind, msg: &str| {
            ApiError::field(FieldError {
                kind,
                loc: vec!["body".into(), field.as_str().into()],
                msg: msg.to_owned(),
                input: Value::Null,
            })
        };
        let fits = match field.as_str() {
            "connection_id" | "team_name" => continue,
            "port" => value.is_null() || value.as_u64().is_some_and(|port| port <= 65_535),
            "conn_type" | "description" | "extra" | "host" | "login" | "password" | "schema" => {
                value.is_null() || value.is_string()
            }
            _ => return Err(wrong("extra_forbidden", "Extra inputs are not permitted")),
        };
        if !fits {
            return Err(wrong(
                "type_error",
                "Input should be a valid string, or for port a number up to 65535",
            ));
        }
        if !chosen(&field) || (field == "password" && value == MASKED) {
            continue;
        }
        let value = match (field.as_str(), value) {
            ("extra", Value::String(text)) if text.is_empty() => Value::Null,
            ("extra", Value::String(text)) => {
                let extra = serde_json::from_str(&text).map_err(|_| {
                    wrong(
                        "value_error",
                        "Input should be an object of JSON, as a string",
                    )
                })?;
                Value::Object(unmasked(extra, into.get("extra")))
            }
            (_, value) => value,
        };
        if value.is_null() {
            into.remove(&field);
        } else {
            into.insert(field, value);
        }
    }
    Ok(into)
}

fn unmasked(mut extra: Map<String, Value>, old: Option<&Value>) -> Map<String, Value> {
    for (key, value) in extra.iter_mut().filter(|(_, value)| **value == MASKED) {
        if let Some(kept) = old.and_then(|old| old.get(key)) {
            *value = kept.clone();
        }
    }
    extra
}

async fn put(
    app: &App,
    caller: &Caller,
    id: &str,
    opened: Map<String, Value>,
    event: &str,
) -> Result<Json<Value>, ApiError> {
    if !opened.contains_key("conn_type") {
        return Err(ApiError::field(FieldError {
            kind: "missing",
            loc: vec!["body".into(), "conn_type".into()],
            msg: "Field required".to_owned(),
            input: Value::Null,
        }));
    }
    let meta = meta_of(&opened);
    let text = Value::Object(opened).to_string();
    if text.len() > MAX_BYTES {
        return Err(ApiError::TooLarge(format!(
            "the connection has {} bytes; it may have {MAX_BYTES}",
            text.len()
        )));
    }
    app.store
        .put_secret(KIND, id, &app.secret.seal(text.as_bytes()), &meta)
        .await?;
    caller
        .audit(
            &*app.store,
            event,
            About::nothing(),
            json!({ "connection_id": id }),
        )
        .await;
    Ok(Json(connection(id, &meta)))
}

fn id_of(body: &Map<String, Value>) -> Result<String, ApiError> {
    match body.get("connection_id") {
        Some(Value::String(id)) if valid_name(id) && id.len() <= 200 => Ok(id.clone()),
        other => {
            let msg = "a connection id has 1 to 200 letters, digits, _ - and .".to_owned();
            let input = other.cloned().unwrap_or(Value::Null);
            Err(ApiError::field(FieldError::body(
                "connection_id",
                msg,
                input,
            )))
        }
    }
}

pub(super) async fn create(
    Op(caller): Op,
    State(app): State<App>,
    Body(body): Body<Map<String, Value>>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let id = id_of(&body)?;
    if app.store.secret(KIND, &id).await?.is_some() {
        return Err(ApiError::Exists(format!(
            "connection {id:?} exists already"
        )));
    }
    let opened = merge(Map::new(), body, |_| true)?;
    Ok((
        StatusCode::CREATED,
        put(&app, &caller, &id, opened, "create_connection").await?,
    ))
}

pub(super) async fn patch(
    Op(caller): Op,
    State(app): State<App>,
    At(id): At<String>,
    query: Query,
    Body(body): Body<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let (sealed, _) = find(&app, &id).await?;
    if body
        .get("connection_id")
        .is_some_and(|other| other != id.as_str())
    {
        return Err(ApiError::BadRequest(
            "The connection_id in the request body does not match the URL parameter".to_owned(),
        ));
    }
    let text = app
        .secret
        .open(&sealed)
        .map_err(|error| ApiError::Conflict(error.to_string()))?;
    let old: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|_| ApiError::Internal(format!("connection {id:?} is no JSON object")))?;
    let mask = query.all("update_mask");
    let opened = merge(old, body, |field| {
        mask.is_empty() || mask.iter().any(|m| m == field)
    })?;
    put(&app, &caller, &id, opened, "edit_connection").await
}

pub(super) async fn delete(
    Op(caller): Op,
    State(app): State<App>,
    At(id): At<String>,
) -> Result<StatusCode, ApiError> {
    if !app.store.delete_secret(KIND, &id).await? {
        return Err(ApiError::NotFound(format!(
            "The Connection with connection_id: `{id}` was not found"
        )));
    }
    caller
        .audit(
            &*app.store,
            "delete_connection",
            About::nothing(),
            json!({ "connection_id": id }),
        )
        .await;
    Ok(StatusCode::NO_CONTENT)
}
