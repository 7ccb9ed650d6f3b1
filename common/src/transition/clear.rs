use super::{Refused, Transition};
use crate::{row::TiRow, state::TaskState};

pub const CLEAR: Transition = Transition {
    name: "clear",
    from: &[
        TaskState::Scheduled,
        TaskState::UpForRetry,
        TaskState::UpForReschedule,
        TaskState::Deferred,
        TaskState::AwaitingInput,
        TaskState::Restarting,
        TaskState::Success,
        TaskState::Failed,
        TaskState::UpstreamFailed,
        TaskState::Skipped,
        TaskState::Removed,
    ],
    to: &[TaskState::None],
    when: "a user cleared it (a removed one: its list is longer again; a restarting one: its dispatch is over)",
};

/// Waits for its upstreams anew, with all its retries. Its fence and its tries go on from where they were.
pub fn clear(row: &mut TiRow, retries: i32) -> Result<(), Refused> {
    CLEAR.check(row)?;
    row.state = TaskState::None;
    row.then = None;
    row.wait = None;
    row.max_tries = row.try_number + retries;
    row.user_failures = 0;
    row.infra_losses = 0;
    row.occupies = false;
    row.scheduled_at = None;
    row.queued_at = None;
    row.claim_by = None;
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
