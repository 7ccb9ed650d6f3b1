//! Worker leases: who is there.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::TiFence;

/// Who a worker process is. Does not change during an incarnation's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// A UUID of this process's life: a restarted worker is another incarnation.
    pub incarnation: String,
    /// The worker's name as users see it.
    pub name: String,
    /// Host it runs on.
    pub hostname: String,
    /// Its process id there.
    pub pid: u32,
    /// Queues it consumes.
    pub queues: Vec<String>,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// The program's version.
    pub version: String,
    /// When the process began.
    pub started_at: DateTime<Utc>,
}

/// What a worker says about itself with each renewal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Slots in use.
    pub running: u32,
    /// Slots free.
    pub free: u32,
    /// Takes nothing for now, by an operator's wish.
    pub paused: bool,
    /// Takes nothing more and will end.
    pub draining: bool,
}

/// The answer to a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The lease stands.
    Renewed {
        /// Grows with every renewal of this incarnation.
        seq: u64,
        /// Claims of this incarnation that somebody cancelled; listed in each renewal until they are released.
        cancelled: Vec<TiFence>,
    },
    /// Redis restarted or lost its data: [`restore`](crate::Presence::restore) under the epoch `now`.
    EpochChanged {
        /// The epoch that holds.
        now: i64,
    },
    /// Judged lost. Kill everything, end, come back as another incarnation.
    Revoked,
    /// No lease of this incarnation under this epoch (collected as garbage, or never restored):
    /// [`restore`](crate::Presence::restore) it.
    Unknown,
}

/// The answer to a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restore {
    /// Lease and claims stand under the given epoch.
    Restored {
        /// As in [`Renewal::Renewed`].
        seq: u64,
        /// As in [`Renewal::Renewed`]; also those cancelled between the loss and now.
        cancelled: Vec<TiFence>,
        /// Claims that stand in another incarnation's name: kill those attempts.
        refused: Vec<TiFence>,
    },
    /// It changed again: restore under `now`.
    EpochChanged {
        /// The epoch that holds.
        now: i64,
    },
    /// Judged lost, as in [`Renewal::Revoked`].
    Revoked,
}

/// One lease as schedulers and the API see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// Who it is.
    pub info: WorkerInfo,
    /// What it said last.
    pub status: WorkerStatus,
    /// Grows with every renewal: a judge watches this, by its own clock.
    pub seq: u64,
    /// When it last renewed, Unix milliseconds of the Redis host's clock. For display; never for judging.
    pub renewed_at_ms: i64,
}

/// All leases of one epoch, read at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSnapshot {
    /// The epoch under which these were read. A lease not yet restored under it is absent.
    pub epoch: i64,
    /// The Redis host's clock, Unix milliseconds.
    pub redis_time_ms: i64,
    /// Sorted by incarnation.
    pub leases: Vec<LeaseView>,
}
