//! Delivers callbacks: HTTP requests that tell of what happened.
//!
//! They are rows of the store, written with the event. This loop takes what is due, for as long as a delivery may take and some
//! more; what a crash leaves is due again then. A target that hangs holds up nobody else: each delivery has a deadline, all that
//! are under way are bounded, and so are those of one target.

mod deliver;

use crate::{SchedulerHandle, repeat};
use deliver::{Deliverer, LONGEST};
use gristmill_store::{CallRow, CallState, Claim, Delivery};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Deliveries under way at one time.
const AT_ONCE: usize = 64;
/// And to one target, before no more are taken for it.
const TO_ONE_TARGET: i64 = 4;
/// A delivery that was taken is another's after this.
const LEASE: Duration = Duration::from_secs(2 * LONGEST.as_secs());

pub(crate) async fn run(handle: Arc<SchedulerHandle>) {
    let deliverer = match Deliverer::new(handle.clone()) {
        Ok(deliverer) => Arc::new(deliverer),
        Err(error) => {
            // Without certificates to trust there is no client; nothing else hangs on it.
            tracing::error!(%error, "callbacks cannot be delivered by this scheduler");
            return std::future::pending().await;
        }
    };
    let mut under_way: JoinSet<(String, Delivery)> = JoinSet::new();
    let mut targets: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        let taken = take(&handle, AT_ONCE.saturating_sub(under_way.len()), &targets).await;
        let more = !taken.is_empty();
        for call in taken {
            *targets.entry(call.target.clone()).or_default() += 1;
            let deliverer = deliverer.clone();
            under_way.spawn(async move { (call.target.clone(), deliverer.deliver(&call).await) });
        }
        if more && under_way.len() < AT_ONCE {
            continue;
        }
        tokio::select! {
            Some(done) = under_way.join_next() => {
                let mut deliveries = Vec::new();
                let mut next = Some(done);
                // All that are there by now, in one statement.
                while let Some(done) = next {
                    match done {
                        Ok((target, delivery)) => {
                            forget(&mut targets, &target);
                            deliveries.push(delivery);
                        }
                        // What it had taken is due again after its lease.
                        Err(error) => {
                            tracing::error!(%error, "a delivery of a callback ended unexpectedly");
                            targets.clear();
                        }
                    }
                    next = under_way.try_join_next();
                }
                note(&handle, &deliveries).await;
            }
            _ = handle.wait_for(&handle.wake_callbacks, |to_do| to_do.callbacks) => {}
        }
    }
}

async fn take(
    handle: &SchedulerHandle,
    room: usize,
    targets: &BTreeMap<String, i64>,
) -> Vec<CallRow> {
    if room == 0 {
        return Vec::new();
    }
    let busy: Vec<String> = targets
        .iter()
        .filter(|(_, n)| **n >= TO_ONE_TARGET)
        .map(|(target, _)| target.clone())
        .collect();
    let claim = Claim {
        max: i64::try_from(room).unwrap_or(i64::MAX),
        of_one_target: TO_ONE_TARGET,
        busy: &busy,
        lease: LEASE,
    };
    let look = || handle.store.claim_calls(&claim);
    match repeat::until_answered("taking callbacks to deliver", look).await {
        Ok(taken) => taken,
        Err(error) => {
            tracing::error!(%error, "cannot take callbacks to deliver");
            Vec::new()
        }
    }
}

fn forget(targets: &mut BTreeMap<String, i64>, target: &str) {
    if let Some(n) = targets.get_mut(target) {
        *n -= 1;
        if *n <= 0 {
            targets.remove(target);
        }
    }
}

async fn note(handle: &SchedulerHandle, deliveries: &[Delivery]) {
    for delivery in deliveries {
        let outcome = match delivery.state {
            CallState::Delivered => "delivered",
            CallState::Pending => "failed",
            CallState::Failed => "given_up",
        };
        metrics::counter!("gristmill_callbacks_total", "outcome" => outcome).increment(1);
    }
    let write = || handle.store.delivered(deliveries);
    if let Err(error) = repeat::until_answered("noting deliveries of callbacks", write).await {
        tracing::error!(%error, "cannot note deliveries of callbacks: they will be made again");
    }
}
