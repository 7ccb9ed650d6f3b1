//! `gristmill callbacks`.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde::Deserialize;

use super::Context;
use super::exit::{CommandError, Outcome};
use super::output::{Output, Tabular, ago, short};

#[derive(Debug, Subcommand)]
pub(crate) enum Callbacks {
    /// List callbacks, newest first
    #[command(after_help = "Example:
  gristmill callbacks list --state failed")]
    List(List),
    /// Show one: what it told, and what came of it
    Show {
        id: i64,
        #[command(flatten)]
        output: Output,
    },
    /// Deliver again, at once: one that was given up, was delivered or waits for its next attempt
    Retry {
        #[arg(required = true)]
        ids: Vec<i64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only of this DAG
    #[arg(long, value_name = "DAG_ID")]
    dag: Option<String>,
    /// Only of this run of it
    #[arg(long, value_name = "RUN_ID", requires = "dag")]
    run: Option<String>,
    /// Only those
    #[arg(long)]
    state: Option<State>,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// Not delivered yet
    Pending,
    Delivered,
    /// Given up
    Failed,
}

#[derive(Debug, Deserialize)]
struct Callback {
    callback_id: i64,
    dag_id: String,
    dag_run_id: String,
    task_id: Option<String>,
    event: String,
    state: String,
    target: String,
    attempts: i32,
    created_at: DateTime<Utc>,
    last_error: Option<String>,
}

impl Tabular for Callback {
    const HEADER: &'static [&'static str] = &[
        "ID", "DAG", "RUN", "TASK", "EVENT", "STATE", "TARGET", "ATTEMPTS", "CALLED", "ERROR",
    ];

    fn cells(&self, now: DateTime<Utc>) -> Vec<String> {
        vec![
            self.callback_id.to_string(),
            self.dag_id.clone(),
            self.dag_run_id.clone(),
            self.task_id.clone().unwrap_or_default(),
            self.event.clone(),
            self.state.clone(),
            short(&self.target, 30),
            self.attempts.to_string(),
            ago(Some(self.created_at), now),
            short(self.last_error.as_deref().unwrap_or_default(), 60),
        ]
    }
}

impl Callbacks {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        match self {
            Self::List(list) => {
                let state = list.state.and_then(|state| state.to_possible_value());
                let query: Vec<(&str, String)> = [
                    ("dag_id", list.dag),
                    ("dag_run_id", list.run),
                    ("state", state.map(|state| state.get_name().to_owned())),
                ]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
                let path = ["callbacks"];
                let rows = client.list(&path, &query, "callbacks", list.limit).await?;
                list.output.rows::<Callback>(context.console, rows)?;
            }
            Self::Show { id, output } => {
                let answer = client.get(&["callbacks", &id.to_string()]).send().await?;
                output.object(context.console, &answer)?;
            }
            Self::Retry { ids } => {
                for id in ids {
                    let id = id.to_string();
                    let path = ["callbacks", &id, "retry"];
                    client.request(Method::POST, &path).send().await?;
                    context
                        .console
                        .note(&format!("callback {id} is delivered again"));
                }
            }
        }
        Ok(Outcome::Done)
    }
}
