//! One scheduler, one worker and one API server on real servers.

use super::{Corner, Deployment, Kind, PASSWORD, Plan, ready, servers};
use crate::{
    error::{LoadError, Result},
    measure::{Groups, statements::Statements},
};
use gristmill_testkit::{DataDir, free_port, roles, shared};
use std::sync::Arc;

/// Any 32 bytes: nothing outlives the measurement.
const SECRET_KEY: &str = "6c6f6164746573746c6f6164746573746c6f6164746573746c6f616474657374";

/// Starts the roles on servers that the `GRISTMILL_TEST_…` variables name, else on private ones.
pub(crate) async fn start(plan: Plan) -> Result<Deployment> {
    let folder = DataDir::new("bench")?;
    let corner = Corner {
        database: Arc::new(shared::postgres_database().await?),
        vhost: shared::rabbitmq_vhost().await?,
        redis: shared::redis_db().await?,
    };
    let port = free_port()?;
    let base = format!("http://127.0.0.1:{port}");
    let setup = roles::Setup::new(roles::binary("gristmill")?, folder.path())
        .env("GRISTMILL_DATABASE_URL", corner.database.url())
        .env("GRISTMILL_AMQP_URL", corner.vhost.url())
        .env("GRISTMILL_REDIS_URL", corner.redis.url())
        .env(
            "GRISTMILL_STORE",
            format!("file://{}", folder.path().join("store").display()),
        )
        .env("GRISTMILL_SECRET_KEY", SECRET_KEY)
        .env("GRISTMILL_ADMIN_PASSWORD", PASSWORD)
        .env("GRISTMILL_API_URL", &base)
        .env("GRISTMILL_WORK_DIR", folder.path().join("work"));
    let migrate = setup.start("migrate", &["migrate"])?;
    if !migrate
        .wait(super::START)
        .await?
        .is_some_and(|status| status.success())
    {
        return Err(LoadError::Migrate(migrate.log_text()));
    }
    let statements = Statements::of_database(corner.database.clone()).await;

    let concurrency = plan.concurrency.to_string();
    let api = setup.start("api", &["api", "--listen", &format!("127.0.0.1:{port}")])?;
    let scheduler = setup.start("scheduler", &["scheduler"])?;
    let worker = setup.start("worker", &["worker", "--concurrency", &concurrency])?;
    let client = ready(&api, &base).await?;

    let mut processes = Groups::default();
    processes.add("scheduler", scheduler.pid());
    processes.add("worker and tasks", worker.pid());
    processes.add("api", api.pid());
    processes.add_server("postgres", servers::listening_at(corner.database.url()));
    processes.add_server("rabbitmq", servers::listening_at(corner.vhost.url()));
    processes.add_server("redis", servers::listening_at(corner.redis.url()));
    Ok(Deployment {
        kind: Kind::RealServers,
        client,
        processes,
        statements,
        _roles: vec![worker, scheduler, api],
        _corner: Some(corner),
        _folder: folder,
    })
}
