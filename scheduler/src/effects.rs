//! What follows a committed transaction. Losing any of it costs time only: reconcilers find it in the database.

use crate::{SchedulerHandle, cancel};
use gristmill_common::{ids::RunPk, message::data_prefix};
use gristmill_store::Applied;
use std::sync::Arc;

/// Publishes, wakes and cancels what a transaction asked for.
pub(crate) fn carry_out(handle: &Arc<SchedulerHandle>, applied: Applied) {
    if !applied.outbox.is_empty() {
        metrics::counter!("gristmill_dispatches_total").increment(applied.outbox.len() as u64);
        // Fails only when the relay is gone, and with it this scheduler.
        let _ = handle.to_publish.send(applied.outbox);
    }
    if applied.more_ready {
        handle.wake_dispatch.notify_one();
    }
    if applied.waits {
        handle.wake_waits.notify_one();
    }
    if applied.calls {
        handle.wake_callbacks.notify_one();
    }
    if !applied.ended_runs.is_empty() {
        metrics::counter!("gristmill_runs_ended_total").increment(applied.ended_runs.len() as u64);
        // Each made room in its DAG's max_active_runs.
        handle.wake_runs.notify_one();
        for ended in applied.ended_runs.iter().filter(|ended| ended.has_data) {
            tokio::spawn(forget_data(handle.clone(), ended.run));
        }
    }
    if applied.updated_assets {
        handle.wake_runs.notify_one();
    }
    if applied.stale > 0 {
        metrics::counter!("gristmill_stale_events_total").increment(applied.stale as u64);
    }
    if !applied.to_cancel.is_empty() {
        let handle = handle.clone();
        tokio::spawn(async move { cancel::cancel(&handle, &applied.to_cancel).await });
    }
}

/// Deletes the folders of a run's data task attempts. What a crash leaves goes with the run's other objects.
async fn forget_data(handle: Arc<SchedulerHandle>, run: RunPk) {
    if let Err(error) = handle.objects.delete_prefix(&data_prefix(run)).await {
        tracing::warn!(%run, %error, "cannot delete the folders of its data tasks");
    }
}
