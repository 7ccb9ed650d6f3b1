//! Callbacks, and the deadlines that call.

use crate::span::Span;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A webhook: an HTTP request that tells somebody of something. All texts are templates, rendered by the scheduler when it
/// happens; they see `event` beside the usual names, and no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// Absolute, or a path below the connection's host; absent: the connection's own `extra.url`, or its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    #[serde(default = "post")]
    pub method: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Id of the connection that gives host and credentials: opened when it is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    #[serde(default)]
    pub template: BodyTemplate,
    /// What it says, instead of a line of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of one delivery.
    #[serde(default = "ten_seconds")]
    pub timeout: Span,
}

fn post() -> String {
    "POST".to_owned()
}

fn ten_seconds() -> Span {
    Span::from_secs(10)
}

/// What a webhook's body looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyTemplate {
    /// All that is known of the event.
    #[default]
    Json,
    /// `{"text": …}`, as Slack and those that are compatible take it.
    Slack,
}

/// A time by which a run, or a task of it, should have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// What it counts from; absent: it is `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    #[serde(default = "nothing")]
    pub after: Span,
    /// A fixed time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
    pub call: Vec<Callback>,
}

fn nothing() -> Span {
    Span::ZERO
}

/// What a deadline counts from, of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// When it was accepted.
    Queued,
    LogicalDate,
    /// When it started.
    Start,
    /// Its start and the average time that the DAG's last successful runs took.
    AverageRuntime,
}
