use super::{Refused, Transition};
use crate::{ids::Fence, row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub const DISPATCH: Transition = Transition {
    name: "dispatch",
    from: &[TaskState::Scheduled],
    to: &[TaskState::Queued],
    when: "every limit has room: it takes its slots and the next fence, and its message is written to the outbox",
};

/// What a dispatch is given from outside the row.
#[derive(Debug, Clone, Copy)]
pub struct DispatchTerms {
    pub now: DateTime<Utc>,
    pub claim_by: DateTime<Utc>,
    pub epoch: i64,
    /// Names the new attempt.
    pub attempt: Uuid,
}

/// A new attempt goes out.
pub fn dispatch(row: &mut TiRow, terms: DispatchTerms) -> Result<(), Refused> {
    DISPATCH.check(row)?;
    row.state = TaskState::Queued;
    row.fence = Fence(row.fence.0 + 1);
    if !row.try_goes_on() {
        row.try_number += 1;
    }
    row.attempt = Some(terms.attempt);
    row.epoch = terms.epoch;
    row.occupies = true;
    row.queued_at = Some(terms.now);
    row.claim_by = Some(terms.claim_by);
    row.started_at = None;
    row.ended_at = None;
    row.next_at = None;
    row.worker = None;
    row.hostname = None;
    row.pid = None;
    row.exit_code = None;
    row.reason = None;
    Ok(())
}
