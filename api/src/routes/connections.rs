//! `/api/v2/connections`: encrypted at rest; passwords and the values in `extra` are never shown again.

use super::variables::MASKED;
use crate::{
    auth::{About, Caller, Op},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    listing::Small,
    parts::App,
    secrets,
};
use axum::{Json, extract::State, http::StatusCode};
use gristmill_common::ids::valid_name;
use gristmill_secrets::Kind;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::net::TcpStream;

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
    value["source"] = secrets::DATABASE.into();
    value
}

/// One that comes from elsewhere: nothing but its name is told.
fn outside(id: &str, source: &str) -> Value {
    let mut value = connection(id, &Value::Null);
    value["source"] = source.into();
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

pub(super) async fn find(app: &App, id: &str) -> Result<(String, Value), ApiError> {
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
    const CONNECTIONS: Small = Small {
        name: "connections",
        patterns: &[("connection_id", "connection_id")],
        texts: &[],
        times: &[],
        order: &[
            ("id", "connection_id"),
            ("connection_id", "connection_id"),
            ("conn_id", "connection_id"),
            ("conn_type", "conn_type"),
            ("description", "description"),
            ("host", "host"),
            ("port", "port"),
        ],
    };
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for (id, meta) in app.store.secrets(KIND).await? {
        let shown = connection(&id, &meta);
        all.insert(id, shown);
    }
    // They come before those of the database.
    for (id, source) in secrets::names(Kind::Connection) {
        let shown = outside(&id, source);
        all.insert(id, shown);
    }
    CONNECTIONS.answer(&query, all.into_values().collect())
}

pub(super) async fn get_one(
    _: Op,
    State(app): State<App>,
    At(id): At<String>,
) -> Result<Json<Value>, ApiError> {
    if let Some(source) = secrets::names(Kind::Connection).get(&id) {
        return Ok(Json(outside(&id, source)));
    }
    match find(&app, &id).await {
        Err(ApiError::NotFound(_)) if id == ENQUEUE => Err(no_queue_of_tests()),
        found => Ok(Json(connection(&id, &found?.1))),
    }
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
    let opened = merge(old, body, |field| query.masks(field))?;
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

/// Longest that a test waits for a host.
const PATIENCE: Duration = Duration::from_secs(5);

/// `/connections/enqueue-test`.
const ENQUEUE: &str = "enqueue-test";

fn no_queue_of_tests() -> ApiError {
    ApiError::NotYet("connections are tested at once: POST /api/v2/connections/test".to_owned())
}

/// `POST /connections/test`, and those like it that there are not.
pub(super) async fn post_to(
    Op(caller): Op,
    At(what): At<String>,
    Body(body): Body<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    match what.as_str() {
        "test" => test(&caller, body).await,
        ENQUEUE => Err(no_queue_of_tests()),
        "defaults" => Err(ApiError::NotYet(
            "there are no default connections: create those that you need".to_owned(),
        )),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

/// Whether the host of a connection can be reached, without signing in there: `ConnectionTestResponse`.
async fn test(caller: &Caller, body: Map<String, Value>) -> Result<Json<Value>, ApiError> {
    id_of(&body)?;
    let opened = merge(Map::new(), body, |_| true)?;
    let host = opened
        .get("host")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let kind = opened.get("conn_type").and_then(Value::as_str);
    let port = opened
        .get("port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .or_else(|| usual_port(kind.unwrap_or_default()));
    let (status, message) = match (host, port) {
        ("", _) => (false, "the connection has no host".to_owned()),
        (_, None) => (false, "the connection has no port".to_owned()),
        (host, Some(port)) => reached(bare(host), port).await,
    };
    tracing::info!(
        user = caller.name,
        host,
        port,
        status,
        "a connection was tested"
    );
    Ok(Json(json!({ "status": status, "message": message })))
}

/// A host without the scheme and path that may stand around it.
fn bare(host: &str) -> &str {
    let host = host.split_once("://").map_or(host, |(_, rest)| rest);
    host.split('/').next().unwrap_or_default()
}

fn usual_port(conn_type: &str) -> Option<u16> {
    match conn_type {
        "http" => Some(80),
        "https" => Some(443),
        "postgres" | "postgresql" => Some(5432),
        "mysql" => Some(3306),
        "redis" => Some(6379),
        "ssh" | "sftp" => Some(22),
        _ => None,
    }
}

async fn reached(host: &str, port: u16) -> (bool, String) {
    match tokio::time::timeout(PATIENCE, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => (true, format!("{host}:{port} can be reached")),
        Ok(Err(error)) => (false, format!("{host}:{port} cannot be reached: {error}")),
        Err(_) => (
            false,
            format!(
                "{host}:{port} did not answer within {} s",
                PATIENCE.as_secs()
            ),
        ),
    }
}
