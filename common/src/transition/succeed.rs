use super::{ENDING, Refused, Transition};
use crate::{message::Finished, row::TiRow, state::TaskState};

pub const SUCCEED: Transition = Transition {
    name: "succeed",
    from: ENDING,
    to: &[TaskState::Success],
    when: "its attempt ended well",
};

/// The attempt ended well. Its slots are free: the event is sent only when its process tree is empty.
pub fn succeed(row: &mut TiRow, event: &Finished) -> Result<(), Refused> {
    SUCCEED.check(row)?;
    super::fail::record_ending(row, event);
    row.state = TaskState::Success;
    row.infra_losses = 0;
    Ok(())
}
