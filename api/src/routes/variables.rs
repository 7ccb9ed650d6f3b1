//! `/api/v2/variables`: encrypted at rest; those whose name says secret are never shown again.

use crate::{
    auth::{About, Caller, Op},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    listing::Small,
    parts::App,
    secrets,
};
use axum::{Json, extract::State, http::StatusCode};
use gristmill_secrets::Kind;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const KIND: &str = "variable";
const MAX_KEY: usize = 250;
const MAX_VALUE: usize = 64 * 1024;
/// What is shown in place of a secret.
pub(super) const MASKED: &str = "***";

/// Whether a name says that its value is a secret, as Airflow judges it.
pub(super) fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 11] = [
        "access_token",
        "api_key",
        "apikey",
        "authorization",
        "credential",
        "passphrase",
        "passwd",
        "password",
        "private_key",
        "secret",
        "token",
    ];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// `VariableResponse`.
fn variable(app: &App, key: &str, sealed: &str, meta: &Value) -> Value {
    let value = if is_secret(key) {
        MASKED.into()
    } else {
        match app.secret.open(sealed) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned().into(),
            Err(error) => {
                tracing::warn!(%error, key, "a variable cannot be opened");
                Value::Null
            }
        }
    };
    json!({
        "key": key,
        "value": value,
        "description": meta.get("description"),
        "is_encrypted": true,
        "team_name": null,
        "source": secrets::DATABASE,
    })
}

/// One that comes from elsewhere: nothing but its key is told.
fn outside(key: &str, source: &str) -> Value {
    json!({
        "key": key,
        "value": MASKED,
        "description": null,
        "is_encrypted": false,
        "team_name": null,
        "source": source,
    })
}

pub(super) async fn find(app: &App, key: &str) -> Result<(String, Value), ApiError> {
    let found = app.store.secret(KIND, key).await?;
    found.ok_or_else(|| ApiError::NotFound(format!("The Variable with key: `{key}` was not found")))
}

pub(super) async fn list(
    _: Op,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const VARIABLES: Small = Small {
        name: "variables",
        patterns: &[("variable_key", "key")],
        texts: &[],
        times: &[],
        order: &[
            ("id", "key"),
            ("key", "key"),
            ("description", "description"),
        ],
    };
    let mut names: BTreeMap<String, Value> = BTreeMap::new();
    for (key, meta) in app.store.secrets(KIND).await? {
        let named = json!({ "key": key, "description": meta.get("description") });
        names.insert(key, named);
    }
    // They come before those of the database.
    for (key, source) in secrets::names(Kind::Variable) {
        let named = outside(&key, source);
        names.insert(key, named);
    }
    let names = names.into_values().collect();
    let (page, total) = VARIABLES.page(&query, names)?;
    let mut variables = Vec::with_capacity(page.len());
    for named in page {
        if named.get("source").is_some() {
            variables.push(named);
            continue;
        }
        let key = named["key"].as_str().unwrap_or_default();
        // Deleted since it was listed.
        let Some((sealed, meta)) = app.store.secret(KIND, key).await? else {
            continue;
        };
        variables.push(variable(&app, key, &sealed, &meta));
    }
    Ok(Json(
        json!({ "variables": variables, "total_entries": total }),
    ))
}

pub(super) async fn get_one(
    _: Op,
    State(app): State<App>,
    At(key): At<String>,
) -> Result<Json<Value>, ApiError> {
    if let Some(source) = secrets::names(Kind::Variable).get(&key) {
        return Ok(Json(outside(&key, source)));
    }
    let (sealed, meta) = find(&app, &key).await?;
    Ok(Json(variable(&app, &key, &sealed, &meta)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Put {
    key: String,
    value: Value,
    description: Option<String>,
    #[serde(rename = "team_name")]
    _team_name: Option<String>,
}

async fn put(app: &App, caller: &Caller, body: Put, event: &str) -> Result<Json<Value>, ApiError> {
    if body.key.is_empty() || body.key.len() > MAX_KEY {
        let msg = format!("a variable's key has 1 to {MAX_KEY} characters");
        return Err(ApiError::field(FieldError::body(
            "key",
            msg,
            body.key.into(),
        )));
    }
    let text = match body.value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    if text.len() > MAX_VALUE {
        return Err(ApiError::TooLarge(format!(
            "the value has {} bytes; it may have {MAX_VALUE}",
            text.len()
        )));
    }
    let meta = json!({ "description": body.description });
    let sealed = app.secret.seal(text.as_bytes());
    app.store
        .put_secret(KIND, &body.key, &sealed, &meta)
        .await?;
    caller
        .audit(
            &*app.store,
            event,
            About::nothing(),
            json!({ "key": body.key }),
        )
        .await;
    Ok(Json(variable(app, &body.key, &sealed, &meta)))
}

pub(super) async fn create(
    Op(caller): Op,
    State(app): State<App>,
    Body(body): Body<Put>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    if app.store.secret(KIND, &body.key).await?.is_some() {
        return Err(ApiError::Exists(format!(
            "The Variable with key: `{}` already exists",
            body.key
        )));
    }
    Ok((
        StatusCode::CREATED,
        put(&app, &caller, body, "create_variable").await?,
    ))
}

pub(super) async fn patch(
    Op(caller): Op,
    State(app): State<App>,
    At(key): At<String>,
    query: Query,
    Body(mut body): Body<Put>,
) -> Result<Json<Value>, ApiError> {
    let (sealed, meta) = find(&app, &key).await?;
    if body.key != key {
        return Err(ApiError::BadRequest(
            "Invalid body, key from request body doesn't match uri parameter".to_owned(),
        ));
    }
    let chosen = |field: &str| query.masks(field);
    if !chosen("description") || body.description.is_none() {
        body.description = meta
            .get("description")
            .and_then(Value::as_str)
            .map(str::to_owned);
    }
    if !chosen("value") {
        let text = app
            .secret
            .open(&sealed)
            .map_err(|e| ApiError::Conflict(e.to_string()))?;
        body.value = String::from_utf8_lossy(&text).into_owned().into();
    }
    put(&app, &caller, body, "edit_variable").await
}

pub(super) async fn delete(
    Op(caller): Op,
    State(app): State<App>,
    At(key): At<String>,
) -> Result<StatusCode, ApiError> {
    if !app.store.delete_secret(KIND, &key).await? {
        return Err(ApiError::NotFound(format!(
            "The Variable with key: `{key}` was not found"
        )));
    }
    caller
        .audit(
            &*app.store,
            "delete_variable",
            About::nothing(),
            json!({ "key": key }),
        )
        .await;
    Ok(StatusCode::NO_CONTENT)
}
