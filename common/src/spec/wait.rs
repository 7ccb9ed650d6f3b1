//! Tasks that wait without holding a worker: `sensor`, `trigger_dag`, `approval`.

use super::{Callback, HttpTask};
use crate::{span::Span, state::TaskState};
use chrono::Duration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is appended to the name of a sensor's queue: pokes are short work inside a worker, which must neither wait for
/// processes nor keep them waiting, so they have queues of their own.
pub const POKE_QUEUE_SUFFIX: &str = ".sensors";

/// Waits until something is so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensorTask {
    #[serde(flatten)]
    pub on: SensorOn,
    /// Between two looks.
    #[serde(default = "minute")]
    pub poke_interval: Span,
    /// The interval doubles with each look.
    #[serde(default)]
    pub exponential_backoff: bool,
    /// The longest interval of a backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Span>,
    /// Counted from the first look, over all looks, tries and workers.
    #[serde(default = "week")]
    pub timeout: Span,
    /// Skipped where it would fail.
    #[serde(default)]
    pub soft_fail: bool,
}

/// What a sensor waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorOn {
    /// A template of a time.
    Time(String),
    /// So long after the end of the data interval.
    Delta(Span),
    /// A path or object store URL, with wildcards.
    File(String),
    Http(Box<HttpTask>),
    Sql(Box<SqlQuery>),
    Dag(Box<OtherDag>),
    Asset(Box<AssetUpdate>),
}

/// A query whose first value has to be true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlQuery {
    /// Id of the connection.
    pub connection: String,
    pub query: String,
    /// Bound in order; texts in it are templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Value>,
}

/// An update of an asset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetUpdate {
    /// The asset's name.
    pub name: String,
    /// A template of a time: updates from then on count. Without it those since the end of the data interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Another DAG's run of the same date, or a task of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherDag {
    pub dag_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// How much earlier its logical date is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Span>,
    #[serde(default = "success")]
    pub allowed_states: Vec<TaskState>,
    #[serde(default = "failed")]
    pub failed_states: Vec<TaskState>,
}

/// Triggers a run of another DAG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerDagTask {
    /// A template.
    pub dag_id: String,
    /// A mapping, or a template of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conf: Option<Value>,
    /// Laid over `conf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_date: Option<String>,
    /// Waits for the run's end.
    #[serde(default)]
    pub wait: bool,
    /// With `wait`: fails if the run failed.
    #[serde(default = "yes")]
    pub propagate_failure: bool,
}

/// Waits for a person's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalTask {
    /// Names of users, and roles (whoever has at least this role).
    #[serde(default = "operators")]
    pub who: Vec<String>,
    /// A template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(default = "approve_or_reject")]
    pub options: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The answer when the time is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What the answer `reject` ends the task as.
    #[serde(default)]
    pub on_reject: OnReject,
    /// Called when the wait begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_waiting: Vec<Callback>,
}

/// The answer that [`OnReject`] is about.
pub const REJECT: &str = "reject";

/// What a rejected approval ends as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// Skipped, and so what is downstream by the default rule.
    #[default]
    Skip,
    Fail,
    /// Success: what is downstream looks at the answer.
    Succeed,
}

fn minute() -> Span {
    Span::from_secs(60)
}

fn week() -> Span {
    Span::from_secs(7 * 86_400)
}

fn yes() -> bool {
    true
}

fn success() -> Vec<TaskState> {
    vec![TaskState::Success]
}

fn failed() -> Vec<TaskState> {
    vec![TaskState::Failed]
}

fn operators() -> Vec<String> {
    vec!["op".to_owned()]
}

fn approve_or_reject() -> Vec<String> {
    vec!["approve".to_owned(), REJECT.to_owned()]
}

impl SensorTask {
    /// Whether a worker has to look; else the scheduler knows.
    pub fn pokes(&self) -> bool {
        matches!(
            self.on,
            SensorOn::File(_) | SensorOn::Http(_) | SensorOn::Sql(_)
        )
    }

    /// How long after the `looks`-th look (1 for the first) the next one is due.
    pub fn interval(&self, looks: u32) -> Duration {
        if !self.exponential_backoff {
            return self.poke_interval.chrono();
        }
        // 2^30 seconds are longer than any timeout.
        let factor = 1i64 << looks.saturating_sub(1).min(30);
        let longest = self.max_wait.unwrap_or(self.timeout).millis();
        Duration::milliseconds(
            self.poke_interval
                .millis()
                .saturating_mul(factor)
                .min(longest),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensor(json: &str) -> SensorTask {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn intervals_double_up_to_the_longest() {
        let looks = |sensor: &SensorTask| -> Vec<i64> {
            [1, 2, 3, 4, 5, 60]
                .into_iter()
                .map(|n| sensor.interval(n).num_seconds())
                .collect()
        };
        let plain = sensor(r#"{"file": "x", "poke_interval": "10s", "max_wait": "5s"}"#);
        assert_eq!(looks(&plain), [10; 6]);
        let backoff = sensor(
            r#"{"file": "x", "poke_interval": "10s", "exponential_backoff": true, "max_wait": "1m"}"#,
        );
        assert_eq!(looks(&backoff), [10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn what_a_sensor_waits_for_is_one_key() {
        let s = sensor(r#"{"dag": {"dag_id": "other"}}"#);
        assert!(!s.pokes());
        assert_eq!(
            serde_json::to_value(&s).unwrap()["dag"]["allowed_states"],
            serde_json::json!(["success"])
        );
        assert!(sensor(r#"{"http": {"url": "x"}}"#).pokes());
    }
}
