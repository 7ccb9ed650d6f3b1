use super::{Refused, Transition};
use crate::{row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const RESOLVE: Transition = Transition {
    name: "resolve",
    from: &[TaskState::None],
    to: &[
        TaskState::Success,
        TaskState::Skipped,
        TaskState::UpstreamFailed,
        TaskState::Failed,
    ],
    when: "it ends without a worker: an `empty` task runs, a branch or its like decides, or skips it; its trigger rule can no longer hold, its list is empty or is no list",
};

/// Ends a row that never needs a worker.
pub fn resolve(
    row: &mut TiRow,
    to: TaskState,
    reason: Option<String>,
    now: DateTime<Utc>,
) -> Result<(), Refused> {
    RESOLVE.check(row)?;
    debug_assert!(RESOLVE.to.contains(&to));
    row.state = to;
    row.reason = reason;
    row.next_at = None;
    row.ended_at = Some(now);
    if to == TaskState::Success {
        row.started_at = Some(now);
    }
    Ok(())
}
