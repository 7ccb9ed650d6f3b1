use super::{OUT, Refused, Transition};
use crate::{row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const REQUEUE: Transition = Transition {
    name: "requeue",
    from: OUT,
    to: &[TaskState::Scheduled],
    when: "its dispatch ended without running to an end and through no fault of its own: a draining worker gave it back, or no worker can claim its message any more",
};

/// Runs anew at no cost: `max_tries` grows with `try_number`; a dispatch that no worker ever claimed (`ran` is false) does
/// not count as a try at all.
pub fn requeue(
    row: &mut TiRow,
    reason: String,
    ran: bool,
    now: DateTime<Utc>,
) -> Result<(), Refused> {
    REQUEUE.check(row)?;
    row.state = TaskState::Scheduled;
    row.scheduled_at = Some(now);
    if ran {
        row.max_tries += 1;
        row.close_try();
    } else if !row.try_goes_on() {
        row.try_number -= 1;
    }
    row.occupies = false;
    row.claim_by = None;
    row.reason = Some(reason);
    Ok(())
}
