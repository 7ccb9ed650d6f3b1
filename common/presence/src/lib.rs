//! What must be known *now* about a running cluster: which workers hold a lease, which worker claimed which dispatch,
//! XComs on their way to their durable copy, and the tails of logs being written.
//!
//! [`Presence`] is the interface; [`RedisPresence`] speaks to Redis, [`MemoryPresence`] is its in-process twin for
//! `gristmill standalone` and for tests. One conformance suite (`tests/conformance`) holds both to the same rules.
//!
//! # The rules
//!
//! - **Nothing here is durable.** Postgres is the truth. Redis may come back empty, or with older data, at any moment;
//!   whoever relies on it compares the **epoch**, a random number that changes on every restart and every flush. Each
//!   script compares the server's `run_id` with the one stored beside the epoch before it does anything else, so there
//!   is no command that could act on resurrected data under the old epoch, whatever proxies or pools lie between.
//! - **A claim is granted once.** One script refuses a second claim of a (task instance, fence), a cancelled one, one
//!   dispatched under another epoch, one by an incarnation without a lease, and a late one.
//! - **Redis's TTLs collect garbage, they judge nothing.** A worker is lost when a scheduler has watched its lease's
//!   `seq` stand still, by the scheduler's own clock, never because a key expired.
//! - **A claim's record outlives every possible redelivery of its message.** After `claim_by` a claim is refused as
//!   [`Claim::Late`] whatever else is known, so a record has to last until `claim_by` and no longer. It is kept for
//!   [`PresenceConfig::tombstone_slack`] beyond, which is by how much the Redis host's clock may step back; a claim that
//!   is still held is kept for [`PresenceConfig::claim_ttl`], refreshed by renewals. A cancel mark lasts
//!   `claim_ttl`, so `claim_by` must never lie further ahead than that.
//! - **Every call ends by its deadline** and is safe to repeat; reconnecting goes on for ever.
//!
//! Redis must run with `maxmemory-policy noeviction` (its default): any other policy may evict claims. A server that
//! is set up otherwise is warned about in the log on every connection.

mod claim;
mod clock;
mod config;
mod error;
mod lease;
mod log;
mod memory;
mod presence;
mod redis;
mod xcom;

pub use self::redis::RedisPresence;
pub use claim::{CancelState, Cancels, Claim, ClaimRequest, Holder, Holders, TiFence};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{DEFAULT_LEASE_TTL, PresenceConfig};
pub use error::PresenceError;
pub use lease::{LeaseSnapshot, LeaseView, Renewal, Restore, WorkerInfo, WorkerStatus};
pub use log::{LogChunk, LogCursor, MAX_LOG_CHUNK};
pub use memory::{Faults, MemoryPresence};
pub use presence::Presence;
pub use xcom::{MAX_XCOM_BYTES, XComKey};
