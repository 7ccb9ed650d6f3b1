//! `gristmill standalone`.

use super::{Deployment, Kind, PASSWORD, Plan, ready};
use crate::{
    error::Result,
    measure::{Groups, statements::Statements},
};
use gristmill_testkit::{DataDir, free_port, roles};

/// Starts it in an empty home folder.
pub(crate) async fn start(plan: Plan) -> Result<Deployment> {
    let folder = DataDir::new("bench-standalone")?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let base = format!("http://{listen}");
    let setup = roles::Setup::new(roles::binary("gristmill")?, folder.path())
        .env("GRISTMILL_HOME", folder.path().join("home"))
        .env("GRISTMILL_ADMIN_PASSWORD", PASSWORD);
    let concurrency = plan.concurrency.to_string();
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
    let client = ready(&role, &base).await?;
    let mut processes = Groups::default();
    processes.add("standalone and tasks", role.pid());
    Ok(Deployment {
        kind: Kind::Standalone,
        statements: Statements::of_metrics(client.clone()),
        client,
        processes,
        _roles: vec![role],
        _corner: None,
        _folder: folder,
    })
}
