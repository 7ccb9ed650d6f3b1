//! Waits for runs: LISTEN on a connection of its own, reconnected for ever.

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Notified in `insert_runs` and where a run ends; the payload is empty.
pub(crate) const CHANNEL: &str = "gm_runs";
const RECONNECT: Duration = Duration::from_secs(1);

/// What `run_changed` waits on.
#[derive(Debug, Default)]
pub(crate) struct RunChanges {
    /// Changes heard of so far.
    heard: AtomicU64,
    wake: Notify,
}

impl RunChanges {
    fn announce(&self) {
        self.heard.fetch_add(1, SeqCst);
        self.wake.notify_waiters();
    }

    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(SeqCst)
    }

    /// Returns when more changes were heard of than `seen`.
    pub(crate) async fn wait(&self, seen: u64, at_most: Duration) {
        let woken = self.wake.notified();
        tokio::pin!(woken);
        // Registered before the counter is read: a change between the two wakes us.
        woken.as_mut().enable();
        if self.heard() == seen {
            let _ = tokio::time::timeout(at_most, woken).await;
        }
    }
}

/// Listens for ever. Notifications sent while there is no connection are lost, hence each new one counts as a change.
pub(crate) async fn keep(changes: Arc<RunChanges>, options: PgConnectOptions) {
    // The listener reconnects through a pool of its own: it must never compete with statements for a connection.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(options);
    loop {
        let Err(error) = listen(&changes, &pool).await;
        tracing::debug!(%error, "not listening for runs, trying again");
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn listen(
    changes: &RunChanges,
    pool: &sqlx::PgPool,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        changes.announce();
        // None: the connection was lost and has been replaced.
        listener.try_recv().await?;
    }
}
