//! Ends dispatches: of runs that are being stopped, and of instances that were cleared or marked.

use crate::{SchedulerHandle, barrier, effects, epoch, repeat};
use gristmill_broker::{ControlTarget, Publication, Target};
use gristmill_common::{engine::Command, ids::Dispatch, message::Control, state::TaskState};
use gristmill_presence::CancelState;
use gristmill_store::OutDispatch;
use std::{collections::BTreeMap, sync::Arc};

/// Marks the dispatches as cancelled in presence, from when on nobody can claim them; tells the workers that hold one; and
/// ends those that nobody holds. Repeated every second while any is left.
pub(crate) async fn cancel(handle: &Arc<SchedulerHandle>, dispatches: &[OutDispatch]) {
    let ids: Vec<(i64, i64)> = dispatches
        .iter()
        .map(|d| (d.dispatch.ti.0, d.dispatch.fence.0))
        .collect();
    let cancels = match handle.presence.cancel(&ids).await {
        Ok(cancels) => cancels,
        Err(error) => {
            tracing::warn!(%error, "cannot cancel yet; will be tried again");
            return;
        }
    };
    let restored = epoch::record_is_complete(handle, cancels.epoch).await;
    let mut by_worker: BTreeMap<String, Vec<Dispatch>> = BTreeMap::new();
    let (mut unclaimed, mut forgotten) = (Vec::new(), Vec::new());
    for (out, state) in dispatches.iter().zip(cancels.states) {
        match state {
            CancelState::HeldBy(worker) => by_worker.entry(worker).or_default().push(out.dispatch),
            // A proof only under the epoch of the dispatch, or once every worker has restored its claims under the new one.
            CancelState::NotClaimed
                if not_heard_of(out) && (out.epoch == cancels.epoch || restored) =>
            {
                let same_epoch = out.epoch == cancels.epoch;
                let found = if same_epoch {
                    &mut unclaimed
                } else {
                    &mut forgotten
                };
                found.push(Command::CancelledUnclaimed {
                    run: out.run,
                    dispatch: out.dispatch,
                });
            }
            CancelState::NotClaimed | CancelState::Released => {}
        }
    }
    tell_workers(handle, by_worker, |dispatches| Control::Cancel {
        dispatches,
    })
    .await;
    // What is missing from a new record may have run and ended under the old one: what was reported until now has to be
    // applied first.
    if !forgotten.is_empty() && barrier::pass(handle).await {
        unclaimed.append(&mut forgotten);
    }
    if unclaimed.is_empty() {
        return;
    }
    let context = handle.context();
    match repeat::until_answered("cancelling", || {
        handle.store.apply(&unclaimed, &[], &context)
    })
    .await
    {
        Ok(applied) => effects::carry_out(handle, applied),
        Err(error) => tracing::error!(%error, "cannot cancel"),
    }
}

/// Whether no start of it has been applied.
fn not_heard_of(out: &OutDispatch) -> bool {
    match out.state {
        TaskState::Queued => true,
        TaskState::Restarting => out.worker.is_none(),
        _ => false,
    }
}

/// Sends each worker its part. A nudge: whoever sends it does so again.
pub(crate) async fn tell_workers<T>(
    handle: &SchedulerHandle,
    by_worker: BTreeMap<String, Vec<T>>,
    control: impl Fn(Vec<T>) -> Control,
) {
    let batch: Vec<Publication> = by_worker
        .into_iter()
        .map(|(incarnation, part)| {
            let body = serde_json::to_vec(&control(part)).unwrap_or_default();
            Publication::new(Target::Control(ControlTarget::Worker { incarnation }), body)
        })
        .collect();
    if !batch.is_empty() {
        handle.broker.publish(batch).await;
    }
}
