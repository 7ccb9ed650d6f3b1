use super::{ENDING, Refused, Transition};
use crate::{message::Finished, row::TiRow, state::TaskState};

pub const SKIP: Transition = Transition {
    name: "skip",
    from: ENDING,
    to: &[TaskState::Skipped],
    when: "its attempt said itself that there was nothing to do",
};

/// The attempt ended as skipped.
pub fn skip(row: &mut TiRow, event: &Finished) -> Result<(), Refused> {
    SKIP.check(row)?;
    super::fail::record_ending(row, event);
    row.state = TaskState::Skipped;
    row.infra_losses = 0;
    Ok(())
}
