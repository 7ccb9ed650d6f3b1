//! Watches the epoch of presence: every dispatch carries it, and judgements need to have watched it long enough.

use crate::SchedulerHandle;
use rustix::time::{ClockId, clock_gettime};
use std::{sync::Arc, time::Duration};

const EVERY: Duration = Duration::from_millis(500);

/// Time since boot, suspended time included: a scheduler that slept must not believe that it watched.
pub(crate) fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// The epoch as last seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    epoch: Option<i64>,
    since: Duration,
}

impl Seen {
    /// The epoch, while presence is reachable.
    pub(crate) fn epoch(&self) -> Option<i64> {
        self.epoch
    }

    /// Whether this epoch has been seen without a break for at least `time`.
    pub(crate) fn seen_for(&self, time: Duration) -> bool {
        self.epoch.is_some() && boottime().saturating_sub(self.since) >= time
    }

    fn now(&mut self, epoch: Option<i64>) -> bool {
        if self.epoch == epoch {
            return false;
        }
        *self = Self {
            epoch,
            since: boottime(),
        };
        true
    }
}

/// Whether the record of claims of this epoch is complete for dispatches of earlier ones too: every worker that lives has
/// restored its claims. One that cannot reach presence and lives on leases over the broker has not, and may hold any of
/// them. The epoch is that of the answer which is to be relied on: what was seen last may be older than it.
pub(crate) async fn record_is_complete(handle: &SchedulerHandle, epoch: i64) -> bool {
    let patience = handle.config.lease + handle.config.judge_margin;
    let seen = *handle.epoch.borrow();
    seen.epoch() == Some(epoch)
        && seen.seen_for(patience)
        && matches!(handle.store.leased_over_broker(patience).await, Ok(false))
}

pub(crate) async fn run(handle: Arc<SchedulerHandle>) {
    let mut last_look = boottime();
    let mut waiting = false;
    loop {
        let epoch = handle.presence.epoch().await;
        if let Err(error) = &epoch
            && !waiting
        {
            tracing::warn!(%error, "presence is away: nothing can be claimed, dispatching waits");
        }
        waiting = epoch.is_err();
        // A pause of this very loop is a break in watching too.
        let pause = boottime().saturating_sub(last_look);
        last_look = boottime();
        let changed = handle.epoch.send_if_modified(|seen| {
            let broken = pause > 4 * EVERY + Duration::from_secs(2);
            if broken {
                seen.since = boottime();
            }
            seen.now(epoch.as_ref().ok().copied())
        });
        if changed && let Ok(epoch) = epoch {
            tracing::info!(epoch, "presence is reachable");
            handle.wake_dispatch.notify_one();
            handle.wake_unclaimed.notify_one();
            handle.wake_runs.notify_one();
        }
        tokio::time::sleep(EVERY).await;
    }
}
