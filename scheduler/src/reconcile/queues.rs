//! Keeps queues' publish caps in step with the workers there are, and says that this scheduler lives.

use crate::SchedulerHandle;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const EVERY: Duration = Duration::from_secs(5);
/// A queue's publish cap is at least this.
const LEAST: i64 = 1_000;

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    let mut known: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        if let Err(error) = handle
            .store
            .heartbeat("scheduler", &handle.id.to_string(), &handle.hostname)
            .await
        {
            tracing::debug!(%error, "cannot leave a heartbeat now");
        }
        if let Ok(snapshot) = handle.presence.leases().await {
            let mut slots: BTreeMap<String, i64> = BTreeMap::new();
            for lease in &snapshot.leases {
                for queue in &lease.info.queues {
                    *slots.entry(queue.clone()).or_default() += i64::from(lease.info.slots);
                }
            }
            let caps: BTreeMap<String, i64> = slots
                .into_iter()
                .map(|(queue, slots)| (queue, LEAST.max(2 * slots)))
                .collect();
            let changed: Vec<(String, i64)> = caps
                .iter()
                .filter(|(queue, cap)| known.get(*queue) != Some(cap))
                .map(|(queue, cap)| (queue.clone(), *cap))
                .collect();
            if !changed.is_empty() && handle.store.set_queue_caps(&changed).await.is_ok() {
                known = caps;
                handle.wake_dispatch.notify_one();
            }
        }
        if let Ok(age) = handle.store.outbox_oldest_age().await {
            metrics::gauge!("gristmill_outbox_oldest_age_seconds")
                .set(age.unwrap_or_default().as_secs_f64());
        }
        tokio::time::sleep(EVERY).await;
    }
}
