//! Templates: Jinja (minijinja) with Airflow's names. Rendering is strict (an undefined name is an error that names it)
//! and bounded in steps, nesting and output. What a text refers to can be found without rendering it.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use std::{collections::HashMap, fmt, sync::Arc};

pub(crate) mod analysis;
mod bounds;
pub(crate) mod env;
mod error;
mod filters;
mod macros;
mod objects;
mod pycompat;
mod render;

pub use analysis::{
    Refs, is_template, mapping_references, pulled_as_it_is, references, running_references,
    scheduling_references, task_references,
};
pub use error::TemplateError;
pub use render::Renderer;

/// What a task instance's templates can see. Plain data: build one per task instance and hand it to [`Renderer::new`].
#[derive(Debug, Clone)]
pub struct TemplateContext {
    pub dag_id: String,
    pub task_id: String,
    pub run_id: String,
    /// `manual`, `scheduled`, `backfill`, …
    pub run_type: String,
    /// Absent in runs that were triggered without one: then `ds`, `ts` and the like are undefined.
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    pub run_after: DateTime<Utc>,
    /// When the run was queued.
    pub queued_at: Option<DateTime<Utc>>,
    /// When the run started.
    pub start_date: Option<DateTime<Utc>>,
    pub conf: Value,
    pub params: Map<String, Value>,
    /// The updates that made the run, by asset; empty of runs that none made.
    pub asset_events: Map<String, Value>,
    /// The map variables of a mapped task's instance.
    pub map: Map<String, Value>,
    pub try_number: i32,
    pub max_tries: i32,
    /// [`crate::ids::UNMAPPED`] outside of mapped tasks.
    pub map_index: i32,
    /// The mapped group that the task is in: of its other members a pull sees the value of the same index.
    pub mapped_group: Option<String>,
    pub xcoms: Arc<dyn XComSource>,
    /// Name to value; a string that holds JSON is read by `var.json`.
    pub vars: Map<String, Value>,
    /// Id to `{host, login, password, port, schema, extra}`.
    pub conns: Map<String, Value>,
}

impl TemplateContext {
    /// A manual run of 1 January 2026 with nothing given: for tests and previews.
    pub fn example(dag_id: &str, task_id: &str) -> Self {
        let date = DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default();
        Self {
            dag_id: dag_id.to_owned(),
            task_id: task_id.to_owned(),
            run_id: "manual__2026-01-01T00:00:00+00:00".to_owned(),
            run_type: "manual".to_owned(),
            logical_date: Some(date),
            data_interval_start: Some(date),
            data_interval_end: Some(date + chrono::Duration::days(1)),
            run_after: date + chrono::Duration::days(1),
            queued_at: None,
            start_date: None,
            asset_events: Map::new(),
            conf: Value::Object(Map::new()),
            params: Map::new(),
            map: Map::new(),
            try_number: 1,
            max_tries: 0,
            map_index: crate::ids::UNMAPPED,
            mapped_group: None,
            xcoms: Arc::new(NoXComs),
            vars: Map::new(),
            conns: Map::new(),
        }
    }
}

/// Where `ti.xcom_pull` finds values.
pub trait XComSource: fmt::Debug + Send + Sync {
    /// The value that a task of this run left under `key`, `None` if there is none. Without a `map_index` a mapped task's
    /// is the JSON list of its instances' values in map order.
    fn pull(
        &self,
        task_id: &str,
        key: &str,
        map_index: Option<i32>,
    ) -> Result<Option<Value>, String>;
}

/// No task left anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoXComs;

impl XComSource for NoXComs {
    fn pull(&self, _: &str, _: &str, _: Option<i32>) -> Result<Option<Value>, String> {
        Ok(None)
    }
}

/// Values by (task id, key); those of a mapped task are one list in map order.
#[derive(Debug, Clone, Default)]
pub struct XComMap(pub HashMap<(String, String), Value>);

impl XComSource for XComMap {
    fn pull(
        &self,
        task_id: &str,
        key: &str,
        map_index: Option<i32>,
    ) -> Result<Option<Value>, String> {
        let value = self.0.get(&(task_id.to_owned(), key.to_owned()));
        Ok(match map_index {
            None | Some(crate::ids::UNMAPPED) => value.cloned(),
            Some(index) => usize::try_from(index)
                .ok()
                .and_then(|i| value?.get(i).cloned()),
        })
    }
}

#[cfg(test)]
mod tests;
