//! Settings of a scheduler.

use std::time::Duration;

/// Every time that a scheduler waits for, and every size that it bounds.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Length of a worker's lease. Workers must use the same.
    pub lease: Duration,
    /// Added to the lease before a worker is judged lost: what clocks and a poll may be off by.
    pub judge_margin: Duration,
    /// How long a dispatch may be claimed.
    pub claim_window: Duration,
    /// Dispatches of one transaction at most.
    pub dispatch_batch: i64,
    /// Messages of an events queue that one transaction takes at most.
    pub event_messages: usize,
    /// Outbox rows older than this were not published by the scheduler that wrote them.
    pub outbox_age: Duration,
    /// Interval of the reconcilers that repair.
    pub reconcile_every: Duration,
    /// Ended runs are deleted after this; `None` keeps them.
    pub retention: Option<Duration>,
    /// Entries of the audit log are deleted after this; `None` keeps them.
    pub audit_retention: Option<Duration>,
    /// Whether runs are made by schedule.
    pub schedules: bool,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            lease: gristmill_common::message::LEASE,
            judge_margin: Duration::from_secs(2),
            claim_window: Duration::from_secs(300),
            dispatch_batch: 500,
            event_messages: 128,
            outbox_age: Duration::from_secs(5),
            reconcile_every: Duration::from_secs(1),
            retention: Some(Duration::from_secs(90 * 86_400)),
            audit_retention: Some(Duration::from_secs(365 * 86_400)),
            schedules: true,
        }
    }
}
