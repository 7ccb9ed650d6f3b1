//! Task instances and their logs.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Client, ClientError, Rows, RunName};

/// What the commands need of a task instance.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Instance {
    pub(crate) task_id: String,
    #[serde(default)]
    pub(crate) dag_run_id: Option<String>,
    /// -1: not one of a mapped task's.
    pub(crate) map_index: i32,
    /// What the task's `map_index_template` calls it.
    #[serde(default)]
    pub(crate) rendered_map_index: Option<String>,
    /// Absent: waits for its upstreams.
    pub(crate) state: Option<String>,
    /// Attempts so far; each has a log.
    pub(crate) try_number: u32,
    pub(crate) queue: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) start_date: Option<DateTime<Utc>>,
    /// Seconds.
    pub(crate) duration: Option<f64>,
    /// Why it failed, or waits.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

impl Instance {
    /// The task instances of a listing.
    pub(crate) fn all_of(rows: Vec<Value>) -> Result<Vec<Self>, ClientError> {
        let instances = rows.into_iter().map(serde_json::from_value);
        instances
            .collect::<Result<_, _>>()
            .map_err(|error| ClientError::Shape {
                what: "a task instance",
                reason: error.to_string(),
            })
    }

    /// `clean`, `per_region[2]`, `per_region[2] (eu)`.
    pub(crate) fn label(&self) -> String {
        let label = label(&self.task_id, self.map_index);
        let name = self.rendered_map_index.as_deref();
        match name.and_then(|name| name.lines().next()) {
            Some(name) => format!("{label} ({name})"),
            None => label,
        }
    }

    pub(crate) fn state(&self) -> &str {
        self.state.as_deref().unwrap_or("none")
    }
}

pub(crate) fn label(task_id: &str, map_index: i32) -> String {
    match map_index {
        ..0 => task_id.to_owned(),
        index => format!("{task_id}[{index}]"),
    }
}

/// Which attempt's log, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogQuery {
    pub(crate) run: RunName,
    pub(crate) task_id: String,
    pub(crate) map_index: i32,
    pub(crate) try_number: u32,
    /// What the page before gave to go on with.
    pub(crate) token: Option<String>,
    /// Without a token: only so many of the last lines that there are.
    pub(crate) tail: Option<usize>,
    /// Seconds that the API may wait for a line, if there is none.
    pub(crate) wait_s: u64,
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LogPage {
    pub(crate) content: Vec<LogLine>,
    /// Absent: this was the end of the log, nothing will follow.
    pub(crate) continuation_token: Option<String>,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LogLine {
    pub(crate) timestamp: Option<DateTime<Utc>>,
    pub(crate) event: String,
    pub(crate) level: Option<String>,
    /// Everything else, for `-o json`.
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

impl LogQuery {
    /// The log from its beginning.
    pub(crate) fn of(run: &RunName, task_id: &str, map_index: i32, try_number: u32) -> Self {
        Self {
            run: run.clone(),
            task_id: task_id.to_owned(),
            map_index,
            try_number,
            token: None,
            tail: None,
            wait_s: 0,
        }
    }
}

impl Client {
    /// At most `max` of a run's task instances.
    pub(crate) async fn instances(
        &self,
        run: &RunName,
        query: &[(&str, String)],
        max: usize,
    ) -> Result<Rows, ClientError> {
        let path = ["dags", &run.dag_id, "dagRuns", &run.run_id, "taskInstances"];
        self.list(&path, query, "task_instances", max).await
    }

    /// The next piece of an attempt's log.
    pub(crate) async fn log(&self, query: &LogQuery) -> Result<LogPage, ClientError> {
        let try_number = query.try_number.to_string();
        let path = [
            "dags",
            &query.run.dag_id,
            "dagRuns",
            &query.run.run_id,
            "taskInstances",
            &query.task_id,
            "logs",
            &try_number,
        ];
        let mut request = self
            .get(&path)
            .query("map_index", query.map_index)
            .query("wait", query.wait_s);
        if let Some(token) = &query.token {
            request = request.query("token", token);
        } else if let Some(lines) = query.tail {
            request = request.query("tail", lines);
        }
        request.fetch().await
    }
}
