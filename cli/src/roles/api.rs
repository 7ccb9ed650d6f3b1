//! `gristmill api`.

use super::{RoleResult, connect, dags, secret, signals};
use clap::Args;
use gristmill_api::ApiParts;
use gristmill_store::Store;
use gristmill_telemetry::init_metrics;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// Serves the REST API. Needs `GRISTMILL_DATABASE_URL`, `GRISTMILL_AMQP_URL`, `GRISTMILL_REDIS_URL`, `GRISTMILL_STORE` and
/// `GRISTMILL_SECRET_KEY` (each also as `…_FILE`).
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Address to listen on
    #[arg(long, env = "GRISTMILL_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Folder of DAG files to watch and deploy
    #[arg(long, env = "GRISTMILL_DAGS")]
    dags: Option<PathBuf>,
}

pub(super) async fn run(args: ApiArgs) -> RoleResult {
    let stop = signals::listen()?;
    let metrics = init_metrics()?;
    let store = connect::store(16).await?;
    let objects = connect::objects()?;
    let mut parts = ApiParts::new(
        store.clone(),
        connect::broker("api")?,
        connect::presence()?,
        objects.clone(),
        connect::secret_key()?,
    );
    parts.metrics = Some(Arc::new(move || metrics.render()));
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    tracing::info!(address = %args.listen, "API server started");
    let ready = {
        let store = store.clone();
        async move {
            connect::wait_for_schema(&*store).await;
            first_admin(&*store).await;
            dags::watch(args.dags, store, objects);
        }
    };
    tokio::spawn(ready);
    gristmill_api::serve(listener, gristmill_api::router(parts), stop.orderly).await?;
    Ok(())
}

/// Makes the first user if there is none. Its generated password is printed, once, where the operator looks.
async fn first_admin(store: &dyn Store) {
    let password = match secret::from_env("GRISTMILL_ADMIN_PASSWORD") {
        Ok(password) => password,
        Err(error) => {
            tracing::error!(error, "no first user is made");
            return;
        }
    };
    loop {
        match gristmill_api::ensure_admin(store, password.clone()).await {
            Ok(Some(password)) => {
                eprintln!(
                    "Made the first user: admin, password {password} (shown once; set GRISTMILL_ADMIN_PASSWORD to choose it)."
                );
                return;
            }
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "cannot make the first user yet"),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
