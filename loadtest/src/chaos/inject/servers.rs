//! Servers that die, stand still or forget.

use crate::{
    chaos::{fault::ServerId, stage::Stage},
    error::{LoadError, Result},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::Url;

pub(super) async fn kill(stage: &Stage, server: ServerId, away: Duration) -> Result<()> {
    let servers = stage.servers()?;
    match server {
        ServerId::Postgres => {
            let server = servers.postgres()?;
            server.kill().await?;
            tokio::time::sleep(away).await;
            server.restart().await?;
        }
        ServerId::Rabbitmq => {
            let server = servers.rabbitmq()?;
            server.kill().await?;
            tokio::time::sleep(away).await;
            server.restart().await?;
        }
        ServerId::Redis => {
            let server = servers.redis()?;
            server.kill().await?;
            tokio::time::sleep(away).await;
            server.restart().await?;
        }
    }
    Ok(())
}

/// An orderly stop and a start.
pub(super) async fn restart(stage: &Stage, server: ServerId, away: Duration) -> Result<()> {
    let servers = stage.servers()?;
    match server {
        ServerId::Postgres => servers.postgres()?.stop().await?,
        ServerId::Rabbitmq => servers.rabbitmq()?.stop().await?,
        ServerId::Redis => servers.redis()?.stop().await?,
    }
    kill(stage, server, away).await
}

pub(super) async fn pause(stage: &Stage, server: ServerId, lasts: Duration) -> Result<()> {
    let servers = stage.servers()?;
    match server {
        ServerId::Postgres => servers.postgres()?.pause()?,
        ServerId::Rabbitmq => servers.rabbitmq()?.pause()?,
        ServerId::Redis => servers.redis()?.pause()?,
    }
    tokio::time::sleep(lasts).await;
    match server {
        ServerId::Postgres => servers.postgres()?.resume()?,
        ServerId::Rabbitmq => servers.rabbitmq()?.resume()?,
        ServerId::Redis => servers.redis()?.resume()?,
    }
    Ok(())
}

pub(super) async fn empty_redis(stage: &Stage, away: Duration) -> Result<()> {
    let redis = stage.servers()?.redis()?;
    redis.kill().await?;
    tokio::time::sleep(away).await;
    Ok(redis.restart_empty().await?)
}

/// The server stays up, its data is gone.
pub(super) async fn flush_redis(stage: &Stage) -> Result<()> {
    let url = Url::parse(stage.servers()?.redis_url())
        .map_err(|error| LoadError::NoSuchPart(format!("Redis's address: {error}")))?;
    let address = (
        url.host_str().unwrap_or("127.0.0.1"),
        url.port().unwrap_or(6379),
    );
    let flush = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"FLUSHALL\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        match &answer {
            b"+OK\r\n" => Ok(()),
            other => Err(std::io::Error::other(
                String::from_utf8_lossy(other).into_owned(),
            )),
        }
    };
    flush.await.map_err(LoadError::Flush)
}
