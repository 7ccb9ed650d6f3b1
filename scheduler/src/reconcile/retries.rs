//! Makes instances ready whose retry is due.

use crate::{SchedulerHandle, effects, repeat};
use std::{sync::Arc, time::Duration};

const AT_LEAST_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        let context = handle.context();
        match repeat::until_answered("retrying", || handle.store.retry_due(&context)).await {
            Ok(applied) => effects::carry_out(&handle, applied),
            Err(error) => tracing::error!(%error, "cannot retry"),
        }
        tokio::time::sleep(AT_LEAST_EVERY).await;
        handle.wait_for_retries().await;
    }
}

impl SchedulerHandle {
    /// Until an ending may have set a retry, or a while is over: retries that other schedulers set are found then.
    async fn wait_for_retries(&self) {
        let _ = tokio::time::timeout(AT_LEAST_EVERY, self.wake_retries.notified()).await;
    }
}
