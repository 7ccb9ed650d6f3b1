//! The rules of the protocol that the model can be told to break: each must turn out to be needed.

/// One rule, by what is done. A model that breaks it does not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rule {
    /// An event changes a row only if its fence is the row's (`engine/apply.rs`).
    FenceOfEvents,
    /// A dispatch with a record is not claimed again (`claim.lua`).
    ClaimOnce,
    /// A dispatch of another epoch is not claimed (`claim.lua`).
    EpochOfClaims,
    /// A message is acknowledged after its claim (`worker/src/consume.rs`).
    AckAfterClaim,
    /// An incarnation runs a dispatch once (`worker/src/held.rs`).
    RunOnce,
    /// A dispatch is held until its ending is confirmed (`worker/src/report.rs`).
    HeldUntilConfirmed,
    /// A worker gives back what it claimed without knowing when it is asked (`worker/src/lease.rs`).
    GiveBackUnknown,
    /// The guardian kills at the deadline (`worker/guardian/`).
    KillAtDeadline,
    /// A renewal counts from when it was sent (`worker/src/lease.rs`).
    DeadlineFromSend,
    /// An incarnation whose lease was over ends: what it holds is never started (`worker/src/lease.rs`).
    EndWithLease,
    /// A worker restores its claims in a new epoch (`restore.lua`).
    RestoreClaims,
    /// A claim that came in while claims were restored has them restored again (`worker/src/lease.rs`).
    RestoreAgain,
    /// The judge waits for a margin beyond the lease (`reconcile/lost.rs`).
    JudgeMargin,
    /// The judge heeds leases granted over the broker (`transactions/workers.rs`).
    JudgeHeedsGrants,
    /// No lease is granted to a lost worker over the broker (`transactions/workers.rs`).
    LostGetsNoGrant,
    /// The judge revokes the lease in Redis (`revoke.lua`).
    Revoke,
    /// The judge waits for another lease if the counter had moved (`reconcile/lost.rs`).
    WaitIfMoved,
    /// The judge sends a barrier before it gives up what a worker held (`reconcile/lost.rs`).
    JudgeBarrier,
    /// The judge gives up only what was held under the epoch that it watched (`reconcile/lost.rs`).
    JudgeInOneEpoch,
    /// Slots are occupied until the proof that an attempt is dead, not until it is asked to end (`transition/`).
    SlotsUntilProof,
    /// A dispatch is sealed before it goes out again (`reconcile/unclaimed.rs`).
    Seal,
    /// A barrier goes through before it goes out again (`reconcile/unclaimed.rs`).
    ResendBarrier,
    /// What Redis forgot goes out again only once the new epoch was seen for lease and margin (`epoch.rs`).
    CompleteRecord,
    /// … and no worker lives on a lease over the broker (`epoch.rs`).
    CompleteHeedsGrants,
    /// … and that epoch is the one that was asked (`epoch.rs`).
    CompleteInOneEpoch,
    /// A cancelled dispatch of an older epoch is unclaimed only by a complete record (`cancel.rs`).
    CancelNeedsProof,
    /// … and after a barrier (`cancel.rs`).
    CancelBarrier,
    /// An outbox row is deleted once its message is confirmed (`relay.rs`).
    OutboxUntilConfirmed,
    /// Events are acknowledged after the commit (`events.rs`).
    AckAfterCommit,
    /// What is cleared while it is out waits for the proof that it is dead.
    ClearWaits,
    /// What is cleared takes the next fence.
    ClearTakesFence,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::FenceOfEvents,
        Self::ClaimOnce,
        Self::EpochOfClaims,
        Self::AckAfterClaim,
        Self::RunOnce,
        Self::HeldUntilConfirmed,
        Self::GiveBackUnknown,
        Self::KillAtDeadline,
        Self::DeadlineFromSend,
        Self::EndWithLease,
        Self::RestoreClaims,
        Self::RestoreAgain,
        Self::JudgeMargin,
        Self::JudgeHeedsGrants,
        Self::LostGetsNoGrant,
        Self::Revoke,
        Self::WaitIfMoved,
        Self::JudgeBarrier,
        Self::JudgeInOneEpoch,
        Self::SlotsUntilProof,
        Self::Seal,
        Self::ResendBarrier,
        Self::CompleteRecord,
        Self::CompleteHeedsGrants,
        Self::CompleteInOneEpoch,
        Self::CancelNeedsProof,
        Self::CancelBarrier,
        Self::OutboxUntilConfirmed,
        Self::AckAfterCommit,
        Self::ClearWaits,
        Self::ClearTakesFence,
    ];
}

/// Which rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    broken: u32,
}

impl Rules {
    /// The protocol as it is.
    pub const ALL: Self = Self { broken: 0 };

    /// The protocol but for some rules.
    pub fn without(rules: &[Rule]) -> Self {
        let broken = rules
            .iter()
            .fold(0, |broken, rule| broken | 1 << *rule as u8);
        Self { broken }
    }

    /// Whether a rule holds.
    pub fn hold(self, rule: Rule) -> bool {
        self.broken & (1 << rule as u8) == 0
    }
}
