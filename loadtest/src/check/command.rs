//! `check`: the checker on the command line, for any deployment that is at rest.

use super::{AcceptedRun, CheckError, Evidence, Verdict, check};
use crate::workload::{Options, Workload};
use chrono::Utc;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, time::Duration};

/// Looks for breaches of the guarantees in a deployment that is at rest (no run is under way, or one that hangs)
///
/// It reads the database, RabbitMQ, Redis and, if the tasks kept one, the ledger; it changes nothing.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// `postgres://…`
    #[arg(long, env = "GRISTMILL_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// `amqp://…`
    #[arg(long, env = "GRISTMILL_AMQP_URL", hide_env_values = true)]
    amqp_url: String,
    /// RabbitMQ's management API, `http://user:password@host:15672`; without it unacknowledged messages are not seen
    #[arg(long)]
    management_url: Option<String>,
    /// `redis://…`
    #[arg(long, env = "GRISTMILL_REDIS_URL", hide_env_values = true)]
    redis_url: String,
    /// Folder of the ledger that the tasks of a load test kept; without it live attempts and limits are not checked
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Seed and number of tasks of the workload, `SEED:TASKS`: what its tasks should have done is then known
    #[arg(long, requires = "ledger", value_parser = seed_and_tasks)]
    workload: Option<(u64, usize)>,
    /// File with a line `DAG_ID RUN_ID` for each run that the API accepted
    #[arg(long)]
    accepted: Option<PathBuf>,
    /// Seconds to wait for what ends by itself
    #[arg(long, default_value_t = 15)]
    patience: u64,
    /// Clocks of this machine, the workers and the database differ, or were moved
    #[arg(long)]
    clocks_differ: bool,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

fn seed_and_tasks(text: &str) -> Result<(u64, usize), String> {
    let parsed = text
        .split_once(':')
        .and_then(|(seed, tasks)| Some((seed.parse().ok()?, tasks.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is not SEED:TASKS, two whole numbers"))
}

impl CheckArgs {
    /// Checks and prints; answers whether everything holds.
    pub async fn run(self) -> Result<bool, CheckError> {
        let workload = match (self.workload, &self.ledger) {
            (Some((seed, tasks)), Some(ledger)) => {
                Workload::generate(&Options::new(seed, tasks, ledger.clone()))?
            }
            _ => Workload::unknown(self.ledger.clone().unwrap_or_default()),
        };
        let evidence = Evidence {
            accepted: match &self.accepted {
                Some(path) => accepted(path)?,
                None => Vec::new(),
            },
            database_url: self.database_url,
            amqp_url: self.amqp_url,
            management_url: self.management_url,
            redis_url: self.redis_url,
            ledger: self.ledger,
            patience: Duration::from_secs(self.patience),
            clocks_moved: self.clocks_differ,
        };
        let verdict = check(&evidence, &workload).await?;
        match self.output {
            Output::Text => println!("{verdict}"),
            Output::Json => println!("{:#}", as_json(&verdict)),
        }
        Ok(verdict.holds())
    }
}

fn accepted(path: &PathBuf) -> Result<Vec<AcceptedRun>, CheckError> {
    let text = fs::read_to_string(path).map_err(|error| CheckError::Read {
        path: path.clone(),
        error,
    })?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (dag_id, run_id) = line.trim().split_once(' ').ok_or_else(|| {
                CheckError::Strange(format!(
                    "{line:?} in {} is not DAG_ID RUN_ID",
                    path.display()
                ))
            })?;
            Ok(AcceptedRun {
                dag_id: dag_id.to_owned(),
                run_id: run_id.to_owned(),
                accepted_at: Utc::now(),
            })
        })
        .collect()
}

/// `{"holds", "breaches": [{"invariant", "what"}], "totals", "unchecked", "counted"}`
fn as_json(verdict: &Verdict) -> Value {
    let breaches: Vec<Value> = verdict
        .breaches
        .iter()
        .map(|breach| json!({"invariant": breach.invariant.name(), "what": breach.what}))
        .collect();
    let totals: serde_json::Map<String, Value> = verdict
        .totals
        .iter()
        .map(|(invariant, n)| (invariant.name().to_owned(), json!(n)))
        .collect();
    let unchecked: serde_json::Map<String, Value> = verdict
        .unchecked
        .iter()
        .map(|(invariant, why)| (invariant.name().to_owned(), json!(why)))
        .collect();
    json!({
        "holds": verdict.holds(),
        "breaches": breaches,
        "totals": totals,
        "unchecked": unchecked,
        "counted": verdict.counted,
    })
}
