use super::{Refused, Transition};
use crate::{row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const SCHEDULE: Transition = Transition {
    name: "schedule",
    from: &[TaskState::None],
    to: &[TaskState::Scheduled],
    when: "its trigger rule is satisfied",
};

/// The row now waits for its limits.
pub fn schedule(row: &mut TiRow, now: DateTime<Utc>) -> Result<(), Refused> {
    SCHEDULE.check(row)?;
    row.state = TaskState::Scheduled;
    row.scheduled_at = Some(now);
    row.reason = None;
    row.next_at = None;
    // A new life, if it had one before: what it waits for, it waits for from now on.
    row.wait = None;
    Ok(())
}
