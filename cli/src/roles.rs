//! The roles that the binary plays: each is a process of its own, or all of them are one (`standalone`).

mod apart;
mod api;
mod connect;
mod dags;
mod health;
mod healthcheck;
mod memory;
mod migrate;
mod scheduler;
mod secret;
mod signals;
mod standalone;
mod worker;

pub(crate) use api::ApiArgs;
pub(crate) use healthcheck::HealthcheckArgs;
pub(crate) use memory::share as share_memory;
pub(crate) use migrate::MigrateArgs;
pub(crate) use scheduler::SchedulerArgs;
pub(crate) use standalone::{AT, StandaloneArgs};
pub(crate) use worker::WorkerArgs;

use clap::Subcommand;

/// A role did not start, or ended before its time. The message is for the operator.
pub(crate) type RoleResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The roles.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Run everything in one process, on SQLite and in-process parts
    Standalone(StandaloneArgs),
    /// Run a scheduler (any number may run)
    Scheduler(SchedulerArgs),
    /// Run a worker (any number may run)
    Worker(WorkerArgs),
    /// Run an API server (any number may run)
    Api(ApiArgs),
    /// Bring the database schema to this version (safe from many processes at once)
    Migrate(MigrateArgs),
    /// Ask a role on this host whether it is well; for container health checks
    Healthcheck(HealthcheckArgs),
}

impl Role {
    pub(crate) async fn run(self) -> RoleResult {
        if !matches!(self, Self::Migrate(_) | Self::Healthcheck(_)) {
            memory::give_back();
        }
        match self {
            Self::Standalone(args) => standalone::run(args).await,
            Self::Scheduler(args) => scheduler::run(args).await,
            Self::Worker(args) => worker::run(args).await,
            Self::Api(args) => api::run(args).await,
            Self::Migrate(args) => migrate::run(args).await,
            Self::Healthcheck(args) => healthcheck::run(args).await,
        }
    }
}

/// This machine's name.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}
