//! `gristmill worker`.

use super::{RoleResult, connect, health, hostname, signals};
use clap::Args;
use gristmill_common::span::Span;
use gristmill_guardian::GuardianConfig;
use gristmill_telemetry::init_metrics;
use gristmill_worker::{Parts, WorkerConfig, WorkerHealth};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};

/// Runs task instances. Needs `GRISTMILL_AMQP_URL`, `GRISTMILL_REDIS_URL`, `GRISTMILL_STORE` and `GRISTMILL_SECRET_KEY`
/// (each also as `…_FILE`), and `GRISTMILL_API_URL` for XComs that Redis has lost. It never connects to the database.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Queues to take work from
    #[arg(
        long,
        env = "GRISTMILL_QUEUES",
        value_delimiter = ',',
        default_value = "default"
    )]
    queues: Vec<String>,
    /// Task instances at one time
    #[arg(long, env = "GRISTMILL_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: u32,
    /// Pokes of sensors at one time, beside the tasks
    #[arg(long, env = "GRISTMILL_POKES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pokes: u32,
    /// After SIGTERM: how long running tasks may go on before they are interrupted and requeued
    #[arg(long, env = "GRISTMILL_DRAIN_TIMEOUT", default_value = "5m")]
    drain_timeout: Span,
    /// Name shown to people; the host's name unless given
    #[arg(long, env = "GRISTMILL_WORKER_NAME")]
    name: Option<String>,
    /// Folder for scratch folders and unpacked bundles
    #[arg(long, env = "GRISTMILL_WORK_DIR")]
    work_dir: Option<PathBuf>,
    /// The data engine; by default the `gristmill-data` beside this program
    #[arg(long, env = "GRISTMILL_DATA_ENGINE")]
    data_engine: Option<PathBuf>,
    /// API server to read XComs from that Redis has lost
    #[arg(long, env = "GRISTMILL_API_URL")]
    api_url: Option<String>,
    /// Environment variables of this worker that tasks see too
    #[arg(long, env = "GRISTMILL_PASS_ENV", value_delimiter = ',')]
    pass_env: Vec<String>,
    /// Length of the lease; the same for all schedulers and workers
    #[arg(long, env = "GRISTMILL_LEASE", default_value = "6s")]
    lease: Span,
    /// Address for /health and /metrics
    #[arg(long, env = "GRISTMILL_HEALTH_LISTEN")]
    health_listen: Option<SocketAddr>,
}

pub(super) async fn run(args: WorkerArgs) -> RoleResult {
    let stop = signals::listen()?;
    let metrics = init_metrics()?;
    let hostname = hostname();
    let health = WorkerHealth::default();
    let parts = Parts {
        broker: connect::broker("worker")?,
        presence: connect::presence()?,
        objects: connect::objects()?,
        secret: connect::secret_key()?,
        config: WorkerConfig {
            name: args.name.unwrap_or_else(|| hostname.clone()),
            hostname,
            queues: args.queues,
            concurrency: args.concurrency,
            pokes: args.pokes,
            lease: args.lease.duration(),
            drain_timeout: args.drain_timeout.duration(),
            work_dir: args.work_dir.unwrap_or_else(|| {
                std::env::temp_dir().join(format!("gristmill-worker-{}", std::process::id()))
            }),
            data_engine: args.data_engine.unwrap_or_else(data_engine),
            api_url: args.api_url,
            pass_env: args.pass_env,
            ..WorkerConfig::default()
        },
        health: health.clone(),
    };
    health::serve(args.health_listen, metrics, probe(health)).await?;
    gristmill_worker::run(parts, GuardianConfig::default, stop.orderly, stop.at_once).await?;
    Ok(())
}

/// A worker is well when each of its consumers is registered at the broker: a process that lives is not enough.
fn probe(health: WorkerHealth) -> health::Probe {
    Arc::new(move || {
        let consumers = health.consumers();
        if consumers.is_empty() {
            return vec![("consumers".to_owned(), Err("not started".to_owned()))];
        }
        consumers
            .into_iter()
            .map(|(queue, stands)| {
                let state = if stands {
                    Ok(())
                } else {
                    Err("not registered at the broker".to_owned())
                };
                (format!("queue {queue}"), state)
            })
            .collect()
    })
}

/// The data engine beside this program, else the one on the path.
pub(super) fn data_engine() -> PathBuf {
    std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("gristmill-data"))
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("gristmill-data"))
}
