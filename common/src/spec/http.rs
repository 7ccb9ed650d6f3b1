//! The `http` task.

use crate::span::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One HTTP request made by the worker itself. All texts are templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpTask {
    #[serde(default = "get")]
    pub method: String,
    /// Absolute, or a path below the connection's host.
    pub url: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub body: Option<HttpBody>,
    /// Id of the connection that gives host and credentials (basic by login and password; bearer by `extra.token`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    #[serde(default = "thirty_seconds")]
    pub timeout: Span,
    /// Redirects followed; 0 follows none.
    #[serde(default = "ten")]
    pub max_redirects: u32,
    /// False accepts any TLS certificate.
    #[serde(default = "yes")]
    pub verify_tls: bool,
    #[serde(default)]
    pub expect: HttpExpect,
    /// Requests repeated within the attempt on 429 and 5xx answers and connection errors; `Retry-After` is honoured.
    #[serde(default = "three")]
    pub attempts: u32,
}

/// The body of a request: at most one of `json`, `form`, `body`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpBody {
    /// A text that is exactly one `{{ … }}` keeps its native type.
    Json(Value),
    Form(BTreeMap<String, String>),
    Body(String),
}

/// What makes an answer a success.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpExpect {
    /// Status codes; empty means 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// An expression over `status`, `headers`, `text`, `json` that has to be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn thirty_seconds() -> Span {
    Span::from_secs(30)
}

fn ten() -> u32 {
    10
}

fn three() -> u32 {
    3
}

fn yes() -> bool {
    true
}
