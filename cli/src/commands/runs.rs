//! `gristmill runs`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::Context;
use super::amend;
use super::ci::CiArgs;
use super::exit::{CommandError, Outcome};
use super::follow::{self, Options, follow};
use super::output::{Output, Tabular, ago, length, short};
use super::run::{conclude, parse_time};
use crate::client::{Run, RunName};

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List runs, newest first
    List(List),
    /// Show one run
    Show(Show),
    /// Wait for a run's end; the exit code says how it ended
    #[command(after_help = "Example:
  gristmill runs wait daily_sales manual__2026-01-02T00:00:00 --logs --timeout 30m")]
    Wait(Wait),
    /// Stop a run: its running tasks are killed, the others are skipped
    Cancel(Cancel),
    /// Run a run's tasks anew; what runs is stopped first
    Clear(amend::ClearRun),
    /// Set a run's state
    Mark(amend::MarkRun),
}

/// Names a run.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
}

impl From<Name> for RunName {
    fn from(name: Name) -> Self {
        Self {
            dag_id: name.dag_id,
            run_id: name.run_id,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this DAG's
    dag_id: Option<String>,
    /// Only those in this state (queued, running, success, failed); may be repeated
    #[arg(long)]
    state: Vec<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    name: Name,
    /// Show the tasks' logs as they come
    #[arg(long)]
    logs: bool,
    /// Wait no longer than this (30s, 5m, 1h30m)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// Ctrl-C (or SIGTERM) cancels the run
    #[arg(long)]
    cancel_on_interrupt: bool,
    #[command(flatten)]
    ci: CiArgs,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    output: Output,
}

impl Runs {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        match self {
            Self::List(list) => list.run(context).await,
            Self::Show(show) => {
                let run = context.client().await?.run(&show.name.into()).await?;
                show.output.object(context.console, &run)?;
                Ok(Outcome::Done)
            }
            Self::Wait(wait) => wait.run(context).await,
            Self::Clear(clear) => {
                clear.run(&context.client().await?, context).await?;
                Ok(Outcome::Done)
            }
            Self::Mark(mark) => {
                mark.run(&context.client().await?, context).await?;
                Ok(Outcome::Done)
            }
            Self::Cancel(cancel) => {
                let name = cancel.name.into();
                let run = context.client().await?.cancel(&name).await?;
                if cancel.output.is_json() {
                    context.console.json(&run)?;
                } else {
                    context.console.note(&format!("cancelling {name}"));
                }
                Ok(Outcome::Done)
            }
        }
    }
}

impl List {
    async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let dag_id = self.dag_id.as_deref().unwrap_or("~");
        let query: Vec<(&str, String)> = self
            .state
            .into_iter()
            .map(|state| ("state", state))
            .collect();
        let runs = client
            .list(&["dags", dag_id, "dagRuns"], &query, "dag_runs", self.limit)
            .await?;
        self.output.rows::<Run>(context.console, runs)?;
        Ok(Outcome::Done)
    }
}

impl Wait {
    async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let mut ci = self.ci.open(context.environment)?;
        let options = Options {
            logs: self.logs,
            logs_to_stderr: self.output.is_json(),
            timeout: self.timeout,
            cancel_on_interrupt: self.cancel_on_interrupt,
            markup: ci.markup.clone(),
            ..Options::default()
        };
        let (name, interrupts) = (self.name.into(), follow::interrupts()?);
        let followed = follow(&client, context.console, &name, &options, interrupts).await?;
        conclude(
            &client,
            context.console,
            followed,
            self.output,
            self.logs,
            &mut ci,
        )
        .await
    }
}

impl Tabular for Run {
    const HEADER: &'static [&'static str] = &["DAG", "RUN", "STATE", "TYPE", "STARTED", "TOOK"];

    fn cells(&self, now: DateTime<Utc>) -> Vec<String> {
        let state = if self.cancelled {
            "cancelled"
        } else {
            &self.state
        };
        let running = || Some((now - self.start_date?).as_seconds_f64());
        let seconds = self
            .seconds()
            .or_else(|| running().filter(|_| !self.is_finished()));
        vec![
            short(&self.dag_id, 40),
            self.dag_run_id.clone(),
            state.to_owned(),
            self.run_type.clone(),
            ago(self.start_date, now),
            length(seconds),
        ]
    }
}
