//! `gristmill healthcheck`.

use super::RoleResult;
use clap::Args;
use std::{net::SocketAddr, time::Duration};

/// Asks the role that listens at the address for its health.
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// Address of a scheduler's or worker's health endpoint
    #[arg(long, env = "GRISTMILL_HEALTH_LISTEN")]
    health_listen: Option<SocketAddr>,
    /// Address of an API server, asked when there is no health endpoint
    #[arg(long, env = "GRISTMILL_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

pub(super) async fn run(args: HealthcheckArgs) -> RoleResult {
    let mut address = args.health_listen.unwrap_or(args.listen);
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .no_proxy()
        .build()?;
    let answer = client
        .get(format!("http://{address}/health"))
        .send()
        .await?;
    let status = answer.status();
    let text = answer.text().await?;
    println!("{text}");
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("unhealthy ({status})").into())
    }
}
