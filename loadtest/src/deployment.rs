//! Deployments under load: private ones of the shipped binary, every role an OS process on this machine and every
//! server and connection at our mercy, or any other over REST alone.

mod distributed;
mod foreign;
mod layout;
mod listening;
mod member;
mod servers;
mod standalone;

pub use gristmill_testkit::Clock;

pub use self::{
    distributed::start as start_distributed,
    foreign::connect as connect_foreign,
    layout::{Layout, ServerChoice},
    member::{Duty, Links, Member},
    servers::Servers,
    standalone::start as start_standalone,
};

use crate::{
    client::Client,
    error::Result,
    measure::{Groups, Messages, statements::Statements},
};
use gristmill_testkit::{DataDir, Role, roles, wait};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};

/// Password of the first user of a deployment that lives only as long as its measurement.
const PASSWORD: &str = "only-for-this-measurement";
/// How long a deployment may take to serve. Generous: the machine may be busy.
const START: Duration = Duration::from_secs(60);

/// Which parts a deployment stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Schedulers, workers and API servers as processes of their own, on PostgreSQL, RabbitMQ and Redis.
    RealServers,
    /// One process on SQLite and in-process parts.
    Standalone,
    /// Somebody else's, known by its URL.
    Foreign,
}

impl Kind {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::RealServers => "real servers",
            Self::Standalone => "standalone",
            Self::Foreign => "deployment at the URL",
        }
    }
}

/// A running deployment. Its processes, database, vhost and folder go with the value.
#[derive(Debug)]
pub struct Deployment {
    pub kind: Kind,
    /// Signed in at the first API server.
    pub client: Client,
    /// Every process that works for it, servers included, as it was when the deployment started.
    pub processes: Groups,
    /// Where its SQL statements are counted.
    pub statements: Statements,
    /// Where its broker's messages are counted.
    pub messages: Messages,
    // Fields are dropped in order: the roles first, then what they use.
    members: Vec<Member>,
    servers: Option<Servers>,
    folder: Option<DataDir>,
}

impl Deployment {
    /// All processes of roles, schedulers first, then workers, then API servers. None of a foreign deployment.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Those with one duty, in the order of their numbers.
    pub fn members_with(&self, duty: Duty) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(move |member| member.duty == duty)
    }

    /// What the roles stand on, of a deployment on real servers.
    pub fn servers(&self) -> Option<&Servers> {
        self.servers.as_ref()
    }

    /// Folder of logs (`NAME.log` for each role), object store (`store/`) and work folders, of a private deployment.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(DataDir::path)
    }

    /// A client for each API server, in the order of their numbers; one for a deployment of another kind.
    pub fn clients(&self) -> Vec<Client> {
        let clients: Vec<Client> = self
            .members
            .iter()
            .filter_map(|member| Some(self.client.at(member.base.as_deref()?)))
            .collect();
        if clients.is_empty() {
            return vec![self.client.clone()];
        }
        clients
    }
}

/// Waits until the API server at `base` answers and so many workers are there.
async fn ready(api: &Role, base: &str, workers: usize) -> Result<Client> {
    let health = format!("{base}/health");
    api.wait_until("health", START, async || {
        roles::http_status(&health).await == Some(200)
    })
    .await?;
    let client = wait::until("the first sign-in", START, async || {
        Client::sign_in(base, "admin", PASSWORD).await.ok()
    })
    .await?;
    wait::until("the workers", START, async || {
        client.workers().await.ok().filter(|&here| here >= workers)
    })
    .await?;
    Ok(client)
}
