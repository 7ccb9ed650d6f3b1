//! A deployment that somebody else runs.

use super::{Deployment, Kind};
use crate::{
    client::Client,
    error::Result,
    measure::{Groups, Messages, statements::Statements},
};

/// Connects to the API server at `url` (`http://host:port`) with an access token. Its processes and its database are not
/// ours to see: only times are measured.
pub async fn connect(url: &str, token: &str) -> Result<Deployment> {
    let client = Client::with_token(url, token)?;
    // Asked at once, so that a wrong address or token is the first thing that is said.
    client.workers().await?;
    Ok(Deployment {
        kind: Kind::Foreign,
        statements: Statements::Nowhere,
        client,
        processes: Groups::default(),
        messages: Messages::nowhere(),
        members: Vec::new(),
        servers: None,
        folder: None,
    })
}
