//! `gristmill tasks`.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use gristmill_common::spec::REJECT;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::Context;
use super::amend;
use super::exit::{CommandError, Outcome};
use super::output::{Format, Output, Tabular, ago, length, or_dash, short};
use super::tail::{Tail, is_transient, last_lines};
use crate::client::{Client, Instance, LogLine, LogQuery, RunName};

/// Between two looks at a log that is followed.
const PAUSE: Duration = Duration::from_millis(200);
/// Seconds that one look may wait for a line.
const WAIT_S: u64 = 10;

#[derive(Debug, Subcommand)]
pub(crate) enum Tasks {
    /// List a run's task instances
    List(List),
    /// Print the log of a task's attempt
    #[command(after_help = "Examples:
  gristmill tasks logs daily_sales nightly-7 fetch
  gristmill tasks logs daily_sales nightly-7 per_region --map-index 2 --try 1
  gristmill tasks logs daily_sales nightly-7 totals -f")]
    Logs(Logs),
    /// Say why a task instance is not running (yet, or any more)
    Explain(Explain),
    /// Run task instances anew; what runs is stopped first
    #[command(after_help = "Examples:
  gristmill tasks clear daily_sales nightly-7 --only-failed
  gristmill tasks clear daily_sales nightly-7 clean --downstream --dry-run
  gristmill tasks clear daily_sales nightly-7 per_region --map-index 2")]
    Clear(amend::ClearTasks),
    /// Say how a task has ended; what runs is stopped first
    #[command(after_help = "Example:
  gristmill tasks mark daily_sales nightly-7 fetch --state success")]
    Mark(amend::MarkTask),
    /// Approve what an approval task asks
    #[command(after_help = "Examples:
  gristmill tasks approve release nightly-7 ask
  gristmill tasks approve release nightly-7 choose --option blue")]
    Approve(Approve),
    /// Reject what an approval task asks
    Reject(Reject),
}

#[derive(Debug, Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    name: Name,
    /// The answer, of those that the task gives
    #[arg(long, default_value = "approve")]
    option: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Reject {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    output: Output,
}

/// Names a task instance.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The task
    task_id: String,
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", default_value_t = -1, hide_default_value = true)]
    map_index: i32,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// Only those in this state; may be repeated
    #[arg(long)]
    state: Vec<String>,
    /// At most so many
    #[arg(long, default_value_t = 200)]
    limit: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    name: Name,
    /// Which attempt, counted from 1; the latest if absent
    #[arg(
        long = "try",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    try_number: u32,
    /// Go on until the attempt has ended
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES", conflicts_with = "follow")]
    tail: Option<usize>,
    /// With each line its time
    #[arg(short, long)]
    timestamps: bool,
    /// Print lines as text, or as one JSON object each
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    output: Output,
}

/// Why a task instance stands where it stands.
#[derive(Debug, Deserialize)]
struct Explanation {
    task_id: String,
    map_index: i32,
    state: Option<String>,
    reasons: Vec<Reason>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    message: String,
}

impl Tasks {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        match self {
            Self::List(list) => list.run(&client, context).await?,
            Self::Logs(logs) => logs.run(&client, context).await?,
            Self::Explain(explain) => explain.run(&client, context).await?,
            Self::Clear(clear) => clear.run(&client, context).await?,
            Self::Mark(mark) => mark.run(&client, context).await?,
            Self::Approve(Approve {
                name,
                option,
                output,
            }) => name.answer(&client, context, &option, &output).await?,
            Self::Reject(Reject { name, output }) => {
                name.answer(&client, context, REJECT, &output).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

impl Name {
    async fn answer(
        &self,
        client: &Client,
        context: &Context<'_>,
        option: &str,
        output: &Output,
    ) -> Result<(), CommandError> {
        let map_index = self.map_index.to_string();
        let path = [
            "dags",
            &self.dag_id,
            "dagRuns",
            &self.run_id,
            "taskInstances",
            &self.task_id,
            &map_index,
            "hitlDetails",
        ];
        let body = json!({ "chosen_options": [option] });
        let answer = client
            .request(Method::PATCH, &path)
            .json(&body)
            .send()
            .await?;
        if output.is_json() {
            return Ok(context.console.json(&answer)?);
        }
        let label = crate::client::label(&self.task_id, self.map_index);
        Ok(context.console.line(&format!("{label}: {option}"))?)
    }
}

impl List {
    async fn run(self, client: &Client, context: &Context<'_>) -> Result<(), CommandError> {
        let name = RunName {
            dag_id: self.dag_id,
            run_id: self.run_id,
        };
        let states = self.state.into_iter();
        let query: Vec<(&str, String)> = states.map(|state| ("state", state)).collect();
        let instances = client.instances(&name, &query, self.limit).await?;
        self.output.rows::<Instance>(context.console, instances)
    }
}

impl Tabular for Instance {
    const HEADER: &'static [&'static str] = &[
        "TASK", "STATE", "TRY", "QUEUE", "HOST", "STARTED", "TOOK", "REASON",
    ];

    fn cells(&self, now: DateTime<Utc>) -> Vec<String> {
        let running = || Some((now - self.start_date?).as_seconds_f64());
        let seconds = self
            .duration
            .or_else(|| running().filter(|_| self.state() == "running"));
        vec![
            self.label(),
            self.state().to_owned(),
            self.try_number.to_string(),
            or_dash(self.queue.as_deref()),
            or_dash(self.hostname.as_deref()),
            ago(self.start_date, now),
            length(seconds),
            short(self.reason.as_deref().unwrap_or_default(), 60),
        ]
    }
}

impl Logs {
    async fn run(self, client: &Client, context: &Context<'_>) -> Result<(), CommandError> {
        let lines = Cell::new(0_u64);
        let show = |line: &LogLine| {
            lines.set(lines.get() + 1);
            context.console.line(&self.text(line))
        };
        let run = RunName {
            dag_id: self.name.dag_id.clone(),
            run_id: self.name.run_id.clone(),
        };
        let (task_id, map_index) = (&self.name.task_id, self.name.map_index);
        let mut query = LogQuery::of(&run, task_id, map_index, self.try_number);
        if let Some(count) = self.tail {
            for line in last_lines(client, query, count).await? {
                show(&line)?;
            }
        } else if !self.follow {
            Tail::new(query).pull(client, usize::MAX, show).await?;
        } else {
            query.wait_s = WAIT_S;
            follow(client, Tail::new(query), show).await?;
        }
        if lines.get() == 0 {
            context.console.note("the log is empty so far");
        }
        Ok(())
    }

    fn text(&self, line: &LogLine) -> String {
        let time = line
            .timestamp
            .map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
        if self.output == Format::Json {
            let mut object = json!({"timestamp": time, "level": line.level, "event": line.event});
            if let Some(object) = object.as_object_mut() {
                object.extend(line.more.clone());
            }
            return object.to_string();
        }
        match time.filter(|_| self.timestamps) {
            Some(time) => format!("{time} {}", line.event),
            None => line.event.clone(),
        }
    }
}

/// Reads until the attempt has ended, across restarts of the API.
async fn follow(
    client: &Client,
    mut tail: Tail,
    show: impl Fn(&LogLine) -> io::Result<()>,
) -> Result<(), CommandError> {
    while !tail.ended {
        match tail.pull(client, usize::MAX, &show).await {
            Err(error) if !(tail.begun() && is_transient(&error)) => return Err(error),
            _ => {}
        }
        if !tail.ended {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

impl Explain {
    async fn run(self, client: &Client, context: &Context<'_>) -> Result<(), CommandError> {
        let map_index = self.name.map_index.to_string();
        let mut path = vec![
            "dags",
            &self.name.dag_id,
            "dagRuns",
            &self.name.run_id,
            "taskInstances",
            &self.name.task_id,
        ];
        if self.name.map_index >= 0 {
            path.push(&map_index);
        }
        path.push("explain");
        if self.output.is_json() {
            let answer = client.get(&path).send().await?;
            return Ok(context.console.json(&answer)?);
        }
        let answer: Explanation = client.get(&path).fetch().await?;
        Ok(context.console.line(&answer.text())?)
    }
}

impl Explanation {
    fn text(&self) -> String {
        let label = crate::client::label(&self.task_id, self.map_index);
        let mut text = format!("{label} is {}", self.state.as_deref().unwrap_or("none"));
        for reason in &self.reasons {
            text.push_str("\n  ");
            text.push_str(&reason.message);
        }
        text
    }
}
