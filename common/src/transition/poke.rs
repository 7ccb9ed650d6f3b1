use super::{Refused, Transition};
use crate::{row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const POKE: Transition = Transition {
    name: "poke",
    from: &[TaskState::UpForReschedule],
    to: &[TaskState::Scheduled],
    when: "a sensor's next poke is due",
};

/// The next poke waits for its limits.
pub fn poke(row: &mut TiRow, now: DateTime<Utc>) -> Result<(), Refused> {
    POKE.check(row)?;
    row.state = TaskState::Scheduled;
    row.scheduled_at = Some(now);
    row.next_at = None;
    Ok(())
}
