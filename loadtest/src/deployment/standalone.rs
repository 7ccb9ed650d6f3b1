//! `gristmill standalone`.

use super::{Deployment, Duty, Kind, Layout, Member, PASSWORD, ready};
use crate::{
    error::Result,
    measure::{Groups, Messages, statements::Statements},
};
use gristmill_testkit::{DataDir, free_port, roles};

/// Starts it in an empty home folder. Of `layout` only the slots and the environment matter.
pub async fn start(layout: &Layout) -> Result<Deployment> {
    let folder = DataDir::new("load-standalone")?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let base = format!("http://{listen}");
    let mut setup = roles::Setup::new(roles::binary("gristmill")?, folder.path())
        .env("GRISTMILL_HOME", folder.path().join("home"))
        .env("GRISTMILL_ADMIN_PASSWORD", PASSWORD);
    for (name, value) in &layout.environment {
        setup = setup.env(name, value);
    }
    let concurrency = layout.concurrency.to_string();
    let role = setup.start(
        "standalone",
        &[
            "standalone",
            "--listen",
            &listen,
            "--concurrency",
            &concurrency,
        ],
    )?;
    let client = ready(&role, &base, 1).await?;
    let mut processes = Groups::default();
    processes.add(Duty::Standalone.group(), role.pid());
    Ok(Deployment {
        kind: Kind::Standalone,
        statements: Statements::of_metrics(client.clone()),
        client,
        processes,
        messages: Messages::nowhere(),
        members: vec![Member {
            duty: Duty::Standalone,
            number: 0,
            role,
            links: None,
            clock: None,
            base: Some(base),
        }],
        servers: None,
        folder: Some(folder),
    })
}
