//! `gristmill-loadtest`; what it does is in the library.

use clap::Parser;
use gristmill_loadtest::Cli;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gristmill-loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
