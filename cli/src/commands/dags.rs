//! `gristmill dags`.

mod diff;
mod test;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use gristmill_common::dagfile::Diagnostic;
use gristmill_objects::bundle;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use super::exit::{CommandError, Outcome};
use super::output::{Output, Tabular, ago, or_dash, short, yes_no};
use super::validate::{unreadable, validate};
use crate::client::{Client, ClientError};

#[derive(Debug, Subcommand)]
pub(crate) enum Dags {
    /// List DAGs
    List(List),
    /// Show one DAG
    Show(One),
    /// Check DAG files, without a server; prints every problem, and ends with 2 if there are errors
    #[command(after_help = "Examples:
  gristmill dags validate daily_sales.yaml
  gristmill dags validate dags/ -o json")]
    Validate {
        /// A file, or a folder with all that is below it
        path: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    // Described by its struct, at length.
    Test(test::Test),
    // Described by its struct, at length.
    Deploy(Deploy),
    /// Delete a DAG with its versions and runs; refused while runs have not ended
    Delete {
        dag_id: String,
    },
    /// Start no runs of it, neither by schedule nor by hand; those that run go on
    Pause {
        dag_id: String,
    },
    /// Start runs of it again
    Unpause {
        dag_id: String,
    },
    /// List a DAG's versions, newest first
    Versions(Versions),
    /// Print the file of a DAG's version
    Source(diff::Source),
    // Described by its struct, at length.
    Diff(diff::Diff),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those whose names hold this
    pattern: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 200)]
    limit: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    dag_id: String,
    #[command(flatten)]
    output: Output,
}

/// Deploy a DAG file or a folder
///
/// Of a folder, its DAG files are deployed, and with them every file in it: tasks find them in their working directory.
/// Hidden files are left out. A bad file does not keep the good ones back; it is printed, and the exit code is 7.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gristmill dags deploy hello.yaml
  gristmill dags deploy dags/ --folder sales
  gristmill dags deploy dags/ --dry-run")]
pub(crate) struct Deploy {
    /// A DAG file or a folder
    path: PathBuf,
    /// Name of the folder: DAGs that were deployed under it before and are no longer in it become stale
    #[arg(long, value_name = "NAME")]
    folder: Option<String>,
    /// Only say what would be deployed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Versions {
    dag_id: String,
    /// At most so many
    #[arg(long, default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Deserialize)]
struct Dag {
    dag_id: String,
    version_number: Option<i32>,
    is_paused: bool,
    timetable_summary: Option<String>,
    next_dagrun_run_after: Option<DateTime<Utc>>,
    description: Option<String>,
}

impl Tabular for Dag {
    const HEADER: &'static [&'static str] = &[
        "DAG",
        "VERSION",
        "SCHEDULE",
        "NEXT",
        "PAUSED",
        "DESCRIPTION",
    ];

    fn cells(&self, now: DateTime<Utc>) -> Vec<String> {
        vec![
            self.dag_id.clone(),
            or_dash(self.version_number),
            or_dash(self.timetable_summary.as_deref()),
            ago(self.next_dagrun_run_after, now),
            yes_no(self.is_paused),
            short(self.description.as_deref().unwrap_or_default(), 50),
        ]
    }
}

#[derive(Debug, Deserialize)]
struct Version {
    version_number: i32,
    bundle_version: Option<String>,
    created_at: Option<DateTime<Utc>>,
}

impl Tabular for Version {
    const HEADER: &'static [&'static str] = &["VERSION", "DEPLOYED", "BUNDLE"];

    fn cells(&self, now: DateTime<Utc>) -> Vec<String> {
        // As much of the digest as tells bundles apart.
        let bundle = self
            .bundle_version
            .as_deref()
            .map(|digest| digest.get(..12).unwrap_or(digest));
        vec![
            self.version_number.to_string(),
            ago(self.created_at, now),
            or_dash(bundle),
        ]
    }
}

/// The answer to a deployment.
#[derive(Debug, Default, Deserialize)]
struct Report {
    deployed: Vec<Deployed>,
    errors: Vec<Diagnostic>,
}

#[derive(Debug, Deserialize)]
struct Deployed {
    dag_id: String,
    version_number: i32,
    is_new: bool,
    #[serde(default)]
    warnings: Vec<Diagnostic>,
}

impl Dags {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        match self {
            Self::List(list) => list.run(context).await,
            Self::Show(one) => {
                let client = context.client().await?;
                let dag = client.get(&["dags", &one.dag_id, "details"]).send().await?;
                one.output.object(context.console, &dag)?;
                Ok(Outcome::Done)
            }
            Self::Validate { path, output } => validate(context.console, &path, output),
            Self::Test(test) => test.run(context).await,
            Self::Deploy(deploy) => deploy.run(context).await,
            Self::Delete { dag_id } => {
                let client = context.client().await?;
                let path = ["dags", dag_id.as_str()];
                client.request(Method::DELETE, &path).send().await?;
                context.console.note(&format!("DAG {dag_id} deleted"));
                Ok(Outcome::Done)
            }
            Self::Pause { dag_id } => set_paused(context, &dag_id, true).await,
            Self::Unpause { dag_id } => set_paused(context, &dag_id, false).await,
            Self::Versions(versions) => {
                let client = context.client().await?;
                let path = ["dags", &versions.dag_id, "dagVersions"];
                let rows = client
                    .list(&path, &[], "dag_versions", versions.limit)
                    .await?;
                versions.output.rows::<Version>(context.console, rows)?;
                Ok(Outcome::Done)
            }
            Self::Source(source) => source.run(context).await,
            Self::Diff(diff) => diff.run(context).await,
        }
    }
}

impl List {
    async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let query: Vec<(&str, String)> = self
            .pattern
            .into_iter()
            .map(|pattern| ("dag_id_pattern", pattern))
            .collect();
        let rows = client.list(&["dags"], &query, "dags", self.limit).await?;
        self.output.rows::<Dag>(context.console, rows)?;
        Ok(Outcome::Done)
    }
}

async fn set_paused(
    context: &Context<'_>,
    dag_id: &str,
    paused: bool,
) -> Result<Outcome, CommandError> {
    let client = context.client().await?;
    let change = client.request(Method::PATCH, &["dags", dag_id]);
    change.json(&json!({"is_paused": paused})).send().await?;
    let state = if paused { "paused" } else { "not paused" };
    context.console.note(&format!("DAG {dag_id} is {state}"));
    Ok(Outcome::Done)
}

impl Deploy {
    async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        // Before the API is asked for anything: a wrong path is wrong wherever the API is.
        let (content_type, body) = pack(&self.path).await?;
        let client = context.client().await?;
        let answer = self.send(&client, content_type, body).await?;
        let report = Report::deserialize(&answer).map_err(|error| ClientError::Shape {
            what: "a deployment's report",
            reason: error.to_string(),
        })?;
        if self.output.is_json() {
            context.console.json(&answer)?;
        } else {
            self.print(context, &report)?;
        }
        match report.errors.len() {
            0 => Ok(Outcome::Done),
            1 => Err(CommandError::Rejected(
                "1 error; what it is in was not deployed".to_owned(),
            )),
            n => Err(CommandError::Rejected(format!(
                "{n} errors; what they are in was not deployed"
            ))),
        }
    }

    /// The report, whether or not anything was deployed.
    async fn send(
        &self,
        client: &Client,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Value, ClientError> {
        let mut request = client
            .request(Method::POST, &["dags", "deploy"])
            .body(content_type, body);
        if self.dry_run {
            request = request.query("dry_run", true);
        }
        if let Some(folder) = &self.folder {
            request = request.query("folder", folder);
        }
        if !self.path.is_dir()
            && let Some(name) = self.path.file_name()
        {
            request = request.query("file_name", name.to_string_lossy());
        }
        match request.send().await {
            Err(ClientError::Rejected { answer, .. }) if answer.get("errors").is_some() => {
                Ok(answer)
            }
            other => other,
        }
    }

    fn print(&self, context: &Context<'_>, report: &Report) -> Result<(), CommandError> {
        for dag in &report.deployed {
            for warning in &dag.warnings {
                context.console.note(&warning.to_string());
            }
            let what = match (self.dry_run, dag.is_new) {
                (true, true) => "would be a new version".to_owned(),
                (true, false) => "is deployed as it is".to_owned(),
                (false, true) => format!("version {}", dag.version_number),
                (false, false) => format!("version {}, unchanged", dag.version_number),
            };
            context.console.line(&format!("{}: {what}", dag.dag_id))?;
        }
        for error in &report.errors {
            context.console.note(&error.to_string());
        }
        Ok(())
    }
}

/// What to send: a folder as a compressed archive, a file as it is.
async fn pack(path: &Path) -> Result<(&'static str, Vec<u8>), CommandError> {
    if path.is_dir() {
        let dir = path.to_owned();
        let packed = tokio::task::spawn_blocking(move || bundle::pack(&dir)).await;
        let packed = packed.map_err(|error| CommandError::Usage(error.to_string()))?;
        let packed = packed.map_err(|error| CommandError::Usage(error.to_string()))?;
        return Ok(("application/zstd", packed.archive.into()));
    }
    let content_type = match path.extension().is_some_and(|ending| ending == "json") {
        true => "application/json",
        false => "application/yaml",
    };
    let body = std::fs::read(path).map_err(unreadable(path))?;
    Ok((content_type, body))
}
