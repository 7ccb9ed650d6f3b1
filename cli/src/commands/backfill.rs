//! `gristmill backfill`.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Context;
use super::exit::{CommandError, Outcome};
use super::output::{Output, Tabular, ago, short, yes_no};
use crate::client::Client;

/// Between two looks at how far a backfill is.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub(crate) enum Backfill {
    /// Make the runs that a DAG's schedule would have made between two dates
    Create(Create),
    /// List backfills, newest first
    List {
        /// Only this DAG's
        dag_id: Option<String>,
        /// Only those that have not ended
        #[arg(long)]
        active: bool,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Show one, and how far it is
    Show {
        id: i64,
        #[command(flatten)]
        output: Output,
    },
    /// Start no further runs; those that run go on
    Pause { id: i64 },
    /// Start runs again
    Unpause { id: i64 },
    /// Cancel the runs that have not started; those that run go on
    Cancel { id: i64 },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gristmill backfill create daily_sales --from 2026-01-01 --to 2026-01-31 --dry-run
  gristmill backfill create daily_sales --from 2026-01-01 --to 2026-01-31 --max-active-runs 4 --wait")]
pub(crate) struct Create {
    dag_id: String,
    /// First logical date (2026-01-01, or a time such as 2026-01-01T08:30:00+09:00)
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    from: DateTime<Utc>,
    /// Last logical date
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    to: DateTime<Utc>,
    /// The newest date first
    #[arg(long)]
    backwards: bool,
    /// Runs of it that run at one time, apart from the DAG's own limit
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..))]
    max_active_runs: i32,
    /// What becomes of dates that have a run already
    #[arg(long, value_enum, default_value_t)]
    reprocess: Reprocess,
    /// Configuration of each run, as JSON
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    conf: Option<Map<String, Value>>,
    /// Only say which runs it would make
    #[arg(long)]
    dry_run: bool,
    /// Wait for the end of all runs; the exit code is 1 if one failed
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Reprocess {
    /// They are left out
    #[default]
    None,
    /// They get another run if their newest one failed
    Failed,
    /// They get another run, however the newest one ended
    Completed,
}

impl Reprocess {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Failed => "failed",
            Self::Completed => "completed",
        }
    }
}

fn parse_date(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(date) = DateTime::parse_from_rfc3339(text) {
        return Ok(date.to_utc());
    }
    text.parse::<NaiveDate>()
        .ok()
        .and_then(|date| date.and_hms_opt(0, 0, 0))
        .map(|midnight| midnight.and_utc())
        .ok_or_else(|| {
            "write a date such as 2026-01-01 (midnight UTC), or a time with its offset such as 2026-01-01T08:30:00+09:00".to_owned()
        })
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("it is no JSON object: {error}"))
}

#[derive(Debug, Deserialize)]
struct Progress {
    id: i64,
    dag_id: String,
    from_date: DateTime<Utc>,
    to_date: DateTime<Utc>,
    is_paused: bool,
    completed_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    left_out: i64,
    runs: Runs,
}

#[derive(Debug, Deserialize)]
struct Runs {
    queued: i64,
    running: i64,
    success: i64,
    failed: i64,
}

impl Progress {
    fn text(&self) -> String {
        let Runs {
            queued,
            running,
            success,
            failed,
        } = self.runs;
        format!("{success} succeeded, {failed} failed, {running} running, {queued} queued")
    }
}

impl Tabular for Progress {
    const HEADER: &'static [&'static str] = &[
        "ID", "DAG", "FROM", "TO", "QUEUED", "RUNNING", "SUCCESS", "FAILED", "PAUSED", "CREATED",
        "ENDED",
    ];

    fn cells(&self, now: DateTime<Utc>) -> Vec<String> {
        let date = |date: DateTime<Utc>| date.format("%Y-%m-%dT%H:%MZ").to_string();
        vec![
            self.id.to_string(),
            short(&self.dag_id, 40),
            date(self.from_date),
            date(self.to_date),
            self.runs.queued.to_string(),
            self.runs.running.to_string(),
            self.runs.success.to_string(),
            self.runs.failed.to_string(),
            yes_no(self.is_paused),
            ago(Some(self.created_at), now),
            ago(self.completed_at, now),
        ]
    }
}

#[derive(Debug, Deserialize)]
struct Planned {
    data_interval_start: DateTime<Utc>,
    data_interval_end: DateTime<Utc>,
}

impl Tabular for Planned {
    const HEADER: &'static [&'static str] = &["INTERVAL START", "INTERVAL END"];

    fn cells(&self, _now: DateTime<Utc>) -> Vec<String> {
        vec![
            self.data_interval_start.to_rfc3339(),
            self.data_interval_end.to_rfc3339(),
        ]
    }
}

impl Backfill {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        match self {
            Self::Create(create) => return create.run(context, &client).await,
            Self::List {
                dag_id,
                active,
                limit,
                output,
            } => {
                let mut query: Vec<(&str, String)> = Vec::new();
                query.extend(dag_id.map(|dag_id| ("dag_id", dag_id)));
                query.extend(active.then(|| ("active", "true".to_owned())));
                let rows = client
                    .list(&["backfills"], &query, "backfills", limit)
                    .await?;
                output.rows::<Progress>(context.console, rows)?;
            }
            Self::Show { id, output } => {
                let answer = client.get(&["backfills", &id.to_string()]).send().await?;
                output.object(context.console, &answer)?;
            }
            Self::Pause { id } => set(context, &client, id, "pause", "paused").await?,
            Self::Unpause { id } => set(context, &client, id, "unpause", "goes on").await?,
            Self::Cancel { id } => set(context, &client, id, "cancel", "cancelled").await?,
        }
        Ok(Outcome::Done)
    }
}

async fn set(
    context: &Context<'_>,
    client: &Client,
    id: i64,
    action: &str,
    done: &str,
) -> Result<(), CommandError> {
    let path = ["backfills", &id.to_string(), action];
    let answer: Progress = client.request(Method::PUT, &path).fetch().await?;
    context
        .console
        .note(&format!("backfill {id} {done}: {}", answer.text()));
    Ok(())
}

impl Create {
    fn body(&self) -> Value {
        json!({
            "dag_id": self.dag_id,
            "from_date": self.from,
            "to_date": self.to,
            "run_backwards": self.backwards,
            "max_active_runs": self.max_active_runs,
            "reprocess_behavior": self.reprocess.as_str(),
            "dag_run_conf": self.conf,
        })
    }

    async fn run(self, context: &Context<'_>, client: &Client) -> Result<Outcome, CommandError> {
        let body = self.body();
        if self.dry_run {
            return self.show_plan(context, client, &body).await;
        }
        let made: Progress = client
            .request(Method::POST, &["backfills"])
            .json(&body)
            .fetch()
            .await?;
        let id = made.id.to_string();
        context.console.note(&format!(
            "backfill {id}: {} runs, {} dates left out because they have a run",
            made.runs.queued + made.runs.running + made.runs.success + made.runs.failed,
            made.left_out
        ));
        let path = ["backfills", id.as_str()];
        if self.wait {
            let mut told = String::new();
            loop {
                let progress: Progress = client.get(&path).fetch().await?;
                if told != progress.text() {
                    told = progress.text();
                    context.console.note(&format!("backfill {id}: {told}"));
                }
                if progress.completed_at.is_some() {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        let answer = client.get(&path).send().await?;
        if self.output.is_json() {
            context.console.json(&answer)?;
        }
        let failed = answer["runs"]["failed"].as_i64().unwrap_or(0);
        Ok(match self.wait && failed > 0 {
            true => Outcome::RunFailed,
            false => Outcome::Done,
        })
    }

    async fn show_plan(
        &self,
        context: &Context<'_>,
        client: &Client,
        body: &Value,
    ) -> Result<Outcome, CommandError> {
        let mut answer = client
            .request(Method::POST, &["backfills", "dry_run"])
            .json(body)
            .send()
            .await?;
        if self.output.is_json() {
            context.console.json(&answer)?;
            return Ok(Outcome::Done);
        }
        let left_out = answer["left_out"].as_array().map_or(0, Vec::len);
        let rows = match answer["backfills"].take() {
            Value::Array(rows) => rows,
            _ => Vec::new(),
        };
        let total = rows.len();
        context.console.note(&format!(
            "{total} runs would be made, {left_out} dates left out because they have a run"
        ));
        let rows = crate::client::Rows { rows, total };
        self.output.rows::<Planned>(context.console, rows)?;
        Ok(Outcome::Done)
    }
}
