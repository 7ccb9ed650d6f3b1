use super::{Refused, Transition};
use crate::{row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const CANCEL: Transition = Transition {
    name: "cancel",
    from: &[
        TaskState::None,
        TaskState::Scheduled,
        TaskState::UpForRetry,
        TaskState::UpForReschedule,
        TaskState::Deferred,
        TaskState::AwaitingInput,
        TaskState::Queued,
    ],
    to: &[TaskState::Skipped],
    when: "its run was stopped before it started, or while it waited (a queued one: once no worker can claim it any more), or a branch or its like skips it before it started, or between two tries",
};

/// Ends a row that has no live attempt, because its run is stopped or a decision above skips it.
pub fn cancel(row: &mut TiRow, reason: String, now: DateTime<Utc>) -> Result<(), Refused> {
    CANCEL.check(row)?;
    row.state = TaskState::Skipped;
    row.occupies = false;
    row.claim_by = None;
    row.next_at = None;
    row.ended_at = Some(now);
    row.reason = Some(reason);
    Ok(())
}
