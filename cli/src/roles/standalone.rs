//! `gristmill standalone`: every role in one process, on SQLite and in-process parts.

use super::{
    RoleResult, apart::apart, connect, dags, hostname, secret, signals, worker::data_engine,
};
use clap::Args;
use gristmill_api::ApiParts;
use gristmill_broker::{Broker, InProcess, InProcessConfig};
use gristmill_common::seal::SecretKey;
use gristmill_guardian::GuardianConfig;
use gristmill_objects::ObjectStore;
use gristmill_presence::{MemoryPresence, Presence, PresenceConfig};
use gristmill_scheduler::{SchedulerConfig, reconcile::adopt_dead_host};
use gristmill_store::{DispatchContext, Reads, Store, TokenRow};
use gristmill_store_sqlite::SqliteStore;
use gristmill_telemetry::init_metrics;
use gristmill_worker::{WorkerConfig, WorkerHealth};
use std::{
    fs::File,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpListener;

/// Everything in one process. The first start makes the home folder, its keys and the first user.
#[derive(Debug, Args)]
pub(crate) struct StandaloneArgs {
    /// Folder for the database, logs and keys
    #[arg(long, env = "GRISTMILL_HOME", default_value = ".gristmill")]
    home: PathBuf,
    /// Folder of DAG files to watch and deploy
    #[arg(long, env = "GRISTMILL_DAGS")]
    dags: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, env = "GRISTMILL_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Task instances at one time; by default twice the number of processors, at least 8
    #[arg(long, env = "GRISTMILL_CONCURRENCY", value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: Option<u32>,
    /// The data engine; by default the `gristmill-data` beside this program
    #[arg(long, env = "GRISTMILL_DATA_ENGINE")]
    data_engine: Option<PathBuf>,
    /// After SIGTERM: how long running tasks may go on before they are interrupted and requeued
    #[arg(long, env = "GRISTMILL_DRAIN_TIMEOUT", default_value = "10s")]
    drain_timeout: gristmill_common::span::Span,
    /// Make no runs by schedule; what is triggered runs
    #[arg(long)]
    no_schedules: bool,
}

/// What the line begins with that tells the address, the first one on standard output.
pub(crate) const AT: &str = "Gristmill is at ";

pub(super) async fn run(args: StandaloneArgs) -> RoleResult {
    let stop = signals::listen()?;
    let metrics = init_metrics()?;
    std::fs::create_dir_all(&args.home)
        .map_err(|error| format!("cannot make {}: {error}", args.home.display()))?;
    let home = std::fs::canonicalize(&args.home)?;
    // The port first: a second standalone must not get as far as the database.
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        format!(
            "cannot listen on {}: {error}; choose another address with --listen",
            args.listen
        )
    })?;
    let address = listener.local_addr()?;
    let sqlite = SqliteStore::open(home.join("gristmill.db")).await?;
    sqlite.migrate().await?;
    let store: Arc<dyn Store> = Arc::new(sqlite);
    let tasks_lock = wait_for_old_tasks(&home).await?;
    let secret = SecretKey::from_text(&match secret::from_env("GRISTMILL_SECRET_KEY")? {
        Some(text) => text,
        None => secret::keep(&home.join("secret.key"), "")?,
    })?;
    let objects = ObjectStore::from_url(&match secret::from_env("GRISTMILL_STORE")? {
        Some(url) => url,
        None => format!("file://{}", home.join("store").display()),
    })?;
    let broker: Arc<dyn Broker> = InProcess::new(InProcessConfig::default());
    let presence: Arc<dyn Presence> = Arc::new(MemoryPresence::new(PresenceConfig::default()));
    let adopted = adopt_dead_host(&*store, &adoption_context(&secret)).await?;
    if adopted > 0 {
        tracing::warn!(dispatches = adopted, "taking up what the last process left");
    }
    let config = SchedulerConfig {
        schedules: !args.no_schedules,
        ..SchedulerConfig::default()
    };
    let scheduler = gristmill_scheduler::Parts {
        store: store.clone(),
        broker: broker.clone(),
        presence: presence.clone(),
        objects: objects.clone(),
        config: config.clone(),
        hostname: hostname(),
        token: connect::run_token(&secret),
        secret: secret.clone(),
    };
    let worker = gristmill_worker::Parts {
        broker: broker.clone(),
        presence: presence.clone(),
        objects: objects.clone(),
        secret: secret.clone(),
        config: WorkerConfig {
            name: "standalone".to_owned(),
            hostname: hostname(),
            concurrency: args.concurrency.unwrap_or_else(concurrency),
            lease: config.lease,
            drain_timeout: args.drain_timeout.duration(),
            work_dir: home.join("work"),
            data_engine: args.data_engine.unwrap_or_else(data_engine),
            api_url: Some(format!("http://{address}")),
            ..WorkerConfig::default()
        },
        health: WorkerHealth::default(),
    };
    let mut api = ApiParts::new(store.clone(), broker, presence, objects.clone(), secret);
    let counted = store.clone();
    api.metrics = Some(Arc::new(move || {
        let (statements, commits) = counted.statements();
        metrics::counter!("gristmill_sql_statements_total").absolute(statements);
        metrics::counter!("gristmill_sql_commits_total").absolute(commits);
        metrics.render()
    }));
    introduce(&*store, &home, address).await?;
    if let Some(folder) = &args.dags {
        dags::deploy(folder, &*store, &objects).await;
    }
    dags::watch(args.dags, store, objects);

    // The worker drains first; the others serve it until it has left.
    let rest = tokio_util::sync::CancellationToken::new();
    let _end_of_rest = rest.clone().drop_guard();
    let scheduling = tokio::spawn(gristmill_scheduler::run(scheduler, rest.clone()));
    // Requests are answered while a burst of tasks keeps everything else busy.
    let serving = {
        let (listener, stop) = (listener.into_std()?, rest.clone());
        apart("api", move || async move {
            let listener = TcpListener::from_std(listener)?;
            gristmill_api::serve(listener, gristmill_api::router(api), stop).await
        })
    };
    let guardian = move || GuardianConfig {
        hold_fd: tasks_lock.try_clone().ok().map(OwnedFd::from),
        ..GuardianConfig::default()
    };
    let working = gristmill_worker::run(worker, guardian, stop.orderly.clone(), stop.at_once);
    tokio::select! {
        left = working => {
            left?;
            // What the worker reported last is applied before the scheduler goes.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ended = scheduling => {
            ended?;
            return Err("the scheduler ended".into());
        }
        ended = serving => ended?,
    }
    Ok(())
}

/// Takes the lock that the guardian of the last process and its tasks hold until the last of them is gone.
async fn wait_for_old_tasks(home: &Path) -> Result<File, Box<dyn std::error::Error + Send + Sync>> {
    let path = home.join("tasks.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    if file.try_lock().is_err() {
        tracing::warn!("waiting for the task processes of the last process to end");
        let file = file.try_clone()?;
        tokio::task::spawn_blocking(move || file.lock()).await??;
    }
    Ok(file)
}

/// Adopting dispatches nothing.
fn adoption_context(secret: &SecretKey) -> DispatchContext {
    DispatchContext {
        epoch: None,
        claim_window: Duration::ZERO,
        batch: 0,
        plans: Arc::default(),
        published: Arc::default(),
        token: connect::run_token(secret),
    }
}

/// Makes the first user and the token that client commands on this machine use, and says where everything is.
async fn introduce(store: &dyn Store, home: &Path, address: SocketAddr) -> RoleResult {
    let generated =
        gristmill_api::ensure_admin(store, secret::from_env("GRISTMILL_ADMIN_PASSWORD")?).await?;
    let token = secret::keep(&home.join("client-token"), gristmill_api::TOKEN_PREFIX)?;
    store
        .put_token(&TokenRow {
            hash: gristmill_api::token_hash(&token),
            name: "standalone-client".to_owned(),
            role: "admin".to_owned(),
            dag_id: None,
            expires_at: None,
            created_at: chrono::Utc::now(),
        })
        .await
        .or_else(|error| match error {
            gristmill_store::StoreError::Exists { .. } => Ok(()),
            other => Err(other),
        })?;
    println!("{AT}http://{address}  (API: /docs, health: /health)");
    if let Some(password) = generated {
        println!(
            "Sign in as admin with password {password} (shown once; set GRISTMILL_ADMIN_PASSWORD to choose it)."
        );
    }
    println!(
        "On this machine `gristmill` commands sign in by {}.",
        home.join("client-token").display()
    );
    Ok(())
}

fn concurrency() -> u32 {
    let processors = std::thread::available_parallelism().map_or(4, std::num::NonZero::get);
    u32::try_from(2 * processors).unwrap_or(u32::MAX).max(8)
}
