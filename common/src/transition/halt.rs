use super::{OUT, Refused, Transition};
use crate::{row::TiRow, state::TaskState};

pub const HALT: Transition = Transition {
    name: "halt",
    from: OUT,
    to: &[TaskState::Restarting],
    when: "a user cleared or marked it while its dispatch is out: that is stopped first",
};

/// Stops a dispatch that is out. It keeps its slots until the proof that it is dead; then it becomes `then`, or waits anew.
pub fn halt(row: &mut TiRow, then: Option<TaskState>, reason: String) -> Result<(), Refused> {
    HALT.check(row)?;
    row.state = TaskState::Restarting;
    row.then = then;
    // What its upstreams say is asked anew.
    row.scheduled_at = None;
    row.reason = Some(reason);
    Ok(())
}
