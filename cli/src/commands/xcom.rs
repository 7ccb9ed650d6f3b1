//! `gristmill xcom`.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::Context;
use super::exit::{CommandError, Outcome};
use super::output::{Output, Tabular, ago};

#[derive(Debug, Subcommand)]
pub(crate) enum Xcom {
    /// List the values of a task, or of all tasks of a run
    List(List),
    /// Print a value: a text as it is, everything else as JSON
    #[command(after_help = "Example:
  gristmill xcom get daily_sales nightly-7 totals")]
    Get(Get),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The task; all if absent
    task_id: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 200)]
    limit: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The task
    task_id: String,
    /// The value's name
    #[arg(default_value = "return_value")]
    key: String,
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", default_value_t = -1, hide_default_value = true)]
    map_index: i32,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Deserialize)]
struct Entry {
    task_id: String,
    map_index: i32,
    key: String,
    timestamp: Option<DateTime<Utc>>,
}

impl Tabular for Entry {
    const HEADER: &'static [&'static str] = &["TASK", "KEY", "WRITTEN"];

    fn cells(&self, now: DateTime<Utc>) -> Vec<String> {
        vec![
            crate::client::label(&self.task_id, self.map_index),
            self.key.clone(),
            ago(self.timestamp, now),
        ]
    }
}

impl Xcom {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        match self {
            Self::List(list) => {
                let task = list.task_id.as_deref().unwrap_or("~");
                let path = entries(&list.dag_id, &list.run_id, task);
                let rows = client.list(&path, &[], "xcom_entries", list.limit).await?;
                list.output.rows::<Entry>(context.console, rows)?;
            }
            Self::Get(get) => {
                let mut path = entries(&get.dag_id, &get.run_id, &get.task_id).to_vec();
                path.push(&get.key);
                let request = client.get(&path).query("map_index", get.map_index);
                let entry = request.send().await?;
                match &entry["value"] {
                    _ if get.output.is_json() => context.console.json(&entry)?,
                    Value::String(text) => context.console.line(text)?,
                    value => context.console.json(value)?,
                }
            }
        }
        Ok(Outcome::Done)
    }
}

fn entries<'a>(dag_id: &'a str, run_id: &'a str, task_id: &'a str) -> [&'a str; 7] {
    [
        "dags",
        dag_id,
        "dagRuns",
        run_id,
        "taskInstances",
        task_id,
        "xcomEntries",
    ]
}
