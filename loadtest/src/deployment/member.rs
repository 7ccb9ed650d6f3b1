//! One process of a role, and its connections to the servers.

use super::servers::Servers;
use crate::error::Result;
use gristmill_testkit::{Clock, Proxy, Role, roles::Setup};
use url::Url;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    Scheduler,
    Worker,
    Api,
    /// All of them at once.
    Standalone,
}

impl Duty {
    /// Name of processes and of their logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Worker => "worker",
            Self::Api => "api",
            Self::Standalone => "standalone",
        }
    }

    /// Name of the group of processes in reports.
    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Worker => "worker and tasks",
            Self::Standalone => "standalone and tasks",
            Self::Scheduler | Self::Api => self.name(),
        }
    }
}

/// One process of a deployment. [`Role`] kills, stops, continues and restarts it.
#[derive(Debug)]
pub struct Member {
    pub duty: Duty,
    /// From 0, among those with the same duty.
    pub number: usize,
    pub role: Role,
    /// Where its connections can be cut; `None` unless the layout asked for it.
    pub links: Option<Links>,
    /// Its wall clock; `None` unless the layout asked for it.
    pub clock: Option<Clock>,
    /// Of an API server: `http://host:port`.
    pub(super) base: Option<String>,
}

/// The connections of one process, each to be cut, stalled and delayed apart.
#[derive(Debug)]
pub struct Links {
    /// None of a worker, which never connects to the database.
    pub postgres: Option<Proxy>,
    pub rabbitmq: Proxy,
    pub redis: Proxy,
}

impl Links {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.postgres.iter().chain([&self.rabbitmq, &self.redis])
    }

    /// Opens proxies for a process with this duty.
    pub(super) async fn open(duty: Duty, servers: &Servers) -> Result<Self> {
        Ok(Self {
            postgres: match duty {
                Duty::Worker => None,
                _ => Some(Proxy::to(address(servers.database_url(), 5432)).await?),
            },
            rabbitmq: Proxy::to(address(servers.amqp_url(), 5672)).await?,
            redis: Proxy::to(address(servers.redis_url(), 6379)).await?,
        })
    }
}

/// `setup` with the URLs of `servers`, through `links` where there are some.
pub(super) fn connected(setup: Setup, servers: &Servers, links: Option<&Links>) -> Setup {
    let through = |proxy: Option<&Proxy>, url: &str| {
        proxy.map_or_else(|| url.to_owned(), |proxy| proxy.url(url))
    };
    let postgres = links.and_then(|links| links.postgres.as_ref());
    let rabbitmq = links.map(|links| &links.rabbitmq);
    let redis = links.map(|links| &links.redis);
    setup
        .env(
            "GRISTMILL_DATABASE_URL",
            through(postgres, servers.database_url()),
        )
        .env("GRISTMILL_AMQP_URL", through(rabbitmq, servers.amqp_url()))
        .env("GRISTMILL_REDIS_URL", through(redis, servers.redis_url()))
}

/// `host:port` of a server's URL.
fn address(url: &str, default_port: u16) -> String {
    let parsed = Url::parse(url).ok();
    let host = parsed
        .as_ref()
        .and_then(Url::host_str)
        .unwrap_or("127.0.0.1");
    let port = parsed.as_ref().and_then(Url::port).unwrap_or(default_port);
    format!("{host}:{port}")
}
