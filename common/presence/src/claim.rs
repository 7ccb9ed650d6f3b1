//! Claims: who runs which dispatch.

/// One dispatch: (task instance, fence). The unit of claiming.
pub type TiFence = (i64, i64);

/// A worker's wish to run a dispatch whose message it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimRequest {
    /// Task instance.
    pub ti: i64,
    /// Its fence.
    pub fence: i64,
    /// The epoch under which it was dispatched (from the message's headers).
    pub epoch: i64,
    /// Until when it may be claimed: Unix milliseconds, judged by the Redis host's clock.
    pub claim_by_ms: i64,
}

/// The answer to a claim request. The variants stand in the order of the checks.
///
/// `WrongEpoch`, `NoLease` and `Late` say that this claim was refused, not that nobody ever claimed the dispatch: the
/// record of a claim may have been lost with an older epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Yours. Run it.
    Granted,
    /// A record exists, held or ended. If `by` is the caller's own incarnation and it is not running the dispatch (nor
    /// has run it), then the answer to an earlier request was lost and the dispatch is the caller's.
    AlreadyClaimed {
        /// The incarnation that claimed it.
        by: String,
    },
    /// Cancelled before anyone claimed it.
    Cancelled,
    /// Dispatched under another epoch: whether it was claimed then is unknown here. The scheduler dispatches it again.
    WrongEpoch {
        /// The epoch that holds.
        now: i64,
    },
    /// The caller holds no lease under this epoch: register, restore, or (if revoked) end.
    NoLease,
    /// `claim_by_ms` has passed.
    Late,
}

/// A claim's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The incarnation that claimed it.
    pub incarnation: String,
    /// Its ending is confirmed; the record remains to refuse redeliveries.
    pub released: bool,
    /// Somebody cancelled it while it was held.
    pub cancelled: bool,
}

/// Who holds what, at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holders {
    /// The epoch under which this was read. `None` for a dispatch of an older epoch may mean that the record was lost
    /// and its holder has not restored it yet.
    pub epoch: i64,
    /// The Redis host's clock, Unix milliseconds: compare `claim_by` with this, not with another clock.
    pub redis_time_ms: i64,
    /// In the order of the question. `None`: no record (or only a cancel mark).
    pub holders: Vec<Option<Holder>>,
}

/// What a cancel mark met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelState {
    /// Nobody had claimed it, and under the epoch of the answer nobody ever will.
    NotClaimed,
    /// This incarnation holds it and is told with its next renewal.
    HeldBy(String),
    /// It had ended already.
    Released,
}

/// The answer to [`cancel`](crate::Presence::cancel).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancels {
    /// The epoch under which the marks were set.
    pub epoch: i64,
    /// In the order of the question.
    pub states: Vec<CancelState>,
}
