//! Leases in memory. Each method is the twin of the script of the same name.

use super::state::State;
use crate::{
    LeaseSnapshot, LeaseView, PresenceError, Renewal, Restore, TiFence, WorkerInfo, WorkerStatus,
};

#[derive(Debug)]
pub(super) struct Lease {
    /// `None`: only the mark that this incarnation was revoked.
    info: Option<WorkerInfo>,
    status: WorkerStatus,
    seq: u64,
    epoch: i64,
    revoked: bool,
    renewed: i64,
    refreshed: i64,
    ttl: i64,
    pub(super) expires: i64,
}

impl State {
    /// The live lease (or mark) of an incarnation.
    pub(super) fn lease(&self, incarnation: &str, now: i64) -> Option<&Lease> {
        self.leases.get(incarnation).filter(|l| l.expires > now)
    }

    /// Whether an incarnation may claim.
    pub(super) fn is_leased(&self, incarnation: &str, now: i64) -> bool {
        self.lease(incarnation, now)
            .is_some_and(|lease| lease.epoch == self.epoch && !lease.revoked)
    }

    pub(super) fn register(
        &mut self,
        worker: &WorkerInfo,
        ttl: i64,
        now: i64,
    ) -> Result<i64, PresenceError> {
        let known = self.lease(&worker.incarnation, now);
        if known.is_some_and(|lease| lease.revoked) {
            return Err(PresenceError::Revoked {
                incarnation: worker.incarnation.clone(),
            });
        }
        let seq = known.map_or(0, |lease| lease.seq) + 1;
        self.write_lease(worker, WorkerStatus::default(), seq, ttl, now);
        Ok(self.epoch)
    }

    fn write_lease(
        &mut self,
        worker: &WorkerInfo,
        status: WorkerStatus,
        seq: u64,
        ttl: i64,
        now: i64,
    ) {
        let lease = Lease {
            info: Some(worker.clone()),
            status,
            seq,
            epoch: self.epoch,
            revoked: false,
            renewed: now,
            refreshed: now,
            ttl,
            expires: now + ttl,
        };
        self.leases.insert(worker.incarnation.clone(), lease);
    }

    pub(super) fn renew(
        &mut self,
        incarnation: &str,
        epoch: i64,
        status: &WorkerStatus,
        claim_ttl: i64,
        now: i64,
    ) -> Renewal {
        let current = self.epoch;
        let lease = self
            .leases
            .get_mut(incarnation)
            .filter(|lease| lease.expires > now);
        if lease.as_ref().is_some_and(|lease| lease.revoked) {
            return Renewal::Revoked;
        }
        if epoch != current {
            return Renewal::EpochChanged { now: current };
        }
        let Some(lease) = lease.filter(|lease| lease.epoch == current) else {
            return Renewal::Unknown;
        };
        lease.seq += 1;
        lease.status = *status;
        lease.renewed = now;
        lease.expires = now + lease.ttl;
        let seq = lease.seq;
        if now - lease.refreshed > claim_ttl / 24 {
            lease.refreshed = now;
            for dispatch in self.held.get(incarnation).into_iter().flatten() {
                if let Some(record) = self.records.get_mut(dispatch) {
                    record.expires = record.expires.max(now + claim_ttl);
                }
            }
        }
        Renewal::Renewed {
            seq,
            cancelled: self.cancelled_of(incarnation),
        }
    }

    pub(super) fn restore(
        &mut self,
        worker: &WorkerInfo,
        epoch: i64,
        claims: &[TiFence],
        ttl: i64,
        claim_ttl: i64,
        now: i64,
    ) -> Restore {
        let incarnation = &worker.incarnation;
        let known = self.lease(incarnation, now);
        if known.is_some_and(|lease| lease.revoked) {
            return Restore::Revoked;
        }
        if epoch != self.epoch {
            return Restore::EpochChanged { now: self.epoch };
        }
        let (status, seq, same_epoch) = known.map_or_else(
            || (WorkerStatus::default(), 0, false),
            |lease| (lease.status, lease.seq, lease.epoch == epoch),
        );
        if !same_epoch {
            self.held.remove(incarnation);
            self.cancelled.remove(incarnation);
        }
        self.write_lease(worker, status, seq + 1, ttl, now);
        let refused = claims
            .iter()
            .copied()
            .filter(|claim| !self.restore_claim(incarnation, *claim, claim_ttl, now))
            .collect();
        Restore::Restored {
            seq: seq + 1,
            cancelled: self.cancelled_of(incarnation),
            refused,
        }
    }

    pub(super) fn leases(&self, now: i64) -> LeaseSnapshot {
        let view = |lease: &Lease| {
            Some(LeaseView {
                info: lease.info.clone()?,
                status: lease.status,
                seq: lease.seq,
                renewed_at_ms: lease.renewed,
            })
        };
        LeaseSnapshot {
            epoch: self.epoch,
            redis_time_ms: now,
            leases: self
                .leases
                .values()
                .filter(|l| l.expires > now && l.epoch == self.epoch && !l.revoked)
                .filter_map(view)
                .collect(),
        }
    }

    pub(super) fn revoke(&mut self, incarnation: &str, expires: i64, now: i64) -> Option<u64> {
        let known = self
            .lease(incarnation, now)
            .map(|lease| (lease.epoch, lease.seq));
        let mark = Lease {
            info: None,
            status: WorkerStatus::default(),
            seq: known.map_or(0, |(_, seq)| seq),
            epoch: known.map_or(0, |(epoch, _)| epoch),
            revoked: true,
            renewed: 0,
            refreshed: 0,
            ttl: 0,
            expires,
        };
        self.leases.insert(incarnation.to_owned(), mark);
        known
            .filter(|(epoch, _)| *epoch == self.epoch)
            .map(|(_, seq)| seq)
    }

    pub(super) fn deregister(&mut self, incarnation: &str) {
        self.held.remove(incarnation);
        self.cancelled.remove(incarnation);
        if self.leases.get(incarnation).is_some_and(|l| !l.revoked) {
            self.leases.remove(incarnation);
        }
    }

    fn cancelled_of(&self, incarnation: &str) -> Vec<TiFence> {
        let set = self.cancelled.get(incarnation);
        set.into_iter().flatten().copied().collect()
    }
}
