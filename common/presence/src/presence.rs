//! The interface.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    Cancels, Claim, ClaimRequest, Holders, LeaseSnapshot, LogChunk, LogCursor, PresenceError,
    Renewal, Restore, TiFence, WorkerInfo, WorkerStatus, XComKey,
};

/// Leases, claims, XComs and live log tails. See the crate's documentation for the rules.
///
/// Every call ends by the configured deadline and may be repeated after [`PresenceError::Unavailable`].
#[async_trait]
pub trait Presence: Send + Sync + std::fmt::Debug {
    /// The epoch that holds now: random, positive, different after every restart and every loss of data.
    async fn epoch(&self) -> Result<i64, PresenceError>;

    /// Takes a lease for a new incarnation; returns the epoch under which it stands. `ttl` is garbage collection only
    /// ([`DEFAULT_LEASE_TTL`](crate::DEFAULT_LEASE_TTL)). An incarnation that holds claims must
    /// [`restore`](Presence::restore) instead.
    async fn register(&self, worker: &WorkerInfo, ttl: Duration) -> Result<i64, PresenceError>;

    /// Renews the lease and says how the worker is. One round trip whatever the number of claims.
    async fn renew(
        &self,
        incarnation: &str,
        epoch: i64,
        status: &WorkerStatus,
    ) -> Result<Renewal, PresenceError>;

    /// Writes the lease and *all* claims of an incarnation again, under a new epoch.
    async fn restore(
        &self,
        worker: &WorkerInfo,
        epoch: i64,
        claims: &[TiFence],
        ttl: Duration,
    ) -> Result<Restore, PresenceError>;

    /// All leases that stand under the current epoch: the judge's input. Costs O(workers).
    async fn leases(&self) -> Result<LeaseSnapshot, PresenceError>;

    /// Judges an incarnation lost: it can neither renew, restore nor claim from now on. Answers the `seq` that its lease
    /// had reached, if it had one under the current epoch: more than the judge saw means that it came back in between.
    async fn revoke(&self, incarnation: &str) -> Result<Option<u64>, PresenceError>;

    /// Gives the lease back. The records of what it still held stand until they expire.
    async fn deregister(&self, incarnation: &str) -> Result<(), PresenceError>;

    /// Claims dispatches, all in one script call; answers in the order of the requests.
    async fn claim(
        &self,
        incarnation: &str,
        requests: &[ClaimRequest],
    ) -> Result<Vec<Claim>, PresenceError>;

    /// Who holds these dispatches.
    async fn holders(&self, dispatches: &[TiFence]) -> Result<Holders, PresenceError>;

    /// Who holds these dispatches; those that nobody does can never be claimed from now on, under the answer's epoch.
    async fn seal(&self, dispatches: &[TiFence]) -> Result<Holders, PresenceError>;

    /// Ends claims after their endings were confirmed. Each leaves a tombstone that refuses redeliveries. What another
    /// incarnation holds is left alone.
    async fn release(&self, incarnation: &str, dispatches: &[TiFence])
    -> Result<(), PresenceError>;

    /// Marks dispatches as cancelled: a claim that comes later is refused, a holder is told by its renewals.
    async fn cancel(&self, dispatches: &[TiFence]) -> Result<Cancels, PresenceError>;

    /// Stores XCom values for `ttl`.
    async fn put_xcoms(
        &self,
        values: &[(XComKey, Bytes)],
        ttl: Duration,
    ) -> Result<(), PresenceError>;

    /// Reads XCom values, in the order of the keys. `None` says only that the fast copy is not here.
    async fn get_xcoms(&self, keys: &[XComKey]) -> Result<Vec<Option<Bytes>>, PresenceError>;

    /// Drops all XCom values of a run.
    async fn delete_xcoms(&self, run: i64) -> Result<(), PresenceError>;

    /// Appends a chunk (whole lines, at most [`MAX_LOG_CHUNK`](crate::MAX_LOG_CHUNK) bytes) to an attempt's live log.
    /// The writer counts `seq` from 1; a `seq` that is not above the last, or a log that has ended, makes it a no-op.
    async fn append_log(&self, attempt: Uuid, seq: u64, chunk: Bytes) -> Result<(), PresenceError>;

    /// Reads what came after the cursor. If there is nothing yet, waits for it up to `wait`; then the answer is empty.
    async fn read_log(
        &self,
        attempt: Uuid,
        after: LogCursor,
        wait: Duration,
    ) -> Result<LogChunk, PresenceError>;

    /// Says that the attempt's log is complete; wakes its readers.
    async fn end_log(&self, attempt: Uuid) -> Result<(), PresenceError>;
}
