//! Others under the same loads, on the same servers: scripts that print figures by our keys.

use crate::{
    bench::BenchArgs,
    deployment::{Deployment, Servers},
    error::{LoadError, Result},
    report::Peer,
};
use clap::ValueEnum;
use gristmill_testkit::{Database, RedisDb, Vhost, shared};
use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

/// Folder of the scripts; by default that of the source tree, seen from its root.
const FOLDER: &str = "GRISTMILL_BENCH_PEERS";

/// Whom to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PeerName {
    /// Celery alone, with its defaults and with reliable settings
    Celery,
    /// Airflow with the Celery executor (about ten minutes)
    Airflow,
}

impl PeerName {
    pub fn name(self) -> &'static str {
        match self {
            Self::Celery => "celery",
            Self::Airflow => "airflow",
        }
    }

    /// The servers that it stands on, by the names of their processes.
    fn stands_on(self) -> [&'static str; 2] {
        match self {
            Self::Celery => ["rabbitmq", "redis"],
            Self::Airflow => ["rabbitmq", "postgres"],
        }
    }

    fn script(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.sh", self.name()))
    }
}

/// The peer's own part of the deployment's servers, given back with the value.
struct Corner {
    vhost: Vhost,
    redis: Option<RedisDb>,
    database: Option<Database>,
}

impl Corner {
    async fn of(servers: &Servers, peer: PeerName) -> Result<Self> {
        let vhost = match servers.rabbitmq() {
            Ok(private) => private.vhost().await?,
            Err(_) => shared::rabbitmq_vhost().await?,
        };
        let (redis, database) = match peer {
            PeerName::Celery => (Some(RedisDb::create(servers.redis_url()).await?), None),
            PeerName::Airflow => {
                let database = match servers.postgres() {
                    Ok(private) => Database::create(&private.url(), None).await?,
                    Err(_) => shared::postgres_database().await?,
                };
                (None, Some(database))
            }
        };
        Ok(Self {
            vhost,
            redis,
            database,
        })
    }

    /// Options of the peer's script.
    fn arguments(&self) -> Vec<String> {
        let redis = self.redis.as_ref().map(RedisDb::url);
        let database = self.database.as_ref().map(Database::url);
        let named = [
            ("amqp", Some(self.vhost.url())),
            ("redis", redis),
            ("database", database),
        ];
        named
            .into_iter()
            .filter_map(|(option, url)| Some(format!("--{option}={}", url?)))
            .collect()
    }
}

/// Runs the peer's script beside `deployment`, whose roles should idle: it uses a corner of its own on the same servers, and
/// their CPU time is counted.
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
    let corner = Corner::of(servers, peer).await?;
    let folder =
        env::var_os(FOLDER).map_or_else(|| PathBuf::from("scripts/bench-peers"), PathBuf::from);
    let script = peer.script(&folder);
    let mut command = tokio::process::Command::new(&script);
    command
        .args(corner.arguments())
        .arg(format!("--tasks={}", args.tasks))
        .arg(format!("--noop-tasks={}", args.noop_tasks))
        .arg(format!("--repetitions={}", args.repetitions))
        .arg(format!("--idle={}", args.idle))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    if let Some(folder) = deployment.folder() {
        // What a script leaves there when it is killed goes with the deployment.
        command.env("TMPDIR", folder);
    }
    for server in peer.stands_on() {
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

#[cfg(test)]
mod tests {
    use super::PeerName;
    use clap::ValueEnum;
    use std::{os::unix::fs::PermissionsExt, path::Path};

    #[test]
    fn every_peer_has_a_script_in_the_tree() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bench-peers");
        for peer in PeerName::value_variants() {
            let script = peer.script(&folder);
            let mode = script.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{} cannot be run", script.display());
            let value = peer.to_possible_value().unwrap();
            assert_eq!(value.get_name(), peer.name());
        }
    }
}
