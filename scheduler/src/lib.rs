//! The scheduler: a set of loops around the store's transactions. It holds no state of its own that matters: any number
//! may run, and any may be killed at any instant.
//!
//! * `events`: applies what workers report, in batches, one task a shard.
//! * `dispatch`: dispatches ready instances as limits give room.
//! * `relay`: publishes the outbox.
//! * `look`: asks the database once a second what there is to do, and wakes the others.
//! * `runs`: starts queued runs, makes scheduled ones, stops those that have to stop.
//! * `callbacks`: delivers callbacks.
//! * [`reconcile`]: repairs whatever a crash left, from the database alone.

mod barrier;
mod callbacks;
mod cancel;
mod config;
mod dispatch;
mod effects;
mod epoch;
mod events;
mod hydrate;
mod look;
mod parts;
pub mod reconcile;
mod relay;
mod repeat;
mod runs;

pub use config::SchedulerConfig;
pub use parts::{Parts, SchedulerHandle};

use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs every loop of a scheduler until `stop` is cancelled. What is under way then may be dropped: it is repaired like a
/// crash.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let handle = Arc::new(SchedulerHandle::new(parts));
    tracing::info!(scheduler = %handle.id, "scheduler started");
    let mut loops = JoinSet::new();
    for shard in 0..handle.broker.event_shards() {
        loops.spawn(events::run(handle.clone(), shard));
    }
    loops.spawn(relay::run(handle.clone()));
    loops.spawn(dispatch::run(handle.clone()));
    loops.spawn(runs::run(handle.clone()));
    loops.spawn(epoch::run(handle.clone()));
    loops.spawn(look::run(handle.clone()));
    loops.spawn(callbacks::run(handle.clone()));
    reconcile::spawn(&handle, &mut loops);
    tokio::select! {
        () = stop.cancelled() => {}
        Some(ended) = loops.join_next() => {
            // A loop never returns: one that did has panicked, and the process must not go on without it.
            tracing::error!(?ended, "a loop of the scheduler ended");
        }
    }
    loops.shutdown().await;
    tracing::info!(scheduler = %handle.id, "scheduler stopped");
}
