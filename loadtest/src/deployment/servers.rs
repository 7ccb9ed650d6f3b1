//! PostgreSQL, RabbitMQ and Redis of one deployment.

use super::layout::{Layout, ServerChoice};
use crate::error::{LoadError, Result};
use gristmill_testkit::{
    Clock, Database, Postgres, RabbitMq, Redis, RedisDb, TestkitError, Vhost, env, shared,
};
use std::path::Path;

/// The servers that a deployment stands on: its own, or its corner of named ones.
#[derive(Debug)]
pub struct Servers {
    postgres: Backing<Postgres, Database>,
    rabbitmq: Backing<RabbitMq, Vhost>,
    redis: Backing<Redis, RedisDb>,
    postgres_clock: Option<Clock>,
    redis_clock: Option<Clock>,
    database_url: String,
    amqp_url: String,
    redis_url: String,
    admin_url: String,
}

/// One server: ours alone, or a part of one that is named by the environment.
#[derive(Debug)]
enum Backing<Server, Corner> {
    Private(Server),
    /// Held for its drop, which cleans up.
    Named(Corner),
}

impl<Server, Corner> Backing<Server, Corner> {
    fn private(&self, server: &'static str) -> Result<&Server> {
        match self {
            Self::Private(found) => Ok(found),
            Self::Named(_) => Err(LoadError::NotPrivate(server)),
        }
    }
}

impl Servers {
    /// `folder` takes the clocks, where the layout wants them moved.
    pub(super) async fn start(layout: &Layout, folder: &Path) -> Result<Self> {
        let clock = |name: &str| match layout.movable_clocks {
            true => Clock::new(folder.join(format!("{name}.clock"))).map(Some),
            false => Ok(None),
        };
        let (postgres_clock, redis_clock) = (clock("postgres")?, clock("redis")?);
        let environment =
            |clock: &Option<Clock>| clock.as_ref().map(Clock::environment).unwrap_or_default();
        let named = |variable| {
            layout.servers == ServerChoice::NamedOrPrivate
                && std::env::var_os(variable).is_some_and(|value| !value.is_empty())
        };
        let (postgres, rabbitmq, redis) = tokio::try_join!(
            async {
                Ok::<_, TestkitError>(match named(env::DATABASE_URL) {
                    true => Backing::Named(shared::postgres_database().await?),
                    false => {
                        Backing::Private(Postgres::start_with(environment(&postgres_clock)).await?)
                    }
                })
            },
            async {
                Ok(match named(env::AMQP_URL) {
                    true => Backing::Named(shared::rabbitmq_vhost().await?),
                    false => Backing::Private(RabbitMq::start().await?),
                })
            },
            async {
                Ok(match named(env::REDIS_URL) {
                    true => Backing::Named(shared::redis_db().await?),
                    false => Backing::Private(Redis::start_with(environment(&redis_clock)).await?),
                })
            },
        )?;
        Ok(Self {
            database_url: match &postgres {
                Backing::Private(server) => server.url(),
                Backing::Named(database) => database.url().to_owned(),
            },
            amqp_url: match &rabbitmq {
                Backing::Private(server) => server.url(),
                Backing::Named(vhost) => vhost.url().to_owned(),
            },
            admin_url: match &rabbitmq {
                Backing::Private(server) => server.admin_url(),
                Backing::Named(vhost) => vhost.admin_url(),
            },
            redis_url: match &redis {
                Backing::Private(server) => server.url(),
                Backing::Named(number) => number.url().to_owned(),
            },
            postgres,
            rabbitmq,
            redis,
            postgres_clock,
            redis_clock,
        })
    }

    /// `postgres://…`, not through any proxy.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// `amqp://…`, not through any proxy.
    pub fn amqp_url(&self) -> &str {
        &self.amqp_url
    }

    /// `redis://…`, not through any proxy.
    pub fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// RabbitMQ's management API with credentials.
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// The private PostgreSQL; an error when the deployment stands on a named one.
    pub fn postgres(&self) -> Result<&Postgres> {
        self.postgres.private("PostgreSQL")
    }

    /// The private RabbitMQ; an error when the deployment stands on a named one.
    pub fn rabbitmq(&self) -> Result<&RabbitMq> {
        self.rabbitmq.private("RabbitMQ")
    }

    /// The private Redis; an error when the deployment stands on a named one.
    pub fn redis(&self) -> Result<&Redis> {
        self.redis.private("Redis")
    }

    /// PostgreSQL's wall clock, if the layout wanted it moved.
    pub fn postgres_clock(&self) -> Option<&Clock> {
        self.postgres_clock.as_ref()
    }

    /// Redis's wall clock, if the layout wanted it moved.
    pub fn redis_clock(&self) -> Option<&Clock> {
        self.redis_clock.as_ref()
    }

    /// Runs one SQL statement; gives its rows, columns parted by `|`.
    pub async fn sql(&self, statement: &str) -> Result<String> {
        Ok(shared::sql(&self.database_url, statement).await?)
    }
}
