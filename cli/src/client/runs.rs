//! Runs: starting, watching, cancelling.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Client, ClientError};

/// Which run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunName {
    pub(crate) dag_id: String,
    pub(crate) run_id: String,
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dag_id, self.run_id)
    }
}

/// A run to start.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NewRun {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dag_run_id: Option<String>,
    pub(crate) conf: Map<String, Value>,
}

/// What the commands need of a run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Run {
    pub(crate) dag_id: String,
    pub(crate) dag_run_id: String,
    pub(crate) state: String,
    /// It was cancelled; its state is `failed` then, once it has ended.
    #[serde(default)]
    pub(crate) cancelled: bool,
    #[serde(default)]
    pub(crate) run_type: String,
    pub(crate) start_date: Option<DateTime<Utc>>,
    pub(crate) end_date: Option<DateTime<Utc>>,
    /// Seconds.
    pub(crate) duration: Option<f64>,
    pub(crate) run_after: Option<DateTime<Utc>>,
    /// Why it failed or was stopped.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Task instances by state; not in listings.
    #[serde(default)]
    pub(crate) task_states: BTreeMap<String, u64>,
}

impl Run {
    /// The run in an answer of the API.
    pub(crate) fn of(answer: &Value) -> Result<Self, ClientError> {
        Self::deserialize(answer).map_err(|error| ClientError::Shape {
            what: "a run",
            reason: error.to_string(),
        })
    }

    /// How long it ran.
    pub(crate) fn seconds(&self) -> Option<f64> {
        let taken = || Some((self.end_date? - self.start_date?).as_seconds_f64());
        self.duration.or_else(taken)
    }

    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.state.as_str(), "success" | "failed")
    }

    pub(crate) fn name(&self) -> RunName {
        RunName {
            dag_id: self.dag_id.clone(),
            run_id: self.dag_run_id.clone(),
        }
    }
}

impl Client {
    /// Starts a run. Asking again with the same key answers with the run that the first call started.
    pub(crate) async fn trigger(
        &self,
        dag_id: &str,
        run: &NewRun,
        idempotency_key: &str,
    ) -> Result<Value, ClientError> {
        self.request(Method::POST, &["dags", dag_id, "dagRuns"])
            .header("Idempotency-Key", idempotency_key)
            .header("X-Gristmill-Client", "cli")
            .json(run)
            .send()
            .await
    }

    /// The run as the API gives it.
    pub(crate) async fn run(&self, run: &RunName) -> Result<Value, ClientError> {
        self.get(&["dags", &run.dag_id, "dagRuns", &run.run_id])
            .send()
            .await
    }

    /// The run as it is when it has ended, or after `seconds`.
    pub(crate) async fn wait(&self, run: &RunName, seconds: u64) -> Result<Value, ClientError> {
        self.get(&["dags", &run.dag_id, "dagRuns", &run.run_id, "wait"])
            .query("timeout", seconds)
            .send()
            .await
    }

    /// Asks for the run's end; answers with the run before the end has come.
    pub(crate) async fn cancel(&self, run: &RunName) -> Result<Value, ClientError> {
        let path = ["dags", &run.dag_id, "dagRuns", &run.run_id, "cancel"];
        self.request(Method::POST, &path).send().await
    }
}
