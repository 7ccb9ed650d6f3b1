//! Reconcilers: small loops without input that read the database and repair what a crash left. Crash repair is the normal
//! path, late.

mod dead;
mod deadlines;
mod lost;
mod outbox;
mod push;
mod queues;
mod restart;
mod restarting;
mod retention;
mod retries;
mod unclaimed;
mod waits;

pub use restart::adopt_dead_host;

use crate::SchedulerHandle;
use std::sync::Arc;
use tokio::task::JoinSet;

pub(crate) fn spawn(handle: &Arc<SchedulerHandle>, loops: &mut JoinSet<()>) {
    loops.spawn(dead::run(handle.clone()));
    loops.spawn(deadlines::run(handle.clone()));
    loops.spawn(lost::run(handle.clone()));
    loops.spawn(outbox::run(handle.clone()));
    loops.spawn(push::run(handle.clone()));
    loops.spawn(queues::run(handle.clone()));
    loops.spawn(restarting::run(handle.clone()));
    loops.spawn(retention::run(handle.clone()));
    loops.spawn(retention::audits(handle.clone()));
    loops.spawn(retries::run(handle.clone()));
    loops.spawn(unclaimed::run(handle.clone()));
    loops.spawn(waits::run(handle.clone()));
}
