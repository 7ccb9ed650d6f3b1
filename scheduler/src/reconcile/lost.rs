//! The judge of lost workers.
//!
//! A worker kills everything it holds by the send time of its last acknowledged renewal plus the lease. A scheduler that
//! has watched a reachable presence of one epoch for the lease and a margin, by its own clock, without seeing the
//! worker's lease advance, therefore knows that the worker's processes are dead, unless a lease was granted to it over the
//! broker, which the database knows. After a barrier has gone through the events queues everything that the worker ever
//! reported has been applied, and what it still holds is lost.

use crate::{SchedulerHandle, barrier, effects, epoch::boottime, repeat};
use gristmill_common::engine::Command;
use gristmill_presence::LeaseSnapshot;
use gristmill_store::{Judgement, OutDispatch};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A longer pause between two looks is a break in watching.
const BREAK: Duration = Duration::from_secs(3);
/// Dispatches asked about in one call.
const CHUNK: usize = 1_000;

/// What the judge has seen of leases, without a break and under one epoch.
#[derive(Debug, Default)]
struct Watch {
    epoch: i64,
    last_look: Duration,
    /// The lease's counter (`None`: there is no lease) and since when it has stood still.
    still: BTreeMap<String, (Option<u64>, Duration)>,
}

impl Watch {
    /// Takes a look in, and answers the workers whose lease has stood still for at least `patience`, and where.
    fn look(
        &mut self,
        now: Duration,
        snapshot: &LeaseSnapshot,
        busy: &BTreeSet<String>,
        patience: Duration,
    ) -> Vec<(String, Option<u64>)> {
        if snapshot.epoch != self.epoch || now.saturating_sub(self.last_look) > BREAK {
            self.still.clear();
            self.epoch = snapshot.epoch;
        }
        self.last_look = now;
        let mut seen: BTreeMap<String, Option<u64>> =
            busy.iter().map(|worker| (worker.clone(), None)).collect();
        seen.extend(
            snapshot
                .leases
                .iter()
                .map(|lease| (lease.info.incarnation.clone(), Some(lease.seq))),
        );
        self.still.retain(|worker, _| seen.contains_key(worker));
        for (worker, seq) in seen {
            let entry = self.still.entry(worker).or_insert((seq, now));
            if entry.0 != seq {
                *entry = (seq, now);
            }
        }
        self.still
            .iter()
            .filter(|(_, (_, since))| now.saturating_sub(*since) >= patience)
            .map(|(worker, (seq, _))| (worker.clone(), *seq))
            .collect()
    }
}

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    let patience = handle.config.lease + handle.config.judge_margin;
    let mut watch = Watch::default();
    let mut known: Option<BTreeSet<String>> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // The database is asked with every second look.
        let mut busy = match known.take() {
            Some(busy) => busy,
            None => match handle.store.busy_workers().await {
                Ok(busy) => {
                    let busy: BTreeSet<String> =
                        busy.into_iter().map(|worker| worker.incarnation).collect();
                    known = Some(busy.clone());
                    busy
                }
                Err(_) => continue,
            },
        };
        let Ok(snapshot) = handle.presence.leases().await else {
            continue;
        };
        busy.extend(
            handle
                .suspects
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .cloned(),
        );
        metrics::gauge!("gristmill_workers").set(snapshot.leases.len() as f64);
        for (worker, seq) in watch.look(boottime(), &snapshot, &busy, patience) {
            if judge(&handle, &worker, seq, snapshot.epoch).await {
                watch.still.remove(&worker);
            }
        }
    }
}

/// Judges one worker; answers whether everything that it held has been given up.
async fn judge(handle: &Arc<SchedulerHandle>, worker: &str, seen: Option<u64>, epoch: i64) -> bool {
    let judgement = match handle.store.judge_lost(worker).await {
        Ok(Judgement::Holds) => {
            tracing::debug!(worker, "its lease over the broker still holds");
            return false;
        }
        Ok(judgement) => judgement,
        Err(error) => {
            tracing::warn!(worker, %error, "cannot judge now");
            return false;
        }
    };
    tracing::warn!(worker, "worker lost: its lease has not been renewed");
    metrics::counter!("gristmill_leases_lost_total").increment(1);
    let Ok(reached) = handle.presence.revoke(worker).await else {
        return false;
    };
    if reached != seen || judgement == Judgement::LostAfterGrants {
        // It came back after the last look, and may have started anew what the next lines take for dead; or it was granted
        // leases over the broker, whose end is told by the database's clock, which may have stepped. From now on it cannot
        // renew, neither here nor there: what it has is dead when this lease is over.
        tokio::time::sleep(handle.config.lease + handle.config.judge_margin).await;
    }
    if !barrier::pass(handle).await {
        return false;
    }
    let Some(held) = held_by(handle, worker, epoch).await else {
        return false;
    };
    let commands: Vec<Command> = held
        .into_iter()
        .map(|out| Command::Lost {
            run: out.run,
            dispatch: out.dispatch,
            reason: format!("its worker was lost (incarnation {worker})"),
        })
        .collect();
    if commands.is_empty() {
        return true;
    }
    let context = handle.context();
    match repeat::until_answered("giving up lost dispatches", || {
        handle.store.apply(&commands, &[], &context)
    })
    .await
    {
        Ok(applied) => {
            tracing::warn!(
                worker,
                dispatches = commands.len(),
                "its dispatches go out anew"
            );
            effects::carry_out(handle, applied);
            true
        }
        Err(error) => {
            tracing::error!(worker, %error, "cannot give up its dispatches");
            false
        }
    }
}

/// What the worker started, and what it claimed without its start having been heard of. `None`: cannot be told now.
async fn held_by(handle: &SchedulerHandle, worker: &str, epoch: i64) -> Option<Vec<OutDispatch>> {
    let (mut held, rest): (Vec<_>, Vec<_>) = handle
        .store
        .out_dispatches(None)
        .await
        .ok()?
        .into_iter()
        .filter(|out| out.worker.is_none() || out.worker.as_deref() == Some(worker))
        .partition(|out| out.worker.is_some());
    // Asked after what is out was read, and whatever is asked next: a presence that has forgotten the revocation in between
    // may have given the worker a lease, under which it started some of this.
    handle
        .presence
        .epoch()
        .await
        .ok()
        .filter(|now| *now == epoch)?;
    for chunk in rest.chunks(CHUNK) {
        let ids: Vec<(i64, i64)> = chunk
            .iter()
            .map(|out| (out.dispatch.ti.0, out.dispatch.fence.0))
            .collect();
        let holders = handle
            .presence
            .holders(&ids)
            .await
            .ok()
            .filter(|holders| holders.epoch == epoch)?;
        held.extend(
            chunk
                .iter()
                .zip(holders.holders)
                .filter(|(_, holder)| {
                    holder
                        .as_ref()
                        .is_some_and(|holder| holder.incarnation == worker)
                })
                .map(|(out, _)| out.clone()),
        );
    }
    Some(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_presence::{LeaseView, WorkerInfo, WorkerStatus};

    fn snapshot(epoch: i64, leases: &[(&str, u64)]) -> LeaseSnapshot {
        LeaseSnapshot {
            epoch,
            redis_time_ms: 0,
            leases: leases
                .iter()
                .map(|(name, seq)| LeaseView {
                    info: WorkerInfo {
                        incarnation: (*name).to_owned(),
                        name: String::new(),
                        hostname: String::new(),
                        pid: 1,
                        queues: vec![],
                        slots: 1,
                        version: String::new(),
                        started_at: chrono::DateTime::UNIX_EPOCH,
                    },
                    status: WorkerStatus::default(),
                    seq: *seq,
                    renewed_at_ms: 0,
                })
                .collect(),
        }
    }

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn only_a_lease_that_stood_still_long_enough_is_lost() {
        let (mut watch, idle) = (Watch::default(), BTreeSet::new());
        for t in 100..108 {
            let lost = watch.look(secs(t), &snapshot(1, &[("a", 5), ("b", t)]), &idle, secs(8));
            assert!(lost.is_empty(), "at {t}: {lost:?}");
        }
        assert_eq!(
            watch.look(
                secs(108),
                &snapshot(1, &[("a", 5), ("b", 9)]),
                &idle,
                secs(8)
            ),
            [("a".to_owned(), Some(5))]
        );
    }

    #[test]
    fn a_break_in_watching_starts_anew() {
        let (mut watch, idle) = (Watch::default(), BTreeSet::new());
        watch.look(secs(100), &snapshot(1, &[("a", 5)]), &idle, secs(8));
        assert!(
            watch
                .look(secs(120), &snapshot(1, &[("a", 5)]), &idle, secs(8))
                .is_empty()
        );
    }

    #[test]
    fn a_new_epoch_starts_anew() {
        let (mut watch, idle) = (Watch::default(), BTreeSet::new());
        for t in 100..107 {
            watch.look(secs(t), &snapshot(1, &[("a", 5)]), &idle, secs(8));
        }
        for t in 107..115 {
            assert!(
                watch
                    .look(secs(t), &snapshot(2, &[("a", 5)]), &idle, secs(8))
                    .is_empty()
            );
        }
    }

    #[test]
    fn a_busy_worker_without_a_lease_is_lost_in_time() {
        let (mut watch, busy) = (Watch::default(), BTreeSet::from(["gone".to_owned()]));
        let lost: Vec<_> = (100..110)
            .map(|t| watch.look(secs(t), &snapshot(1, &[]), &busy, secs(8)).len())
            .collect();
        assert_eq!(lost, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }
}
