use super::{ENDING, Refused, Transition};
use crate::{message::Finished, row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const AWAIT_RETRY: Transition = Transition {
    name: "await retry",
    from: ENDING,
    to: &[TaskState::UpForRetry],
    when: "its attempt failed and tries remain",
};

/// The attempt failed; the next is due at `next_at`.
pub fn await_retry(
    row: &mut TiRow,
    event: &Finished,
    next_at: DateTime<Utc>,
) -> Result<(), Refused> {
    AWAIT_RETRY.check(row)?;
    super::fail::record_ending(row, event);
    row.state = TaskState::UpForRetry;
    row.next_at = Some(next_at);
    row.user_failures += 1;
    row.infra_losses = 0;
    Ok(())
}
