//! Settings, with the defaults that are meant for production.

use std::time::Duration;

/// How long a lease's keys are kept after its last renewal. Garbage collection only: far above any judge's patience.
pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(3600);

/// Settings of a [`Presence`](crate::Presence), the same for Redis and its twin.
#[derive(Debug, Clone)]
pub struct PresenceConfig {
    /// First part of every key: several deployments (or tests) may share one Redis.
    pub prefix: String,
    /// Every call ends within this; `read_log` within this plus its `wait`.
    pub deadline: Duration,
    /// How long a held claim's record and a cancel mark are kept without a renewal. Must exceed how far `claim_by` lies
    /// ahead of a dispatch.
    pub claim_ttl: Duration,
    /// How long beyond its `claim_by` the record of an ended claim is kept: by how much the Redis host's clock may step
    /// back without a redelivered message being claimed twice.
    pub tombstone_slack: Duration,
    /// Bytes of live log kept per attempt; the oldest chunks go first.
    pub log_bytes: usize,
    /// How long the live log of an attempt that writes nothing is kept.
    pub log_idle_ttl: Duration,
    /// How long the live log is kept after its end.
    pub log_ended_ttl: Duration,
    /// How many `read_log` calls may block on a connection of their own at once; the others wait for their turn within
    /// their `wait`.
    pub max_followers: usize,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self {
            prefix: "gm".into(),
            deadline: Duration::from_secs(2),
            claim_ttl: Duration::from_secs(24 * 3600),
            tombstone_slack: Duration::from_secs(15 * 60),
            log_bytes: 256 * 1024,
            log_idle_ttl: Duration::from_secs(24 * 3600),
            log_ended_ttl: Duration::from_secs(600),
            max_followers: 128,
        }
    }
}

/// A duration in whole milliseconds, at least 1, as Redis's PX and PEXPIRE take it.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis())
        .unwrap_or(i64::MAX / 4)
        .max(1)
}
