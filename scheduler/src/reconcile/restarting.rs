//! Stops the dispatches of instances that were cleared or marked while they ran.

use crate::{SchedulerHandle, cancel};
use std::sync::Arc;

/// Dispatches told to stop in one go.
const PASS: i64 = 1_000;

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        handle
            .wait_for(&handle.wake_restarting, |to_do| to_do.restarting)
            .await;
        match handle.store.restarting(PASS).await {
            Ok(out) if out.is_empty() => {}
            Ok(out) => cancel::cancel(&handle, &out).await,
            // The next look finds them again.
            Err(error) => tracing::warn!(%error, "cannot look for instances to stop"),
        }
    }
}
