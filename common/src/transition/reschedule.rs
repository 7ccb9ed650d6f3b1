use super::{OUT, Refused, Transition};
use crate::{
    message::Finished,
    row::{TiRow, Wait},
    state::TaskState,
};
use chrono::{DateTime, Utc};

pub const RESCHEDULE: Transition = Transition {
    name: "reschedule",
    from: OUT,
    to: &[TaskState::UpForReschedule],
    when: "a sensor's poke found nothing yet: until the next one it holds nothing",
};

/// The try goes on with the next poke, at `next_at`.
pub fn reschedule(
    row: &mut TiRow,
    event: &Finished,
    since: DateTime<Utc>,
    next_at: DateTime<Utc>,
) -> Result<(), Refused> {
    RESCHEDULE.check(row)?;
    let looks = row.wait.as_ref().map_or(0, |wait| wait.looks);
    super::fail::record_ending(row, event);
    row.state = TaskState::UpForReschedule;
    row.next_at = Some(next_at);
    row.infra_losses = 0;
    row.wait = Some(Wait {
        since,
        looks: looks.saturating_add(1),
        open: true,
        run: None,
    });
    Ok(())
}
