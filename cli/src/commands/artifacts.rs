//! `gristmill artifacts`.

use std::io::{self, Write};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Deserialize;

use super::Context;
use super::exit::{CommandError, Outcome};
use super::output::{Output, Tabular};

#[derive(Debug, Subcommand)]
pub(crate) enum Artifacts {
    /// List the files that a task, or all tasks of a run, have left
    List(List),
    /// Download one
    #[command(after_help = "Examples:
  gristmill artifacts get daily_sales nightly-7 report plots/revenue.png
  gristmill artifacts get daily_sales nightly-7 report totals.csv --to - | head")]
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
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", default_value_t = -1, hide_default_value = true)]
    map_index: i32,
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
    /// The file's name, as the listing gives it
    name: String,
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", default_value_t = -1, hide_default_value = true)]
    map_index: i32,
    /// Where to write it; `-` is standard output. Without it: its last name, in this folder
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Artifact {
    task_id: String,
    map_index: i32,
    name: String,
    size: u64,
}

impl Tabular for Artifact {
    const HEADER: &'static [&'static str] = &["TASK", "FILE", "BYTES"];

    fn cells(&self, _now: DateTime<Utc>) -> Vec<String> {
        vec![
            crate::client::label(&self.task_id, self.map_index),
            self.name.clone(),
            self.size.to_string(),
        ]
    }
}

impl Artifacts {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        match self {
            Self::List(list) => {
                let mut path = vec!["dags", &list.dag_id, "dagRuns", &list.run_id];
                if let Some(task) = &list.task_id {
                    path.extend(["taskInstances", task]);
                }
                path.push("artifacts");
                let query = [("map_index", list.map_index.to_string())];
                let rows = client.list(&path, &query, "artifacts", list.limit).await?;
                list.output.rows::<Artifact>(context.console, rows)?;
            }
            Self::Get(get) => {
                let mut path = vec!["dags", &get.dag_id, "dagRuns", &get.run_id];
                path.extend(["taskInstances", &get.task_id, "artifacts"]);
                path.extend(get.name.split('/'));
                let request = client.get(&path).query("map_index", get.map_index);
                let last = get.name.rsplit('/').next().unwrap_or_default();
                let to = get.to.unwrap_or_else(|| PathBuf::from(last));
                let wrong = |error: io::Error| {
                    CommandError::Usage(format!("cannot write {}: {error}", to.display()))
                };
                let mut download = request.open().await?;
                // Only now that the answer is known to be the file.
                let mut file: Box<dyn Write> = match to.as_os_str() == "-" {
                    true => Box::new(io::stdout()),
                    false => Box::new(std::fs::File::create(&to).map_err(wrong)?),
                };
                let mut size = 0;
                while let Some(piece) = download.piece().await? {
                    file.write_all(&piece).map_err(wrong)?;
                    size += piece.len();
                }
                file.flush().map_err(wrong)?;
                let note = format!("{}: {size} bytes", get.name);
                context.console.note(&note);
            }
        }
        Ok(Outcome::Done)
    }
}
