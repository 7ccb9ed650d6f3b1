use super::{ENDING, Refused, Transition};
use crate::{message::Finished, row::TiRow, state::TaskState};

pub const FAIL: Transition = Transition {
    name: "fail",
    from: ENDING,
    to: &[TaskState::Failed],
    when: "its attempt failed with no try left, failed for good, or was cancelled while it ran",
};

/// The attempt failed and is not tried again.
pub fn fail(row: &mut TiRow, event: &Finished) -> Result<(), Refused> {
    FAIL.check(row)?;
    record_ending(row, event);
    row.state = TaskState::Failed;
    row.user_failures += 1;
    row.infra_losses = 0;
    Ok(())
}

/// The facts that every ending of an attempt leaves in the row.
pub fn record_ending(row: &mut TiRow, event: &Finished) {
    // A try that went on over several looks began with the first.
    let first = row
        .wait
        .as_ref()
        .filter(|wait| wait.open)
        .map(|wait| wait.since);
    row.started_at = Some(first.map_or(event.started_at, |first| first.min(event.started_at)));
    row.close_try();
    row.next_at = None;
    row.ended_at = Some(event.ended_at);
    row.worker = Some(event.worker.clone());
    row.hostname = Some(event.hostname.clone());
    row.pid = event.pid;
    row.exit_code = event.exit_code;
    row.reason = event.reason.clone();
    row.occupies = false;
    row.claim_by = None;
}
