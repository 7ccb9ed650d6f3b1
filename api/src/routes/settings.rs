//! What Airflow tells of its installation: configuration, plugins, providers, warnings. Most of it has nothing to tell here.

use crate::{
    auth::{Admin, Viewer},
    error::ApiError,
    extract::{At, Query},
    listing::Small,
    parts::App,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Sections with their settings, none of them secret.
fn sections(app: &App) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let parts = [
        ("version", app.version.clone()),
        ("timezone", "UTC".to_owned()),
        ("default_pool", "default_pool".to_owned()),
        ("default_queue", "default".to_owned()),
    ];
    let api = [
        ("page_limit", crate::extract::PAGE.to_string()),
        ("maximum_page_limit", crate::extract::MAX_PAGE.to_string()),
        ("maximum_body_bytes", super::MAX_BODY.to_string()),
        (
            "maximum_conf_bytes",
            gristmill_common::params::MAX_CONF.to_string(),
        ),
        (
            "request_timeout_seconds",
            super::TIMEOUT.as_secs().to_string(),
        ),
    ];
    vec![("core", parts.to_vec()), ("api", api.to_vec())]
}

fn told(headers: &HeaderMap, sections: &[(&str, Vec<(&str, String)>)]) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if accept.is_some_and(|accept| accept.starts_with("text/plain")) {
        let mut text = String::new();
        for (name, options) in sections {
            text.push_str(&format!("[{name}]\n"));
            for (key, value) in options {
                text.push_str(&format!("{key} = {value}\n"));
            }
            text.push('\n');
        }
        return text.into_response();
    }
    let sections: Vec<Value> = sections
        .iter()
        .map(|(name, options)| {
            let options: Vec<Value> = options
                .iter()
                .map(|(key, value)| json!({ "key": key, "value": value }))
                .collect();
            json!({ "name": name, "options": options })
        })
        .collect();
    Json(json!({ "sections": sections })).into_response()
}

pub(super) async fn config(
    _: Admin,
    State(app): State<App>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut sections = sections(&app);
    if let Some(wanted) = query.text("section") {
        sections.retain(|(name, _)| *name == wanted);
        if sections.is_empty() {
            return Err(ApiError::NotFound(format!("Section {wanted} not found.")));
        }
    }
    Ok(told(&headers, &sections))
}

pub(super) async fn config_value(
    _: Admin,
    State(app): State<App>,
    At((section, option)): At<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut sections = sections(&app);
    sections.retain_mut(|(name, options)| {
        options.retain(|(key, _)| *key == option);
        *name == section && !options.is_empty()
    });
    if sections.is_empty() {
        return Err(ApiError::NotFound(format!(
            "Option [{section}/{option}] not found."
        )));
    }
    Ok(told(&headers, &sections))
}

const fn nothing(name: &'static str) -> Small {
    Small {
        name,
        patterns: &[],
        texts: &[],
        times: &[],
        order: &[
            ("id", "id"),
            ("dag_id", "dag_id"),
            ("timestamp", "timestamp"),
            ("warning_type", "warning_type"),
            ("message", "message"),
        ],
    }
}

/// There are no plugins.
pub(super) async fn plugins(
    _: Viewer,
    State(_): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    nothing("plugins").answer(&query, Vec::new())
}

pub(super) async fn plugin_errors(
    _: Viewer,
    State(_): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    nothing("import_errors").answer(&query, Vec::new())
}

/// There are no providers: every kind of task is built in.
pub(super) async fn providers(
    _: Viewer,
    State(_): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    nothing("providers").answer(&query, Vec::new())
}

/// A DAG that warnings would be about is refused when it is deployed, with what is wrong.
pub(super) async fn dag_warnings(
    _: Viewer,
    State(_): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    if let Some(kind) = query.text("warning_type") {
        let known = [
            "asset conflict",
            "non-existent pool",
            "runtime varying value",
        ];
        if !known.contains(&kind) {
            let msg = format!("Input should be one of: {}", known.join(", "));
            return Err(ApiError::field(crate::error::FieldError::query(
                "warning_type",
                msg,
                kind,
            )));
        }
    }
    nothing("dag_warnings").answer(&query, Vec::new())
}
