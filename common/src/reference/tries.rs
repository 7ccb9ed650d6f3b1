//! What becomes of an instance that runs: its tries, one after the other.

use super::{Endings, Interrupted, Interruption, Outcome};
use crate::state::TaskState;

/// Losses in a row after which an instance is given up.
const LOSSES: i32 = 3;

/// Where an instance may stand before a try. How many were interrupted follows: those that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    failures: i32,
    losses_in_a_row: i32,
}

/// What can happen to one try.
#[derive(Debug, Clone, Copy)]
enum Event {
    Ends(Outcome),
    Interrupted(Interruption),
}

/// Every ending of an instance that runs.
pub(super) fn endings(
    retries: u32,
    interrupted: &Interrupted,
    outcome: impl Fn(i32) -> Outcome,
) -> Endings {
    let retries = i32::try_from(retries).unwrap_or(i32::MAX);
    let mut endings = Endings::default();
    let mut standings = vec![Standing {
        failures: 0,
        losses_in_a_row: 0,
    }];
    let mut try_number = 0;
    while !standings.is_empty() {
        try_number += 1;
        let mut next = Vec::new();
        for at in standings {
            for event in events(interrupted, at, try_number, &outcome) {
                match after(event, at, retries) {
                    Ok(standing) if next.contains(&standing) => {}
                    Ok(standing) => next.push(standing),
                    Err(state) => endings.add(state, try_number..=try_number),
                }
            }
        }
        standings = next;
    }
    endings
}

fn events(
    interrupted: &Interrupted,
    at: Standing,
    try_number: i32,
    outcome: impl Fn(i32) -> Outcome,
) -> Vec<Event> {
    let ends = Event::Ends(outcome(try_number));
    match interrupted {
        Interrupted::Tries(tries) => {
            let this = tries.iter().find(|(number, _)| *number == try_number);
            vec![this.map_or(ends, |(_, how)| Event::Interrupted(*how))]
        }
        Interrupted::AtMost(most) if try_number - 1 - at.failures < *most => vec![
            ends,
            Event::Interrupted(Interruption::Lost),
            Event::Interrupted(Interruption::Requeued),
        ],
        Interrupted::AtMost(_) => vec![ends],
    }
}

/// Where an instance stands after a try, or how it has ended.
fn after(event: Event, at: Standing, retries: i32) -> Result<Standing, TaskState> {
    match event {
        Event::Ends(Outcome::Success) => Err(TaskState::Success),
        Event::Ends(Outcome::Skipped) => Err(TaskState::Skipped),
        Event::Ends(Outcome::FailedForGood) => Err(TaskState::Failed),
        Event::Ends(Outcome::Failed) if at.failures == retries => Err(TaskState::Failed),
        Event::Ends(Outcome::Failed) => Ok(Standing {
            failures: at.failures + 1,
            losses_in_a_row: 0,
        }),
        Event::Interrupted(Interruption::Lost) if at.losses_in_a_row + 1 == LOSSES => {
            Err(TaskState::Failed)
        }
        Event::Interrupted(Interruption::Lost) => Ok(Standing {
            losses_in_a_row: at.losses_in_a_row + 1,
            ..at
        }),
        Event::Interrupted(Interruption::Requeued) => Ok(at),
    }
}
