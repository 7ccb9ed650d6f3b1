//! Others under the same loads, on the same broker: scripts that print figures by our keys.

use crate::{
    bench::BenchArgs,
    deployment::Deployment,
    error::{LoadError, Result},
    report::Peer,
};
use clap::ValueEnum;
use gristmill_testkit::{RedisDb, Vhost, shared};
use std::{env, path::PathBuf, process::Stdio};

/// Folder of the scripts; by default that of the source tree, seen from its root.
const FOLDER: &str = "GRISTMILL_BENCH_PEERS";

/// Whom to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PeerName {
    /// Celery alone, with its defaults and with reliable settings
    Celery,
}

impl PeerName {
    pub fn name(self) -> &'static str {
        match self {
            Self::Celery => "celery",
        }
    }
}

/// Runs the peer's script beside `deployment`, whose roles should idle: it uses a vhost and a database number of its own on
/// the same RabbitMQ and Redis, and their CPU time is counted.
pub(crate) async fn measure(
    peer: PeerName,
    args: &BenchArgs,
    deployment: &Deployment,
) -> Result<Vec<Peer>> {
    let failed = |why: String| LoadError::Peer {
        peer: peer.name(),
        why,
    };
    let servers = deployment
        .servers()
        .ok_or_else(|| failed("it needs real servers".to_owned()))?;
    let vhost: Vhost = match servers.rabbitmq() {
        Ok(private) => private.vhost().await?,
        Err(_) => shared::rabbitmq_vhost().await?,
    };
    let redis = RedisDb::create(servers.redis_url()).await?;
    let folder =
        env::var_os(FOLDER).map_or_else(|| PathBuf::from("scripts/bench-peers"), PathBuf::from);
    let script = folder.join(format!("{}.sh", peer.name()));
    let mut command = tokio::process::Command::new(&script);
    command
        .args(["--amqp", vhost.url(), "--redis", redis.url()])
        .arg(format!("--tasks={}", args.tasks))
        .arg(format!("--noop-tasks={}", args.noop_tasks))
        .arg(format!("--repetitions={}", args.repetitions))
        .arg(format!("--idle={}", args.idle))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    for server in ["rabbitmq", "redis"] {
        if let Some(pid) = deployment.processes.root(server) {
            command.arg(format!("--server-pid={pid}"));
        }
    }
    let output = command
        .output()
        .await
        .map_err(|error| failed(format!("{} cannot be run: {error}", script.display())))?;
    if !output.status.success() {
        return Err(failed(format!(
            "{} ended with {}",
            script.display(),
            output.status
        )));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| failed(format!("{} printed no figures: {error}", script.display())))
}
