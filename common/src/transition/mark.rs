use super::{Refused, Transition};
use crate::{row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const MARK: Transition = Transition {
    name: "mark",
    from: &[
        TaskState::None,
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
    ],
    to: &[
        TaskState::Success,
        TaskState::Failed,
        TaskState::Skipped,
        TaskState::UpstreamFailed,
    ],
    when: "a user said how it ended (one whose dispatch was out: once that is over)",
};

/// Ends a row as told, whatever it was; one that had ended keeps its times.
pub fn mark(
    row: &mut TiRow,
    to: TaskState,
    reason: String,
    now: DateTime<Utc>,
) -> Result<(), Refused> {
    MARK.check(row)?;
    debug_assert!(MARK.to.contains(&to));
    if !row.state.is_finished() || row.ended_at.is_none() {
        row.ended_at = Some(now);
    }
    row.state = to;
    row.then = None;
    row.occupies = false;
    row.claim_by = None;
    row.next_at = None;
    row.close_try();
    row.reason = Some(reason);
    Ok(())
}
