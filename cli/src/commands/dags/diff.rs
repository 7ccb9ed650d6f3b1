//! `gristmill dags source` and `gristmill dags diff`.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use similar::TextDiff;

use crate::client::{Client, ClientError};
use crate::commands::Context;
use crate::commands::exit::{CommandError, Outcome};
use crate::commands::output::Output;
use crate::commands::validate::unreadable;

#[derive(Debug, Args)]
pub(crate) struct Source {
    dag_id: String,
    /// Number of the version; the newest if absent
    number: Option<i32>,
}

/// Show what changed from one version of a DAG to another, or would change with a file
///
/// Without numbers: what the newest version changed. With one: what changed since that one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gristmill dags diff daily_sales
  gristmill dags diff daily_sales 3 5
  gristmill dags diff daily_sales --file dags/daily_sales.yaml")]
pub(crate) struct Diff {
    dag_id: String,
    /// Number of the older version
    from: Option<i32>,
    /// Number of the newer version; the newest if absent
    to: Option<i32>,
    /// Compare with this file instead of a newer version
    #[arg(long, value_name = "PATH", conflicts_with = "to")]
    file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Source {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let text = source(&client, &self.dag_id, self.number).await?;
        context.console.line(text.trim_end_matches('\n'))?;
        Ok(Outcome::Done)
    }
}

async fn source(
    client: &Client,
    dag_id: &str,
    version: Option<i32>,
) -> Result<String, ClientError> {
    let mut request = client.get(&["dagSources", dag_id]);
    if let Some(version) = version {
        request = request.query("version_number", version);
    }
    let answer = request.send().await?;
    Ok(answer["content"].as_str().unwrap_or_default().to_owned())
}

impl Diff {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let file = match &self.file {
            // Before the API is asked for anything: a wrong path is wrong wherever the API is.
            Some(path) => Some(std::fs::read_to_string(path).map_err(unreadable(path))?),
            None => None,
        };
        let client = context.client().await?;
        if let (Some(text), Some(path)) = (file, &self.file) {
            let deployed = source(&client, &self.dag_id, self.from).await?;
            let name = match self.from {
                Some(version) => format!("{} version {version}", self.dag_id),
                None => format!("{} as deployed", self.dag_id),
            };
            let diff = TextDiff::from_lines(&deployed, &text)
                .unified_diff()
                .header(&name, &path.display().to_string())
                .to_string();
            return self.print(
                context,
                &serde_json::json!({"dag_id": self.dag_id, "diff": diff}),
            );
        }
        let newest = async || -> Result<i32, CommandError> {
            let dag = client
                .get(&["dags", &self.dag_id, "details"])
                .send()
                .await?;
            let number = dag.pointer("/latest_dag_version/version_number");
            let number = number.and_then(Value::as_i64).unwrap_or_default();
            Ok(i32::try_from(number).unwrap_or_default())
        };
        let to = match self.to {
            Some(to) => to,
            None => newest().await?,
        };
        let number = to.to_string();
        let mut request = client.get(&["dags", &self.dag_id, "dagVersions", &number, "diff"]);
        if let Some(from) = self.from {
            request = request.query("from", from);
        }
        let answer = request.send().await?;
        self.print(context, &answer)
    }

    fn print(&self, context: &Context<'_>, answer: &Value) -> Result<Outcome, CommandError> {
        if self.output.is_json() {
            context.console.json(answer)?;
            return Ok(Outcome::Done);
        }
        let diff = answer["diff"].as_str().unwrap_or_default();
        if diff.is_empty() {
            context.console.note("no line differs");
        } else {
            context.console.line(diff.trim_end_matches('\n'))?;
        }
        if answer["bundle_changed"] == true {
            context.console.note("files beside the DAG file changed");
        }
        Ok(Outcome::Done)
    }
}
