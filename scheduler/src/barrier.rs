//! Barriers: a proof that everything sent before has been applied.

use crate::SchedulerHandle;
use gristmill_broker::{Publication, Target};
use gristmill_common::message::{Event, EventBatch, VERSION};
use std::time::Duration;
use uuid::Uuid;

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A barrier that is not through by then is given up; its caller asks again later.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a barrier through every events queue and waits until each shard has applied it. `false` when it did not get
/// through in time.
pub(crate) async fn pass(handle: &SchedulerHandle) -> bool {
    let id = Uuid::now_v7();
    let shards = handle.broker.event_shards();
    let batch = (0..shards)
        .map(|shard| {
            let events = EventBatch {
                v: VERSION,
                events: vec![Event::Barrier {
                    id,
                    shard: shard as u16,
                }],
            };
            Publication::new(
                Target::Events(shard),
                serde_json::to_vec(&events).unwrap_or_default(),
            )
        })
        .collect();
    if !handle
        .broker
        .publish(batch)
        .await
        .iter()
        .all(|outcome| outcome.is_confirmed())
    {
        return false;
    }
    let wait = async {
        loop {
            match handle.store.barrier_applied(id).await {
                Ok(applied) if u32::from(applied) >= shards => return true,
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or(false)
}
