//! Makes instances ready whose retry is due.

use crate::{SchedulerHandle, effects, repeat};
use std::{sync::Arc, time::Duration};

const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        let context = handle.context();
        match repeat::until_answered("retrying", || handle.store.retry_due(&context)).await {
            Ok(applied) => effects::carry_out(&handle, applied),
            Err(error) => tracing::error!(%error, "cannot retry"),
        }
        let rang = handle
            .wait_for(&handle.wake_retries, |to_do| to_do.retries)
            .await;
        if rang {
            // It was set just now, and is due in a while at the earliest.
            tokio::time::sleep(PAUSE).await;
        }
    }
}
