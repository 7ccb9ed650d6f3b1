//! What the loops share.

use crate::SchedulerConfig;
use gristmill_broker::Broker;
use gristmill_common::{ids::RunPk, row::OutboxRow, seal::SecretKey};
use gristmill_objects::ObjectStore;
use gristmill_presence::Presence;
use gristmill_store::{DispatchContext, PlanCache, Published, Store, ToDo};
use std::{fmt, ops::Deref, sync::Arc};
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

/// The servers that a scheduler talks to, and its settings.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    pub presence: Arc<dyn Presence>,
    pub objects: ObjectStore,
    pub config: SchedulerConfig,
    pub hostname: String,
    /// Makes the token with which a run's tasks read its XComs from the API.
    pub token: Arc<dyn Fn(RunPk) -> String + Send + Sync>,
    /// Opens the connections that callbacks name, when they are delivered.
    pub secret: SecretKey,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A running scheduler: its parts, and the bells by which its loops wake each other.
#[derive(Debug)]
pub struct SchedulerHandle {
    pub parts: Parts,
    /// Names this scheduler among all.
    pub id: Uuid,
    pub(crate) plans: Arc<PlanCache>,
    /// What the broker has confirmed and the outbox still has.
    pub(crate) published: Arc<Published>,
    /// What the last look found.
    pub(crate) to_do: watch::Sender<ToDo>,
    /// Ready instances may fit.
    pub(crate) wake_dispatch: Notify,
    /// Queued runs may start, or runs have to stop.
    pub(crate) wake_runs: Notify,
    /// Bounced dispatches wait to be looked at.
    pub(crate) wake_unclaimed: Notify,
    /// Incarnations that hold dispatches which should have started long ago: the judge watches them too.
    pub(crate) suspects: std::sync::Mutex<std::collections::BTreeSet<String>>,
    /// Dispatches are to be stopped because their instances were cleared or marked.
    pub(crate) wake_restarting: Notify,
    /// A retry was set that may be due before the next look.
    pub(crate) wake_retries: Notify,
    /// Instances wait to be looked at, or for a run that has ended.
    pub(crate) wake_waits: Notify,
    /// Callbacks were called.
    pub(crate) wake_callbacks: Notify,
    /// Rows to publish now.
    pub(crate) to_publish: mpsc::UnboundedSender<Vec<OutboxRow>>,
    pub(crate) publish_queue: std::sync::Mutex<Option<mpsc::UnboundedReceiver<Vec<OutboxRow>>>>,
    /// The epoch of presence as last seen, and since when it has been seen without a break.
    pub(crate) epoch: watch::Sender<crate::epoch::Seen>,
}

impl Deref for SchedulerHandle {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl SchedulerHandle {
    pub fn new(parts: Parts) -> Self {
        // Unbounded in type only: what is in it was written to the outbox, which the queues' publish caps bound.
        let (to_publish, publish_queue) = mpsc::unbounded_channel();
        Self {
            parts,
            id: Uuid::now_v7(),
            plans: Arc::default(),
            published: Arc::default(),
            to_do: watch::Sender::new(ToDo::default()),
            wake_dispatch: Notify::new(),
            wake_runs: Notify::new(),
            wake_unclaimed: Notify::new(),
            suspects: std::sync::Mutex::default(),
            wake_restarting: Notify::new(),
            wake_retries: Notify::new(),
            wake_waits: Notify::new(),
            wake_callbacks: Notify::new(),
            to_publish,
            publish_queue: std::sync::Mutex::new(Some(publish_queue)),
            epoch: watch::Sender::new(crate::epoch::Seen::default()),
        }
    }

    /// What a transaction of this scheduler needs to dispatch, as things stand.
    pub(crate) fn context(&self) -> DispatchContext {
        DispatchContext {
            epoch: self.epoch.borrow().epoch(),
            claim_window: self.config.claim_window,
            batch: self.config.dispatch_batch,
            plans: self.plans.clone(),
            published: self.published.clone(),
            token: self.token.clone(),
        }
    }
}
