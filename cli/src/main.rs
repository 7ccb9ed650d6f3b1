//! Gristmill: one binary, every role and command.

mod client;
mod commands;
mod roles;

use clap::{Parser, Subcommand};
use gristmill_telemetry::{LogFormat, init_logging};
use std::process::ExitCode;
use tokio::runtime::Builder;

/// A queue-driven workflow engine: DAGs in, task instances through RabbitMQ to workers, results out
#[derive(Debug, Parser)]
#[command(
    name = "gristmill",
    version,
    propagate_version = true,
    max_term_width = 110
)]
struct Cli {
    /// Shape of a role's log lines: auto, text or json
    #[arg(
        long,
        env = "GRISTMILL_LOG_FORMAT",
        default_value = "auto",
        global = true
    )]
    log_format: LogFormat,
    #[command(flatten)]
    globals: commands::Globals,
    #[command(subcommand)]
    command: Top,
}

#[derive(Debug, Subcommand)]
enum Top {
    #[command(flatten)]
    Role(roles::Role),
    #[command(flatten)]
    Client(commands::Command),
}

fn main() -> ExitCode {
    // The guardian forks: it has to begin before any thread does, and takes no arguments.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == "guardian")
    {
        gristmill_guardian::run_guardian();
    }
    let cli = Cli::parse();
    let runtime = match &cli.command {
        Top::Role(_) => {
            roles::share_memory();
            Builder::new_multi_thread().enable_all().build()
        }
        Top::Client(_) => Builder::new_current_thread().enable_all().build(),
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gristmill: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match cli.command {
        Top::Role(role) => {
            init_logging(cli.log_format);
            let result = runtime.block_on(role.run());
            runtime.shutdown_background();
            match result {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("gristmill: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Top::Client(command) => runtime.block_on(commands::run(command, cli.globals)),
    }
}
