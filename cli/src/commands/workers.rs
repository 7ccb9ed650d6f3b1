//! `gristmill workers`.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde::Deserialize;

use super::Context;
use super::exit::{CommandError, Outcome};
use super::output::{Output, Tabular, ago};

/// More workers than anybody looks at.
const MOST_WORKERS: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Workers {
    /// List the workers that are alive
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Deserialize)]
struct Worker {
    name: String,
    hostname: String,
    queues: Vec<String>,
    slots: u32,
    running: u32,
    paused: bool,
    draining: bool,
    version: String,
    started_at: Option<DateTime<Utc>>,
}

impl Tabular for Worker {
    const HEADER: &'static [&'static str] = &[
        "WORKER", "HOST", "QUEUES", "RUNNING", "STATE", "VERSION", "STARTED",
    ];

    fn cells(&self, now: DateTime<Utc>) -> Vec<String> {
        let state = match (self.draining, self.paused) {
            (true, _) => "draining",
            (_, true) => "paused",
            _ => "active",
        };
        vec![
            self.name.clone(),
            self.hostname.clone(),
            self.queues.join(","),
            format!("{}/{}", self.running, self.slots),
            state.to_owned(),
            self.version.clone(),
            ago(self.started_at, now),
        ]
    }
}

impl Workers {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let Self::List { output } = self;
        let client = context.client().await?;
        let rows = client
            .list(&["workers"], &[], "workers", MOST_WORKERS)
            .await?;
        output.rows::<Worker>(context.console, rows)?;
        Ok(Outcome::Done)
    }
}
