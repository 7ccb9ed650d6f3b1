//! Private deployments of the shipped binary, for measuring: every role an OS process on this machine.

mod distributed;
mod servers;
mod standalone;

pub(crate) use distributed::start as start_distributed;
pub(crate) use standalone::start as start_standalone;

use crate::{
    client::Client,
    error::Result,
    measure::{Groups, statements::Statements},
};
use gristmill_testkit::{DataDir, Database, RedisDb, Role, Vhost, roles, wait};
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// Password of the first user of a deployment that lives only as long as its measurement.
const PASSWORD: &str = "only-for-this-measurement";
/// How long a deployment may take to serve. Generous: the machine may be busy.
const START: Duration = Duration::from_secs(60);

/// Which parts a deployment stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Scheduler, worker and API server as processes of their own, on PostgreSQL, RabbitMQ and Redis.
    RealServers,
    /// One process on SQLite and in-process parts.
    Standalone,
}

impl Kind {
    /// Name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RealServers => "real servers",
            Self::Standalone => "standalone",
        }
    }
}

/// A running deployment. Its processes, database, vhost and folder go with the value.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) kind: Kind,
    pub(crate) client: Client,
    /// Every process that works for it, servers included.
    pub(crate) processes: Groups,
    /// Where its SQL statements are counted.
    pub(crate) statements: Statements,
    // Fields are dropped in order: the roles first, then what they use.
    _roles: Vec<Role>,
    _corner: Option<Corner>,
    _folder: DataDir,
}

/// The deployment's own database, vhost and database number on the servers.
#[derive(Debug)]
struct Corner {
    database: Arc<Database>,
    vhost: Vhost,
    redis: RedisDb,
}

/// How a deployment is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Slots of the worker.
    pub(crate) concurrency: u32,
}

/// Waits until the API server at `base` answers and a worker is there.
async fn ready(api: &Role, base: &str) -> Result<Client> {
    let health = format!("{base}/health");
    api.wait_until("health", START, async || {
        roles::http_status(&health).await == Some(200)
    })
    .await?;
    let client = wait::until("the first sign-in", START, async || {
        Client::sign_in(base, "admin", PASSWORD).await.ok()
    })
    .await?;
    wait::until("a worker", START, async || {
        client.workers().await.ok().filter(|&workers| workers > 0)
    })
    .await?;
    Ok(client)
}
