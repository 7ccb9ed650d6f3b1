//! The guardian, for asynchronous callers.

use gristmill_guardian::{
    ClientError, Event, Exited, GuardianClient, GuardianConfig, SpawnFailure, SpawnFailureKind,
    SpawnRequest, StartError,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{oneshot, watch};

type SpawnAnswer = Result<u32, SpawnFailure>;

#[derive(Debug)]
struct Waiting {
    spawned: Option<oneshot::Sender<SpawnAnswer>>,
    exited: Option<oneshot::Sender<Exited>>,
}

/// Starts processes under the guardian and waits for their ends.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    client: GuardianClient,
    waiting: Arc<Mutex<HashMap<u64, Waiting>>>,
    next: Arc<AtomicU64>,
    died: watch::Receiver<Option<String>>,
}

/// A process tree that was asked for.
#[derive(Debug)]
pub(crate) struct Child {
    id: u64,
    pub(crate) pid: u32,
    exited: oneshot::Receiver<Exited>,
    client: GuardianClient,
}

/// Why a process does not run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// No fault of the task's: the worker's lease was over, or its guardian is gone or going. The guardian's word counts, not
    /// what the lease says by now: a worker that was stopped may have renewed it since.
    Interrupted,
    Failed(String),
}

impl NotStarted {
    fn of(failure: &SpawnFailure) -> Self {
        match failure.kind {
            SpawnFailureKind::DeadlinePassed | SpawnFailureKind::ShuttingDown => Self::Interrupted,
            _ => Self::Failed(failure.to_string()),
        }
    }
}

impl Processes {
    pub(crate) fn start(config: GuardianConfig) -> Result<Self, StartError> {
        let waiting: Arc<Mutex<HashMap<u64, Waiting>>> = Arc::default();
        let (dead, died) = watch::channel(None);
        let client = {
            let waiting = waiting.clone();
            GuardianClient::start(config, move |event| route(&waiting, &dead, event))?
        };
        Ok(Self {
            client,
            waiting,
            next: Arc::new(AtomicU64::new(1)),
            died,
        })
    }

    /// Starts a process; answers when it runs, or why it does not.
    pub(crate) async fn spawn(&self, request: SpawnRequest) -> Result<Child, NotStarted> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (spawned, answer) = oneshot::channel();
        let (exit, exited) = oneshot::channel();
        let waiting = Waiting {
            spawned: Some(spawned),
            exited: Some(exit),
        };
        lock(&self.waiting).insert(id, waiting);
        // Whoever waits when the guardian dies is told; this one may have come after.
        if let Some(how) = &*self.died.borrow() {
            lock(&self.waiting).remove(&id);
            tracing::debug!(%how, "the guardian is gone");
            return Err(NotStarted::Interrupted);
        }
        if let Err(error) = self.client.spawn(id, request) {
            lock(&self.waiting).remove(&id);
            return Err(NotStarted::Failed(error.to_string()));
        }
        let pid = answer
            .await
            .map_err(|_| NotStarted::Interrupted)?
            .map_err(|failure| NotStarted::of(&failure))?;
        Ok(Child {
            id,
            pid,
            exited,
            client: self.client.clone(),
        })
    }

    pub(crate) fn guardian_is_dead(&self) -> bool {
        self.died.borrow().is_some()
    }

    pub(crate) fn set_deadline(&self, boottime_ns: u64) {
        if let Err(error) = self.client.set_deadline(boottime_ns) {
            tracing::error!(%error, "cannot move the guardian's deadline");
        }
    }

    /// Waits until the guardian has died, and kills by group what it knew of: the worker must exit then.
    pub(crate) async fn guardian_death(&self) -> String {
        let mut died = self.died.clone();
        let how = died
            .wait_for(Option::is_some)
            .await
            .map(|how| how.clone().unwrap_or_default());
        match how {
            Ok(how) => {
                self.client.kill_known_groups();
                how
            }
            Err(_) => std::future::pending().await,
        }
    }

    /// Kills everything and waits until the guardian has said that nothing is left.
    pub(crate) async fn shut_down(&self) {
        if self.client.shutdown().is_ok() {
            let mut died = self.died.clone();
            let _ =
                tokio::time::timeout(Duration::from_secs(10), died.wait_for(Option::is_some)).await;
        }
    }
}

impl Child {
    /// How the tree ended. Every process of it is dead by then.
    pub(crate) async fn exited(&mut self) -> Option<Exited> {
        (&mut self.exited).await.ok()
    }

    /// SIGTERM to the group, SIGKILL to the whole tree after `grace`.
    pub(crate) fn terminate(&self, grace: Duration) -> Result<(), ClientError> {
        self.client.terminate(self.id, grace)
    }
}

fn lock(
    waiting: &Mutex<HashMap<u64, Waiting>>,
) -> std::sync::MutexGuard<'_, HashMap<u64, Waiting>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings an event of the guardian to the one who waits for it.
fn route(
    waiting: &Mutex<HashMap<u64, Waiting>>,
    dead: &watch::Sender<Option<String>>,
    event: Event,
) {
    match event {
        Event::Spawned { id, pid } => {
            if let Some(sender) = lock(waiting).get_mut(&id).and_then(|w| w.spawned.take()) {
                let _ = sender.send(Ok(pid));
            }
        }
        Event::SpawnFailed { id, failure } => {
            if let Some(sender) = lock(waiting).remove(&id).and_then(|w| w.spawned) {
                let _ = sender.send(Err(failure));
            }
        }
        Event::Exited(exited) => {
            if let Some(sender) = lock(waiting).remove(&exited.id).and_then(|w| w.exited) {
                let _ = sender.send(exited);
            }
        }
        Event::DeadlinePassed { tasks, .. } => tracing::error!(
            tasks,
            "the lease's deadline has passed: the guardian kills every task"
        ),
        Event::ShutDown => {
            dead.send_replace(Some("it was shut down".to_owned()));
            lock(waiting).clear();
        }
        Event::GuardianDied { how, .. } => {
            dead.send_replace(Some(how));
            lock(waiting).clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task whose worker was stopped over its lease's end, and has renewed it before it hears of the refusal, has not failed.
    #[test]
    fn what_the_lease_forbade_is_no_failure_of_the_task() {
        let why = |kind| {
            NotStarted::of(&SpawnFailure {
                kind,
                errno: 0,
                detail: "sh".to_owned(),
            })
        };
        for kind in [
            SpawnFailureKind::DeadlinePassed,
            SpawnFailureKind::ShuttingDown,
        ] {
            assert_eq!(why(kind), NotStarted::Interrupted);
        }
        assert!(matches!(
            why(SpawnFailureKind::NotFound),
            NotStarted::Failed(reason) if reason.contains("sh was not found")
        ));
    }
}
