//! Claims in memory. Each method is the twin of the script of the same name.

use super::state::State;
use crate::config::millis;
use crate::{CancelState, Claim, ClaimRequest, Holder, Holders, PresenceConfig, TiFence};

/// A claim's record, or a cancel mark in its place.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// `None`: cancelled before any claim.
    holder: Option<Holder>,
    claim_by: i64,
    pub(super) expires: i64,
}

impl State {
    fn record(&self, dispatch: TiFence, now: i64) -> Option<&Record> {
        self.records.get(&dispatch).filter(|r| r.expires > now)
    }

    pub(super) fn claim(
        &mut self,
        incarnation: &str,
        request: &ClaimRequest,
        config: &PresenceConfig,
        now: i64,
    ) -> Claim {
        let dispatch = (request.ti, request.fence);
        if let Some(record) = self.record(dispatch, now) {
            return match &record.holder {
                Some(holder) => Claim::AlreadyClaimed {
                    by: holder.incarnation.clone(),
                },
                None => Claim::Cancelled,
            };
        }
        if request.epoch != self.epoch {
            return Claim::WrongEpoch { now: self.epoch };
        }
        if !self.is_leased(incarnation, now) {
            return Claim::NoLease;
        }
        if now > request.claim_by_ms {
            return Claim::Late;
        }
        let after_claim_by = request
            .claim_by_ms
            .saturating_add(millis(config.tombstone_slack));
        let record = Record {
            holder: Some(held_by(incarnation)),
            claim_by: request.claim_by_ms,
            expires: after_claim_by.max(now + millis(config.claim_ttl)),
        };
        self.records.insert(dispatch, record);
        self.held
            .entry(incarnation.to_owned())
            .or_default()
            .insert(dispatch);
        Claim::Granted
    }

    /// Whether the claim stands (or had ended) in this incarnation's name.
    pub(super) fn restore_claim(
        &mut self,
        incarnation: &str,
        dispatch: TiFence,
        claim_ttl: i64,
        now: i64,
    ) -> bool {
        let mut record = match self.record(dispatch, now) {
            Some(record) => record.clone(),
            None => Record {
                holder: Some(held_by(incarnation)),
                claim_by: 0,
                expires: 0,
            },
        };
        let holder = record.holder.get_or_insert_with(|| Holder {
            cancelled: true,
            ..held_by(incarnation)
        });
        if holder.incarnation != incarnation {
            return false;
        }
        if holder.released {
            return true;
        }
        if holder.cancelled {
            self.cancelled
                .entry(incarnation.to_owned())
                .or_default()
                .insert(dispatch);
        }
        record.expires = record.expires.max(now + claim_ttl);
        self.records.insert(dispatch, record);
        self.held
            .entry(incarnation.to_owned())
            .or_default()
            .insert(dispatch);
        true
    }

    pub(super) fn holders(&self, dispatches: &[TiFence], now: i64) -> Holders {
        let holder = |dispatch: &TiFence| self.record(*dispatch, now)?.holder.clone();
        Holders {
            epoch: self.epoch,
            redis_time_ms: now,
            holders: dispatches.iter().map(holder).collect(),
        }
    }

    pub(super) fn seal(&mut self, dispatches: &[TiFence], expires: i64, now: i64) -> Holders {
        let answer = self.holders(dispatches, now);
        for dispatch in dispatches {
            if self.record(*dispatch, now).is_none() {
                let mark = Record {
                    holder: None,
                    claim_by: 0,
                    expires,
                };
                self.records.insert(*dispatch, mark);
            }
        }
        answer
    }

    pub(super) fn release(&mut self, incarnation: &str, dispatch: TiFence, slack: i64, now: i64) {
        let record = self.records.get_mut(&dispatch).filter(|r| r.expires > now);
        if let Some(record) = record
            && let Some(holder) = &mut record.holder
            && holder.incarnation == incarnation
            && !holder.released
        {
            holder.released = true;
            holder.cancelled = false;
            record.expires = record.claim_by.max(now).saturating_add(slack);
        }
        for sets in [&mut self.held, &mut self.cancelled] {
            if let Some(set) = sets.get_mut(incarnation) {
                set.remove(&dispatch);
            }
        }
    }

    pub(super) fn cancel(&mut self, dispatch: TiFence, expires: i64, now: i64) -> CancelState {
        let record = self.records.get_mut(&dispatch).filter(|r| r.expires > now);
        let holder = record.and_then(|record| record.holder.as_mut());
        let Some(holder) = holder else {
            let mark = Record {
                holder: None,
                claim_by: 0,
                expires,
            };
            self.records.insert(dispatch, mark);
            return CancelState::NotClaimed;
        };
        if holder.released {
            return CancelState::Released;
        }
        holder.cancelled = true;
        let by = holder.incarnation.clone();
        self.cancelled
            .entry(by.clone())
            .or_default()
            .insert(dispatch);
        CancelState::HeldBy(by)
    }
}

fn held_by(incarnation: &str) -> Holder {
    Holder {
        incarnation: incarnation.to_owned(),
        released: false,
        cancelled: false,
    }
}
