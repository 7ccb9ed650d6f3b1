use super::{Refused, Transition};
use crate::{
    ids::Fence,
    row::{TiRow, Wait},
    state::TaskState,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub const LOOK: Transition = Transition {
    name: "look",
    from: &[TaskState::Deferred],
    to: &[TaskState::Deferred, TaskState::AwaitingInput],
    when: "the scheduler's first look at a try: it takes the next fence; what waits for a person awaits input from then on",
};

/// A try begins without a worker. What a sensor's timeout counts from stays as it was.
pub fn look(
    row: &mut TiRow,
    to: TaskState,
    attempt: Uuid,
    now: DateTime<Utc>,
) -> Result<(), Refused> {
    LOOK.check(row)?;
    debug_assert!(LOOK.to.contains(&to));
    row.state = to;
    row.fence = Fence(row.fence.0 + 1);
    row.try_number += 1;
    row.attempt = Some(attempt);
    row.started_at = Some(now);
    row.wait = Some(Wait {
        since: row.wait.as_ref().map_or(now, |wait| wait.since),
        looks: 0,
        open: true,
        run: None,
    });
    Ok(())
}
