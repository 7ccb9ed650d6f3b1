use super::{Refused, Transition};
use crate::{row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const RETRY: Transition = Transition {
    name: "retry",
    from: &[TaskState::UpForRetry],
    to: &[TaskState::Scheduled],
    when: "its retry delay is over",
};

/// The next try waits for its limits.
pub fn retry(row: &mut TiRow, now: DateTime<Utc>) -> Result<(), Refused> {
    RETRY.check(row)?;
    row.state = TaskState::Scheduled;
    row.scheduled_at = Some(now);
    row.next_at = None;
    Ok(())
}
