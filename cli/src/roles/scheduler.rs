//! `gristmill scheduler`.

use super::{RoleResult, connect, dags, health, hostname, signals};
use clap::Args;
use gristmill_common::span::Span;
use gristmill_scheduler::{Parts, SchedulerConfig};
use gristmill_telemetry::init_metrics;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};

/// Schedules runs and task instances. Needs `GRISTMILL_DATABASE_URL`, `GRISTMILL_AMQP_URL`, `GRISTMILL_REDIS_URL`,
/// `GRISTMILL_STORE` and `GRISTMILL_SECRET_KEY` (each also as `…_FILE`).
#[derive(Debug, Args)]
pub(crate) struct SchedulerArgs {
    /// Folder of DAG files to watch and deploy
    #[arg(long, env = "GRISTMILL_DAGS")]
    dags: Option<PathBuf>,
    /// Address for /health and /metrics
    #[arg(long, env = "GRISTMILL_HEALTH_LISTEN")]
    health_listen: Option<SocketAddr>,
    /// Ended runs are deleted after this; 0s keeps them
    #[arg(long, env = "GRISTMILL_RETENTION", default_value = "90d")]
    retention: Span,
    /// Entries of the audit log are deleted after this; 0s keeps them
    #[arg(long, env = "GRISTMILL_AUDIT_RETENTION", default_value = "365d")]
    audit_retention: Span,
    /// Length of a worker's lease; the same for all schedulers and workers
    #[arg(long, env = "GRISTMILL_LEASE", default_value = "6s")]
    lease: Span,
    /// How long a dispatch may wait for a worker before it is sent out anew
    #[arg(long, env = "GRISTMILL_CLAIM_WINDOW", default_value = "5m")]
    claim_window: Span,
}

pub(super) async fn run(args: SchedulerArgs) -> RoleResult {
    let stop = signals::listen()?;
    let metrics = init_metrics()?;
    let secret = connect::secret_key()?;
    let parts = Parts {
        store: connect::store(12).await?,
        broker: connect::broker("scheduler")?,
        presence: connect::presence()?,
        objects: connect::objects()?,
        config: SchedulerConfig {
            lease: args.lease.duration(),
            claim_window: args.claim_window.duration(),
            retention: (args.retention > Span::ZERO).then(|| args.retention.duration()),
            audit_retention: (args.audit_retention > Span::ZERO)
                .then(|| args.audit_retention.duration()),
            ..SchedulerConfig::default()
        },
        hostname: hostname(),
        token: connect::run_token(&secret),
        secret: secret.clone(),
    };
    let broker = parts.broker.clone();
    let probe: health::Probe = Arc::new(move || {
        let health = broker.health();
        let state = if health.connected {
            Ok(())
        } else {
            Err(health.last_error.unwrap_or_else(|| "connecting".to_owned()))
        };
        vec![("broker".to_owned(), state)]
    });
    health::serve(args.health_listen, metrics, probe).await?;
    tokio::select! {
        () = connect::wait_for_schema(&*parts.store) => {}
        () = stop.orderly.cancelled() => return Ok(()),
    }
    dags::watch(args.dags, parts.store.clone(), parts.objects.clone());
    gristmill_scheduler::run(parts, stop.orderly.clone()).await;
    if stop.orderly.is_cancelled() {
        Ok(())
    } else {
        Err("a part of the scheduler failed; see its log".into())
    }
}
