//! Connections between a role and a server that do not work.

use crate::{
    chaos::{
        fault::{Network, RoleId, ServerId},
        stage::Stage,
    },
    error::{LoadError, Result},
};
use std::time::Duration;

pub(super) async fn disturb(
    stage: &Stage,
    role: RoleId,
    server: ServerId,
    how: Network,
    lasts: Duration,
) -> Result<()> {
    let links = stage.member(role)?.links.as_ref();
    let link = links.and_then(|links| match server {
        ServerId::Postgres => links.postgres.as_ref(),
        ServerId::Rabbitmq => Some(&links.rabbitmq),
        ServerId::Redis => Some(&links.redis),
    });
    let link =
        link.ok_or_else(|| LoadError::NoSuchPart(format!("a link of {role} to {server}")))?;
    match how {
        Network::Cut => link.cut(),
        Network::Stall => link.stall(),
        Network::LoseAnswers => link.lose_answers(),
        Network::Delay(ms) => link.delay(Duration::from_millis(ms)),
    }
    tokio::time::sleep(lasts).await;
    link.restore();
    Ok(())
}
