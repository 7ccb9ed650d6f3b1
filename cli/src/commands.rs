//! The client commands: everything that talks to a running Gristmill over its REST API. One file per noun.

mod amend;
mod artifacts;
mod backfill;
mod callbacks;
mod ci;
mod connections;
mod console;
mod dags;
mod exit;
mod follow;
mod noun;
mod output;
mod parallelism;
mod pools;
mod progress;
mod queues;
mod report;
mod run;
mod runs;
mod tail;
mod tasks;
mod validate;
mod variables;
mod workers;
mod xcom;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::client::{Client, Sources};
use ci::Environment;
use console::Console;
use exit::{CommandError, Outcome};

/// Where the API is, and what opens it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// Address of the REST API
    #[arg(
        long,
        env = "GRISTMILL_API_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        global = true,
        help_heading = "API"
    )]
    pub(crate) api_url: String,

    /// Token for the API; better given by the environment, which other users of this machine cannot see
    #[arg(
        long,
        env = "GRISTMILL_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        global = true,
        help_heading = "API"
    )]
    pub(crate) token: Option<String>,

    /// File that holds the token; the default is ~/.config/gristmill/token, and for an API on this machine
    /// ./.gristmill/client-token, which standalone writes
    #[arg(
        long,
        env = "GRISTMILL_TOKEN_FILE",
        value_name = "FILE",
        global = true,
        help_heading = "API"
    )]
    pub(crate) token_file: Option<PathBuf>,
}

/// The client commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// DAGs: list, check, deploy, pause
    #[command(subcommand)]
    Dags(dags::Dags),
    // Described by its struct, at length.
    Run(run::Run),
    /// Runs: list, show, wait for, cancel
    #[command(subcommand)]
    Runs(runs::Runs),
    /// Task instances: list, read logs, ask why they wait
    #[command(subcommand)]
    Tasks(tasks::Tasks),
    /// Values that tasks returned
    #[command(subcommand)]
    Xcom(xcom::Xcom),
    /// Files that tasks have left
    #[command(subcommand)]
    Artifacts(artifacts::Artifacts),
    // Described by its struct, at length.
    Queues(queues::Queues),
    /// Backfills: runs of the past, made afterwards
    #[command(subcommand)]
    Backfill(backfill::Backfill),
    /// Callbacks that were called: whether they were delivered
    #[command(subcommand)]
    Callbacks(callbacks::Callbacks),
    /// Workers that are alive
    #[command(subcommand)]
    Workers(workers::Workers),
    /// Pools: how many slots, how many taken
    #[command(subcommand)]
    Pools(pools::Pools),
    // Described by its struct, at length.
    Parallelism(parallelism::Parallelism),
    /// Variables, for templates
    #[command(subcommand)]
    Variables(variables::Variables),
    /// Connections, for http tasks and templates
    #[command(subcommand)]
    Connections(connections::Connections),
}

/// What every command gets.
#[derive(Debug)]
struct Context<'a> {
    globals: &'a Globals,
    console: &'a Console,
    environment: &'a Environment,
}

impl Context<'_> {
    /// The API, with a token if there is one anywhere.
    async fn client(&self) -> Result<Client, CommandError> {
        let sources =
            Sources::from_env(self.globals.token.clone(), self.globals.token_file.clone());
        Ok(Client::connect(&self.globals.api_url, &sources).await?)
    }
}

/// Runs a client command and says what went wrong. Needs a runtime with time and I/O.
pub(crate) async fn run(command: Command, globals: Globals) -> ExitCode {
    let console = Console::of_process();
    let context = Context {
        globals: &globals,
        console: &console,
        environment: &Environment::of_process(),
    };
    let result = dispatch(command, &context).await;
    if let Err(error) = &result
        && let Some(text) = error.text()
    {
        console.note(&format!("error: {text}"));
    }
    ExitCode::from(exit::code(&result))
}

async fn dispatch(command: Command, context: &Context<'_>) -> Result<Outcome, CommandError> {
    // Boxed: a command's future holds several requests, and only one command runs.
    match command {
        Command::Dags(command) => Box::pin(command.run(context)).await,
        Command::Run(command) => Box::pin(command.run(context)).await,
        Command::Runs(command) => Box::pin(command.run(context)).await,
        Command::Tasks(command) => Box::pin(command.run(context)).await,
        Command::Xcom(command) => Box::pin(command.run(context)).await,
        Command::Artifacts(command) => Box::pin(command.run(context)).await,
        Command::Queues(command) => Box::pin(command.run(context)).await,
        Command::Backfill(command) => Box::pin(command.run(context)).await,
        Command::Callbacks(command) => Box::pin(command.run(context)).await,
        Command::Workers(command) => Box::pin(command.run(context)).await,
        Command::Pools(command) => Box::pin(command.run(context)).await,
        Command::Parallelism(command) => Box::pin(command.run(context)).await,
        Command::Variables(command) => Box::pin(command.run(context)).await,
        Command::Connections(command) => Box::pin(command.run(context)).await,
    }
}

#[cfg(test)]
mod tests;
