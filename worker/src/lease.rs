//! Keeps the worker's lease.
//!
//! The worker may hold live processes until the send time of its last acknowledged renewal plus the lease, on
//! `CLOCK_BOOTTIME`. The guardian enforces that deadline for processes; everything else asks [`Lease::holds`]. A renewal is
//! acknowledged by presence, or, while presence is away, by a scheduler over the broker.

use crate::{
    held::{Held, Wish},
    processes::Processes,
    report::{Reporter, release},
};
use gristmill_common::{
    ids::{Dispatch, RunPk},
    message::{Event, RenewRequest},
};
use gristmill_guardian::boottime_now_ns;
use gristmill_presence::{Presence, Renewal, Restore, WorkerInfo, WorkerStatus};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Renewals per lease.
const PER_LEASE: u32 = 6;

/// The lease of one incarnation.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) info: WorkerInfo,
    length: Duration,
    presence: Arc<dyn Presence>,
    held: Arc<Held>,
    processes: Processes,
    /// `CLOCK_BOOTTIME`, ns.
    deadline: AtomicU64,
    epoch: AtomicI64,
    /// Whether presence answered the last renewal: only then can anything be claimed.
    reachable: watch::Sender<bool>,
    renew_now: Notify,
    pub(crate) draining: AtomicBool,
    /// A claim may be missing from what was restored last.
    restore_again: AtomicBool,
    /// Something went wrong in here: processes may live that nothing watches any more.
    broken: AtomicBool,
    /// Dispatches that presence records as claimed by this incarnation, and of which nothing was heard.
    asked_about: Mutex<Vec<(RunPk, Dispatch)>>,
}

/// Why a lease's loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    /// Judged lost: nothing that this incarnation holds counts any more.
    Revoked,
    /// It was over before it was renewed. What this incarnation holds may be given up or go out again by now, so none of it
    /// may start any more, whatever presence still grants.
    Lapsed,
    /// A task's supervision broke down: only the end of the whole incarnation proves that its processes are dead.
    Broken,
}

impl Lease {
    pub(crate) fn new(
        info: WorkerInfo,
        length: Duration,
        presence: Arc<dyn Presence>,
        held: Arc<Held>,
        processes: Processes,
    ) -> Self {
        Self {
            info,
            length,
            presence,
            held,
            processes,
            deadline: AtomicU64::new(0),
            epoch: AtomicI64::new(0),
            reachable: watch::Sender::new(false),
            renew_now: Notify::new(),
            draining: AtomicBool::new(false),
            restore_again: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            asked_about: Mutex::default(),
        }
    }

    /// Whether the lease holds at this instant.
    pub(crate) fn holds(&self) -> bool {
        boottime_now_ns() < self.deadline.load(Ordering::SeqCst)
    }

    /// Whether claims can be made now.
    pub(crate) fn watch_reachable(&self) -> watch::Receiver<bool> {
        self.reachable.subscribe()
    }

    /// A dispatch of this epoch was claimed, and is held by now. If presence has lost its memory in between, the claims
    /// that were restored may not have had it among them.
    pub(crate) fn claimed_under(&self, epoch: i64) {
        if self.epoch.load(Ordering::SeqCst) != epoch {
            self.restore_again.store(true, Ordering::SeqCst);
            self.look_now();
        }
    }

    /// Ends the incarnation, and with it every process that it has.
    pub(crate) fn give_up(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.look_now();
    }

    /// A scheduler asks about dispatches that this incarnation has claimed.
    pub(crate) fn check(&self, dispatches: Vec<(RunPk, Dispatch)>) {
        *self
            .asked_about
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = dispatches;
        self.look_now();
    }

    /// Gives back what was claimed without this incarnation knowing: the answer to the claim was lost, and another worker
    /// has acknowledged the message. Taking it first makes sure that it can not be run here any more.
    fn disown(&self, reporter: &Reporter) {
        let asked = std::mem::take(
            &mut *self
                .asked_about
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for (run, dispatch) in asked {
            if self.held.take(dispatch).is_some() {
                reporter.event(Event::Requeued {
                    run,
                    dispatch,
                    reason: "the answer to its claim was lost".to_owned(),
                });
            }
        }
    }

    /// Something suggests that presence has changed: renew at once.
    pub(crate) fn look_now(&self) {
        self.renew_now.notify_one();
    }

    /// A renewal sent at `sent_at` was acknowledged.
    pub(crate) fn acknowledged(&self, sent_at: u64) {
        let until =
            sent_at.saturating_add(u64::try_from(self.length.as_nanos()).unwrap_or(u64::MAX));
        if self.deadline.fetch_max(until, Ordering::SeqCst) < until {
            self.processes.set_deadline(until);
        }
    }

    /// Renews until the incarnation is judged lost, or the lease was over before it was renewed. `status` tells how busy
    /// the worker is.
    pub(crate) async fn keep(
        &self,
        reporter: &Reporter,
        status: impl Fn() -> WorkerStatus,
    ) -> LeaseEnd {
        let pause = self.length / PER_LEASE;
        let mut had = false;
        let mut waiting = false;
        loop {
            if self.broken.load(Ordering::SeqCst) {
                return LeaseEnd::Broken;
            }
            if had && !self.holds() {
                // The guardian has killed the processes.
                return LeaseEnd::Lapsed;
            }
            self.disown(reporter);
            let sent_at = boottime_now_ns();
            let answer = self.renew(status()).await;
            match answer {
                // It comes too late: judges may count on what the old lease said. See the loop's start.
                Ok(Some(_)) if had && !self.holds() => continue,
                Ok(Some(cancelled)) => {
                    self.acknowledged(sent_at);
                    self.reachable
                        .send_if_modified(|now| !std::mem::replace(now, true));
                    self.held.wish(cancelled, Wish::Cancel);
                    had = true;
                }
                Ok(None) => return LeaseEnd::Revoked,
                Err(error) => {
                    if self.reachable.send_replace(false) {
                        tracing::warn!(%error, "presence is away: running tasks go on, the lease is renewed over the broker");
                    } else if !had && !std::mem::replace(&mut waiting, true) {
                        tracing::warn!(%error, "waiting for presence: nothing can be claimed without it");
                    }
                    if had {
                        reporter.renew(RenewRequest {
                            incarnation: self.info.incarnation.clone(),
                            sent_at: i64::try_from(sent_at).unwrap_or(i64::MAX),
                            lease_ms: i64::try_from(self.length.as_millis()).unwrap_or(i64::MAX),
                        });
                    }
                }
            }
            let _ = tokio::time::timeout(pause, self.renew_now.notified()).await;
        }
    }

    /// One renewal: dispatches to cancel, or `None` when the incarnation was judged lost.
    async fn renew(
        &self,
        status: WorkerStatus,
    ) -> Result<Option<Vec<(i64, i64)>>, gristmill_presence::PresenceError> {
        let incarnation = &self.info.incarnation;
        let again = self.restore_again.swap(false, Ordering::SeqCst);
        let mut epoch = match again {
            true => 0,
            false => self.epoch.load(Ordering::SeqCst),
        };
        if epoch != 0 {
            match self.presence.renew(incarnation, epoch, &status).await? {
                Renewal::Renewed { cancelled, .. } => return Ok(Some(cancelled)),
                Renewal::EpochChanged { now } => {
                    tracing::warn!(
                        "presence has lost its memory: restoring the lease and its claims"
                    );
                    epoch = now;
                }
                Renewal::Unknown => epoch = self.presence.epoch().await?,
                Renewal::Revoked => return Ok(None),
            }
        } else {
            epoch = self.presence.epoch().await?;
        }
        loop {
            // Before what is held is read: a claim that comes in after that sees that it has to be restored too.
            self.epoch.store(0, Ordering::SeqCst);
            let claims = self.held.all();
            let ttl = gristmill_presence::DEFAULT_LEASE_TTL;
            match self
                .presence
                .restore(&self.info, epoch, &claims, ttl)
                .await?
            {
                Restore::Restored {
                    cancelled, refused, ..
                } => {
                    self.epoch.store(epoch, Ordering::SeqCst);
                    // Another incarnation's record stands: ours must not live.
                    self.held.wish(refused, Wish::Interrupt);
                    self.let_go_of_ended(&claims);
                    return Ok(Some(cancelled));
                }
                Restore::EpochChanged { now } => epoch = now,
                Restore::Revoked => return Ok(None),
            }
        }
    }

    /// Of what was restored, lets go what ended meanwhile: its release may have come before the record was written anew.
    fn let_go_of_ended(&self, restored: &[(i64, i64)]) {
        let held: HashSet<(i64, i64)> = self.held.all().into_iter().collect();
        let ended: Vec<(i64, i64)> = restored
            .iter()
            .filter(|claim| !held.contains(claim))
            .copied()
            .collect();
        if !ended.is_empty() {
            let (presence, incarnation) = (self.presence.clone(), self.info.incarnation.clone());
            // Apart from the renewals, which must not wait for it.
            tokio::spawn(async move { release(&*presence, &incarnation, &ended).await });
        }
    }

    /// Leaves in good order: holds nothing any more.
    pub(crate) async fn leave(&self) {
        if let Err(error) = self.presence.deregister(&self.info.incarnation).await {
            tracing::warn!(%error, "could not deregister; the lease runs out by itself");
        }
    }
}

/// Turns a grant over the broker into an acknowledgement.
pub(crate) fn granted(lease: &Lease, sent_at: i64) {
    lease.acknowledged(u64::try_from(sent_at).unwrap_or(0));
}
