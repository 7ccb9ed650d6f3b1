use super::{Refused, Transition};
use crate::{row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const DEFER: Transition = Transition {
    name: "defer",
    from: &[TaskState::None, TaskState::UpForRetry],
    to: &[TaskState::Deferred],
    when: "it may run, and waits without a worker: the scheduler looks at it at once",
};

/// The scheduler's next look is the first of a new try.
pub fn defer(row: &mut TiRow, now: DateTime<Utc>) -> Result<(), Refused> {
    DEFER.check(row)?;
    if row.state == TaskState::None {
        // A new life, if it had one before: what it waits for, it waits for from now on.
        row.wait = None;
    }
    row.state = TaskState::Deferred;
    row.scheduled_at = Some(now);
    row.next_at = Some(now);
    row.ended_at = None;
    row.reason = None;
    Ok(())
}
