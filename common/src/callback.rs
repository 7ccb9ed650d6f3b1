//! What is told when something happens to a run or an instance: which of the author's callbacks are called, and with what.
//!
//! A callback is rendered where the event is decided, into a row that is written in the same transaction. What is secret is
//! not in it: a connection is named, and opened by whoever delivers it.

use crate::{
    ids::{RunPk, TiPk, UNMAPPED},
    row::{RunRow, TiRow},
    spec::{BodyTemplate, Callback, DagSpec, TaskSpec},
    template::Renderer,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Characters of a reason that are told at most.
const MAX_REASON: usize = 2000;
/// Bytes of a rendered message at most.
const MAX_MESSAGE: usize = 16 * 1024;

/// What callbacks are called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOn {
    OnSuccess,
    OnFailure,
    OnRetry,
    OnSkipped,
    /// An approval begins to wait.
    OnWaiting,
    /// A deadline was missed.
    Deadline,
}

impl CallOn {
    pub const ALL: [Self; 6] = [
        Self::OnSuccess,
        Self::OnFailure,
        Self::OnRetry,
        Self::OnSkipped,
        Self::OnWaiting,
        Self::Deadline,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnSuccess => "on_success",
            Self::OnFailure => "on_failure",
            Self::OnRetry => "on_retry",
            Self::OnSkipped => "on_skipped",
            Self::OnWaiting => "on_waiting",
            Self::Deadline => "deadline",
        }
    }
}

impl fmt::Display for CallOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for CallOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|event| event.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no event that callbacks are called for"))
    }
}

impl DagSpec {
    /// The run's own callbacks.
    pub fn callbacks(&self, event: CallOn) -> &[Callback] {
        match event {
            CallOn::OnSuccess => &self.on_success,
            CallOn::OnFailure => &self.on_failure,
            _ => &[],
        }
    }
}

impl TaskSpec {
    /// The callbacks of its instances.
    pub fn callbacks(&self, event: CallOn) -> &[Callback] {
        match (event, &self.kind) {
            (CallOn::OnSuccess, _) => &self.on_success,
            (CallOn::OnFailure, _) => &self.on_failure,
            (CallOn::OnRetry, _) => &self.on_retry,
            (CallOn::OnSkipped, _) => &self.on_skipped,
            (CallOn::OnWaiting, crate::spec::TaskKind::Approval(approval)) => &approval.on_waiting,
            _ => &[],
        }
    }
}

/// A webhook to deliver. No secrets are in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Absent: the connection says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub method: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    pub timeout_ms: i64,
}

impl Webhook {
    /// What deliveries share that go to the same place: one that hangs holds up no others.
    pub fn target(&self) -> String {
        let place = self.url.as_deref().map(|url| match url.split_once("://") {
            // The host, without user and password.
            Some((_, rest)) => {
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                host.rsplit('@').next().unwrap_or_default().to_owned()
            }
            None => String::new(),
        });
        match (&self.connection, place) {
            (Some(connection), Some(host)) if !host.is_empty() => {
                format!("{host} ({connection})")
            }
            (Some(connection), _) => connection.clone(),
            (None, place) => place.unwrap_or_default(),
        }
    }
}

/// A callback that is called: a row of the store, before it has a key.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCall {
    pub run: RunPk,
    pub ti: Option<TiPk>,
    pub task_id: Option<String>,
    pub map_index: i32,
    pub try_number: i32,
    pub event: CallOn,
    /// Which of the event's callbacks.
    pub position: i32,
    pub target: String,
    /// Or why it cannot be made: then nothing is delivered.
    pub webhook: Result<Webhook, String>,
    pub body: Value,
    pub at: DateTime<Utc>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub event: CallOn,
    pub run: &'a RunRow,
    pub ti: Option<(&'a TaskSpec, &'a TiRow)>,
    pub at: DateTime<Utc>,
}

impl About<'_> {
    /// All that is told: the body of a webhook, and what templates see as `event`.
    fn facts(&self, more: &Map<String, Value>) -> Map<String, Value> {
        let run = self.run;
        let mut facts = json!({
            "event": self.event.as_str(),
            "at": self.at,
            "dag_id": run.dag_id,
            "dag_run_id": run.run_id,
            "run_type": run.run_type.as_str(),
            "logical_date": run.logical_date,
            "data_interval_start": run.data_interval_start,
            "data_interval_end": run.data_interval_end,
            "task_id": null,
            "map_index": UNMAPPED,
            "try_number": 0,
            "max_tries": 0,
            "state": run.state.as_str(),
            "reason": run.stop_reason,
            "start_date": run.started_at,
            "end_date": run.ended_at,
            "queue": null,
            "hostname": null,
            "exit_code": null,
        });
        if let (Some((_, ti)), Some(facts)) = (self.ti, facts.as_object_mut()) {
            let of_ti = json!({
                "task_id": ti.task_id,
                "map_index": ti.map_index,
                "try_number": ti.try_number,
                "max_tries": ti.max_tries + 1,
                "state": ti.state.as_str(),
                "reason": ti.reason,
                "start_date": ti.started_at,
                "end_date": ti.ended_at,
                "queue": ti.queue,
                "hostname": ti.hostname,
                "exit_code": ti.exit_code,
            });
            facts.extend(of_ti.as_object().cloned().unwrap_or_default());
        }
        let mut facts = facts.as_object().cloned().unwrap_or_default();
        facts.extend(more.clone());
        if let Some(Value::String(reason)) = facts.get_mut("reason")
            && reason.chars().count() > MAX_REASON
        {
            *reason = reason.chars().take(MAX_REASON).chain(['…']).collect();
        }
        facts
    }

    /// The line that says what happened, where the author wrote none.
    fn line(&self, facts: &Map<String, Value>) -> String {
        let run = self.run;
        let what = match self.ti {
            None => match facts.get("task_id").and_then(Value::as_str) {
                Some(task_id) => task_id.to_owned(),
                None => "the run".to_owned(),
            },
            Some((_, ti)) if ti.map_index == UNMAPPED => ti.task_id.clone(),
            Some((_, ti)) => format!("{}[{}]", ti.task_id, ti.map_index),
        };
        let happened = match self.event {
            CallOn::OnSuccess => "succeeded".to_owned(),
            CallOn::OnFailure => "failed".to_owned(),
            CallOn::OnRetry => "failed and will be tried again".to_owned(),
            CallOn::OnSkipped => "was skipped".to_owned(),
            CallOn::OnWaiting => "waits for an answer".to_owned(),
            CallOn::Deadline => format!(
                "is late: it should have ended by {}",
                facts
                    .get("deadline")
                    .and_then(Value::as_str)
                    .unwrap_or("now")
            ),
        };
        let reason = match facts.get("reason") {
            Some(Value::String(reason)) if self.event != CallOn::Deadline => format!(": {reason}"),
            _ => String::new(),
        };
        format!(
            "{}: {what} {happened}{reason} (run {})",
            run.dag_id, run.run_id
        )
    }

    /// The rows of these callbacks. `more` is added to what is told.
    pub fn calls(
        &self,
        callbacks: &[Callback],
        renderer: &Renderer,
        more: &Map<String, Value>,
    ) -> Vec<NewCall> {
        let facts = self.facts(more);
        let renderer = renderer.clone().with("event", Value::Object(facts.clone()));
        let call = |(position, callback): (i32, &Callback)| {
            let rendered = rendered(callback, &renderer);
            let message = match &rendered {
                Ok((_, Some(message))) => message.clone(),
                _ => self.line(&facts),
            };
            let body = match callback.template {
                BodyTemplate::Slack => json!({ "text": message }),
                BodyTemplate::Json => {
                    let mut body = facts.clone();
                    body.insert("message".to_owned(), json!(message));
                    Value::Object(body)
                }
            };
            let webhook = rendered.map(|(webhook, _)| webhook);
            NewCall {
                run: self.run.pk,
                ti: self.ti.map(|(_, ti)| ti.pk),
                task_id: self.ti.map(|(_, ti)| ti.task_id.clone()),
                map_index: self.ti.map_or(UNMAPPED, |(_, ti)| ti.map_index),
                try_number: self.ti.map_or(0, |(_, ti)| ti.try_number),
                event: self.event,
                position,
                target: webhook.as_ref().map(Webhook::target).unwrap_or_default(),
                webhook,
                body,
                at: self.at,
            }
        };
        (0..).zip(callbacks).map(call).collect()
    }
}

fn rendered(callback: &Callback, renderer: &Renderer) -> Result<(Webhook, Option<String>), String> {
    let text = |what: &str, text: &str| {
        renderer
            .render(text)
            .map(|text| text.trim().to_owned())
            .map_err(|error| format!("{what}: {error}"))
    };
    let url = callback.webhook.as_ref();
    let url = url.map(|url| text("webhook", url)).transpose()?;
    let headers = callback
        .headers
        .iter()
        .map(|(name, value)| Ok((name.clone(), text(&format!("headers.{name}"), value)?)))
        .collect::<Result<_, String>>()?;
    let message = callback.message.as_ref();
    let message = message
        .map(|message| text("message", message))
        .transpose()?;
    if let Some(size) = message
        .as_ref()
        .map(String::len)
        .filter(|n| *n > MAX_MESSAGE)
    {
        return Err(format!(
            "message: it has {size} bytes; it may have {MAX_MESSAGE}"
        ));
    }
    let webhook = Webhook {
        url,
        method: callback.method.clone(),
        headers,
        connection: callback.connection.clone(),
        timeout_ms: callback.timeout.millis(),
    };
    Ok((webhook, message))
}
