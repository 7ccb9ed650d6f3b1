use super::{Refused, Transition};
use crate::{message::Started, row::TiRow, state::TaskState};

pub const START: Transition = Transition {
    name: "start",
    from: &[TaskState::Queued],
    to: &[TaskState::Running],
    when: "the worker that claimed it says that it started",
};

/// The attempt runs.
pub fn start(row: &mut TiRow, event: &Started) -> Result<(), Refused> {
    START.check(row)?;
    row.state = TaskState::Running;
    row.started_at = Some(event.at);
    row.worker = Some(event.worker.clone());
    row.hostname = Some(event.hostname.clone());
    row.pid = event.pid;
    Ok(())
}
