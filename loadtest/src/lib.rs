//! `gristmill-loadtest`: puts load on a deployment over its REST API and measures what it costs.
//!
//! - [`bench`]: the scenarios and the order in which they run;
//! - [`deployment`]: private deployments of the shipped binary, real servers or standalone, and any other by its URL;
//! - [`client`]: the few REST calls that the scenarios need;
//! - [`measure`]: CPU time and memory from `/proc`, SQL statements from the database, samples and their medians;
//! - [`report`]: the figures as a table and as JSON, with the aims and the peers' figures beside;
//! - [`workload`]: random but reproducible DAGs whose tasks' outcomes are known beforehand, and the ledger they write;
//! - [`check`]: the invariants of `gristmill_common::invariant`, looked for in database, broker, Redis and ledger.

pub mod bench;
pub mod check;
pub mod client;
pub mod deployment;
pub mod error;
pub mod measure;
pub mod report;
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
}

impl Cli {
    /// Does what the command line asks for, and gives the exit code.
    pub async fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Bench(args) => bench::run(args).await.map(|()| ExitCode::SUCCESS),
        }
    }
}
