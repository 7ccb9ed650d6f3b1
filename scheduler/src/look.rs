//! The look: one statement a second asks the database what there is to do, and the loops that do it wait for its answer
//! beside their bells. So what a bell did not ring for (a crash, another scheduler, a user's change, time itself) is found
//! within a second, and a scheduler without work costs the database next to nothing.

use crate::{SchedulerHandle, relay};
use gristmill_store::{StoreResult, ToDo};
use std::sync::Arc;
use tokio::sync::Notify;

pub(crate) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        // Those that no transaction has taken along.
        relay::delete_published(&handle).await;
        match handle.look().await {
            Ok(to_do) => {
                handle.to_do.send_replace(to_do);
            }
            // Whoever has work to do says so, and waits.
            Err(error) => tracing::debug!(%error, "cannot look for work now"),
        }
        tokio::time::sleep(handle.config.reconcile_every).await;
    }
}

impl SchedulerHandle {
    /// What there is to do for this scheduler.
    pub(crate) async fn look(&self) -> StoreResult<ToDo> {
        let mut to_do = self.store.to_do(self.config.outbox_age).await?;
        to_do.due_dags &= self.config.schedules;
        Ok(to_do)
    }

    /// Until the bell rings (`true`), or a look from now on finds what `wanted` names (`false`).
    pub(crate) async fn wait_for(&self, bell: &Notify, wanted: fn(&ToDo) -> bool) -> bool {
        tokio::select! {
            () = bell.notified() => true,
            () = found(self.to_do.subscribe(), wanted) => false,
        }
    }
}

impl SchedulerHandle {
    /// Until a look from now on finds what `wanted` names, for what no bell rings for.
    pub(crate) async fn wait_for_look(&self, wanted: fn(&ToDo) -> bool) {
        found(self.to_do.subscribe(), wanted).await;
    }
}

async fn found(mut looks: tokio::sync::watch::Receiver<ToDo>, wanted: fn(&ToDo) -> bool) {
    while looks.changed().await.is_ok() {
        if wanted(&looks.borrow_and_update()) {
            return;
        }
    }
}
