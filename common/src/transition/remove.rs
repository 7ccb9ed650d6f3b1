use super::{Refused, Transition};
use crate::{row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const REMOVE: Transition = Transition {
    name: "remove",
    from: &[TaskState::None, TaskState::Restarting],
    to: &[TaskState::Removed],
    when: "it was cleared, and the list that it is mapped over has become too short for it",
};

/// Takes a mapped instance out of its run. Its row keeps its fence, for a list that grows again.
pub fn remove(row: &mut TiRow, now: DateTime<Utc>) -> Result<(), Refused> {
    REMOVE.check(row)?;
    row.state = TaskState::Removed;
    row.then = None;
    row.occupies = false;
    row.claim_by = None;
    row.ended_at = Some(now);
    row.reason = Some("the list that it is mapped over is shorter than before".to_owned());
    Ok(())
}
