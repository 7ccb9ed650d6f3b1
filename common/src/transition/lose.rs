use super::{OUT, Refused, Transition};
use crate::{retry::MAX_INFRA_LOSSES, row::TiRow, state::TaskState};
use chrono::{DateTime, Utc};

pub const LOSE: Transition = Transition {
    name: "lose",
    from: OUT,
    to: &[TaskState::Scheduled, TaskState::Failed],
    when: "its worker was judged lost; after three losses in a row it fails and stands in the dead list",
};

/// The attempt died with its worker. It costs no try of the user's.
pub fn lose(
    row: &mut TiRow,
    reason: String,
    stopping: bool,
    now: DateTime<Utc>,
) -> Result<(), Refused> {
    LOSE.check(row)?;
    let ran = row.state == TaskState::Running;
    row.infra_losses += 1;
    row.occupies = false;
    row.claim_by = None;
    row.close_try();
    if stopping && ran {
        row.state = TaskState::Failed;
        row.ended_at = Some(now);
        row.reason = Some(format!("its run was being stopped: {reason}"));
    } else if row.infra_losses >= MAX_INFRA_LOSSES {
        row.state = TaskState::Failed;
        row.ended_at = Some(now);
        row.reason = Some(format!(
            "lost {MAX_INFRA_LOSSES} times in a row, given up: {reason}"
        ));
    } else {
        row.state = TaskState::Scheduled;
        row.scheduled_at = Some(now);
        row.max_tries += 1;
        row.reason = Some(reason);
    }
    Ok(())
}
