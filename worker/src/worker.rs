//! A worker's life: incarnation after incarnation until it is stopped.

use crate::{
    WorkerConfig,
    consume::consume,
    control,
    held::{Held, Wish},
    lease::{Lease, LeaseEnd},
    processes::Processes,
    report::Reporter,
    tasks::{Clients, Databases, Stores},
};
use gristmill_broker::{Broker, ConsumerState};
use gristmill_common::{seal::SecretKey, spec::POKE_QUEUE_SUFFIX};
use gristmill_guardian::GuardianConfig;
use gristmill_objects::{
    ObjectStore,
    bundle::{BundleCache, CacheLimits},
};
use gristmill_presence::{Presence, WorkerInfo, WorkerStatus};
use gristmill_secrets::Backends;
use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// After an interrupt: how long tasks have to die and their endings to be confirmed.
const INTERRUPT: Duration = Duration::from_secs(30);

/// The servers that a worker talks to, and its settings.
#[derive(Debug, Clone)]
pub struct Parts {
    pub broker: Arc<dyn Broker>,
    pub presence: Arc<dyn Presence>,
    pub objects: ObjectStore,
    pub secret: SecretKey,
    pub config: WorkerConfig,
    pub health: WorkerHealth,
}

/// What a worker's health probe sees: whether its consumers stand, not merely whether its process lives.
#[derive(Debug, Clone, Default)]
pub struct WorkerHealth {
    consumers: Arc<Mutex<BTreeMap<String, watch::Receiver<ConsumerState>>>>,
}

impl WorkerHealth {
    /// Queue to whether its consumer is registered at the broker.
    pub fn consumers(&self) -> BTreeMap<String, bool> {
        let consumers = self
            .consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        consumers
            .iter()
            .map(|(queue, state)| (queue.clone(), state.borrow().is_registered()))
            .collect()
    }
}

/// What a dispatch takes a place of in its worker. Pokes are short work inside the worker: they neither wait for the slots
/// of tasks nor take any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Tasks,
    Pokes,
}

impl Lane {
    pub(crate) fn of(queue: &str) -> Self {
        match queue.ends_with(POKE_QUEUE_SUFFIX) {
            true => Self::Pokes,
            false => Self::Tasks,
        }
    }
}

/// The queues of a worker: beside each that it was given, the one of its sensors.
fn with_sensors(queues: &[String]) -> Vec<String> {
    let mut all = queues.to_vec();
    for queue in queues {
        let pokes = format!("{queue}{POKE_QUEUE_SUFFIX}");
        if Lane::of(queue) == Lane::Tasks && !all.contains(&pokes) {
            all.push(pokes);
        }
    }
    all
}

/// One incarnation of a worker: what its tasks share.
#[derive(Debug)]
pub(crate) struct Incarnation {
    pub(crate) parts: Parts,
    pub(crate) lease: Arc<Lease>,
    pub(crate) held: Arc<Held>,
    pub(crate) processes: Processes,
    pub(crate) reporter: Reporter,
    pub(crate) slots: Arc<Semaphore>,
    pokes: Arc<Semaphore>,
    pub(crate) bundles: BundleCache,
    http: reqwest::Client,
    /// Of `http` tasks and sensors.
    pub(crate) clients: Clients,
    /// Of file sensors.
    pub(crate) stores: Stores,
    /// Of sql sensors.
    pub(crate) databases: Databases,
    /// Connections and variables that come before those of the database.
    pub(crate) secrets: Backends,
    /// No new work is taken any more.
    pub(crate) stop_taking: CancellationToken,
}

impl Deref for Incarnation {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Incarnation {
    pub(crate) fn watch_consumer(&self, queue: &str, state: watch::Receiver<ConsumerState>) {
        let mut consumers = self
            .health
            .consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        consumers.insert(queue.to_owned(), state);
    }

    /// For requests to the deployment's own API.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub(crate) fn slots_of(&self, lane: Lane) -> &Arc<Semaphore> {
        match lane {
            Lane::Tasks => &self.slots,
            Lane::Pokes => &self.pokes,
        }
    }

    /// How many dispatches of a lane run at one time.
    pub(crate) fn places(&self, lane: Lane) -> u32 {
        match lane {
            Lane::Tasks => self.config.concurrency,
            Lane::Pokes => self.config.pokes,
        }
    }

    fn status(&self) -> WorkerStatus {
        let free = self.slots.available_permits() as u32;
        WorkerStatus {
            running: self.config.concurrency.saturating_sub(free),
            free,
            paused: false,
            draining: self.lease.draining.load(Ordering::Relaxed),
        }
    }
}

/// How a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("cannot start the guardian: {0}")]
    Guardian(#[from] gristmill_guardian::StartError),
    #[error("the guardian died ({0}): every task was killed")]
    GuardianDied(String),
    #[error("cannot use the work folder {folder}: {error}")]
    WorkDir {
        folder: String,
        error: std::io::Error,
    },
}

/// Runs a worker until `stop` is cancelled: then it takes no more work, lets what runs finish within the drain timeout,
/// interrupts and requeues the rest, and leaves. A second wish to stop, `interrupt`, skips the waiting.
pub async fn run(
    parts: Parts,
    guardian: impl Fn() -> GuardianConfig,
    stop: CancellationToken,
    interrupt: CancellationToken,
) -> Result<(), WorkerError> {
    for folder in ["scratch", "bundles"] {
        let folder = parts.config.work_dir.join(folder);
        std::fs::create_dir_all(&folder).map_err(|error| WorkerError::WorkDir {
            folder: folder.display().to_string(),
            error,
        })?;
    }
    loop {
        if incarnate(&parts, guardian(), &stop, &interrupt).await? || stop.is_cancelled() {
            return Ok(());
        }
        tracing::warn!("starting anew as another incarnation");
    }
}

/// Lives one incarnation; answers whether it left in good order.
async fn incarnate(
    parts: &Parts,
    guardian: GuardianConfig,
    stop: &CancellationToken,
    interrupt: &CancellationToken,
) -> Result<bool, WorkerError> {
    let processes = Processes::start(guardian)?;
    let held = Arc::new(Held::default());
    let info = WorkerInfo {
        incarnation: Uuid::now_v7().to_string(),
        name: parts.config.name.clone(),
        hostname: parts.config.hostname.clone(),
        pid: std::process::id(),
        queues: with_sensors(&parts.config.queues),
        slots: parts.config.concurrency,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: chrono::Utc::now(),
    };
    tracing::info!(incarnation = info.incarnation, queues = ?info.queues, slots = info.slots, "worker started");
    let mut publishers = JoinSet::new();
    let reporter = Reporter::start(
        parts.broker.clone(),
        parts.presence.clone(),
        held.clone(),
        info.incarnation.clone(),
        &mut publishers,
    );
    let lease = Arc::new(Lease::new(
        info,
        parts.config.lease,
        parts.presence.clone(),
        held.clone(),
        processes.clone(),
    ));
    let worker = Arc::new(Incarnation {
        parts: parts.clone(),
        lease: lease.clone(),
        held: held.clone(),
        processes: processes.clone(),
        reporter: reporter.clone(),
        slots: Arc::new(Semaphore::new(parts.config.concurrency as usize)),
        pokes: Arc::new(Semaphore::new(parts.config.pokes as usize)),
        clients: Clients::default(),
        stores: Stores::default(),
        databases: Databases::default(),
        secrets: Backends::from_env(),
        http: reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap_or_default(),
        bundles: BundleCache::new(
            parts.config.work_dir.join("bundles"),
            CacheLimits::default(),
        ),
        stop_taking: CancellationToken::new(),
    });
    let mut consumers = JoinSet::new();
    for queue in &worker.lease.info.queues {
        consumers.spawn(consume(worker.clone(), queue.clone()));
    }
    let live = async {
        tokio::select! {
            end = lease.keep(&reporter, || worker.status()) => end,
            () = control::listen(parts.broker.clone(), lease.clone(), held.clone()) => LeaseEnd::Revoked,
        }
    };
    let outcome = tokio::select! {
        end = live => {
            tracing::error!(?end, "this incarnation cannot go on: everything that ran is killed");
            worker.stop_taking.cancel();
            processes.shut_down().await;
            if end == LeaseEnd::Lapsed {
                hand_back(&worker, stop, &mut consumers).await;
            }
            Ok(false)
        }
        how = processes.guardian_death() => Err(WorkerError::GuardianDied(how)),
        () = drain(&worker, stop, interrupt, &mut consumers) => {
            lease.leave().await;
            processes.shut_down().await;
            tracing::info!("worker left");
            Ok(true)
        }
    };
    consumers.shutdown().await;
    publishers.shutdown().await;
    outcome
}

/// After the end of the lease: nothing can start any more, so what is held ends as not run, at no cost. Endings wait for the
/// broker for as long as it is away; nothing could be done without it anyway.
async fn hand_back(worker: &Incarnation, stop: &CancellationToken, consumers: &mut JoinSet<()>) {
    let handed_back = async {
        worker.held.wish_all(Wish::Interrupt);
        // Claims that are on their way are held once their answers are there.
        while consumers.join_next().await.is_some() {}
        worker.held.wish_all(Wish::Interrupt);
        worker.held.empty().await;
    };
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(INTERRUPT).await;
    };
    tokio::select! {
        () = handed_back => {}
        () = stopped => {}
    }
}

/// Waits for the wish to stop, then for the work to end.
async fn drain(
    worker: &Incarnation,
    stop: &CancellationToken,
    interrupt: &CancellationToken,
    consumers: &mut JoinSet<()>,
) {
    stop.cancelled().await;
    worker.lease.draining.store(true, Ordering::Relaxed);
    worker.stop_taking.cancel();
    tracing::info!(timeout = ?worker.config.drain_timeout, "draining: no new work is taken");
    while consumers.join_next().await.is_some() {}
    tokio::select! {
        () = worker.held.empty() => return,
        () = tokio::time::sleep(worker.config.drain_timeout) => {}
        () = interrupt.cancelled() => {}
    }
    tracing::warn!("drain timeout: what still runs is interrupted and requeued");
    worker.held.wish_all(Wish::Interrupt);
    let _ = tokio::time::timeout(INTERRUPT, worker.held.empty()).await;
}
