//! `gristmill-loadtest`: puts load on a deployment over its REST API and measures what it costs.
//!
//! - [`bench`]: what tasks cost, scenario by scenario, against the targets;
//! - [`run`](mod@run): a steady load on any deployment;
//! - [`compare`]: a gate on what can be counted;
//! - [`peers`]: others under the same loads;
//! - [`deployment`]: private deployments of the shipped binary, real servers or standalone, and any other by its URL;
//! - [`client`]: the few REST calls that the scenarios need;
//! - [`measure`]: CPU time and memory from `/proc`, SQL statements from the database, samples and their medians;
//! - [`history`]: databases full of ended tasks;
//! - [`report`]: the figures as a table, as JSON and as a page with plots, with the targets and the peers' figures beside;
//! - [`workload`]: random but reproducible DAGs whose tasks' outcomes are known beforehand, and the ledger they write;
//! - [`chaos`]: faults by a seeded schedule under load, judged by the checker;
//! - [`check`]: the invariants of `gristmill_common::invariant`, looked for in database, broker, Redis and ledger.

pub mod bench;
pub mod chaos;
pub mod check;
pub mod client;
pub mod compare;
pub mod deployment;
pub mod error;
pub mod history;
pub mod measure;
pub mod peers;
pub mod progress;
pub mod report;
pub mod run;
pub mod workload;

use clap::{Parser, Subcommand};
use error::Result;
use std::process::ExitCode;

/// Measures Gristmill under load.
#[derive(Debug, Parser)]
#[command(name = "gristmill-loadtest", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::BenchArgs),
    Run(run::RunArgs),
    Chaos(chaos::ChaosArgs),
    Report(report::ReportArgs),
    Compare(compare::CompareArgs),
    Check(check::CheckArgs),
}

impl Cli {
    /// Does what the command line asks for, and gives the exit code.
    pub async fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Bench(args) => bench::run(args).await?,
            Command::Run(args) => {
                if !run::run(args).await? {
                    return Ok(ExitCode::FAILURE);
                }
            }
            Command::Chaos(args) => return chaos::run(args).await,
            Command::Report(args) => report::run(&args)?,
            Command::Compare(args) => {
                if !compare::run(args).await? {
                    return Ok(ExitCode::FAILURE);
                }
            }
            Command::Check(args) => {
                if !args.run().await? {
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
