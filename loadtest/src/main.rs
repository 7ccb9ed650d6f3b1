//! `gristmill-loadtest`: puts load on a deployment over its REST API and measures what it costs.
//!
//! - [`bench`]: the scenarios and the order in which they run;
//! - [`deployment`]: private deployments of the shipped binary, real servers or standalone;
//! - [`client`]: the few REST calls that the scenarios need;
//! - [`measure`]: CPU time and memory from `/proc`, SQL statements from the database, samples and their medians;
//! - [`report`]: the figures as a table and as JSON, with the aims and the peers' figures beside.

mod bench;
mod client;
mod deployment;
mod error;
mod measure;
mod report;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measures Gristmill under load.
#[derive(Debug, Parser)]
#[command(name = "gristmill-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::BenchArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(args) => bench::run(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gristmill-loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
