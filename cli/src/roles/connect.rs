//! The servers of a distributed deployment, from the environment.

use super::secret;
use gristmill_broker::{Broker, RabbitMq, RabbitMqConfig};
use gristmill_common::{ids::RunPk, seal::SecretKey};
use gristmill_objects::ObjectStore;
use gristmill_presence::{Presence, PresenceConfig, RedisPresence};
use gristmill_store::Store;
use gristmill_store_postgres::{PgOptions, PgStore};
use gristmill_store_sqlite::SqliteStore;
use std::sync::Arc;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The metadata database. Postgres may be absent: it is waited for.
pub(super) async fn store(max_connections: u32) -> Result<Arc<dyn Store>, Error> {
    let url = secret::required(
        "GRISTMILL_DATABASE_URL",
        "postgres://user:password@host/gristmill",
    )?;
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Ok(Arc::new(
            SqliteStore::open(path.trim_start_matches("//")).await?,
        ));
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("GRISTMILL_DATABASE_URL has to begin with postgres:// or sqlite:".into());
    }
    Ok(Arc::new(PgStore::connect(
        &url,
        PgOptions { max_connections },
    )?))
}

pub(super) fn broker(role: &str) -> Result<Arc<dyn Broker>, Error> {
    let url = secret::required("GRISTMILL_AMQP_URL", "amqp://user:password@host:5672/%2f")?;
    let mut config = RabbitMqConfig::new(url);
    config.connection_name = format!("gristmill-{role}");
    Ok(RabbitMq::start(config)?)
}

pub(super) fn presence() -> Result<Arc<dyn Presence>, Error> {
    let url = secret::required("GRISTMILL_REDIS_URL", "redis://:password@host:6379/0")?;
    Ok(Arc::new(RedisPresence::new(
        &url,
        PresenceConfig::default(),
    )?))
}

pub(super) fn objects() -> Result<ObjectStore, Error> {
    let url = secret::required(
        "GRISTMILL_STORE",
        "file:///var/lib/gristmill or s3://bucket/prefix",
    )?;
    Ok(ObjectStore::from_url(&url)?)
}

pub(super) fn secret_key() -> Result<SecretKey, Error> {
    let text = secret::required(
        "GRISTMILL_SECRET_KEY",
        "the output of `openssl rand -hex 32`",
    )?;
    Ok(SecretKey::from_text(&text)?)
}

/// What makes the tokens with which tasks read their run's XComs.
pub(super) fn run_token(secret: &SecretKey) -> Arc<dyn Fn(RunPk) -> String + Send + Sync> {
    let secret = secret.clone();
    Arc::new(move |run| secret.run_token(run.0))
}

/// Waits until the database is there and its schema is this build's.
pub(super) async fn wait_for_schema(store: &dyn Store) {
    let mut said = String::new();
    loop {
        match store.check_schema().await {
            Ok(()) => return,
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    tracing::warn!(%error, "waiting for the database");
                    said = text;
                }
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
