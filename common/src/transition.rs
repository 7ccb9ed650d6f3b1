//! The named transitions of task instances: the only way in which a state changes. One file each.
//!
//! A transition is a plain function from a row (and the facts that cause it) to the changed row. It refuses a row that is
//! not in one of its `from` states. The stores write the change guarded by the row's state and fence as they were.

use crate::{
    ids::TiPk,
    row::TiRow,
    state::TaskState::{self, *},
};

mod await_retry;
mod cancel;
mod clear;
mod defer;
mod dispatch;
mod fail;
mod halt;
mod look;
mod lose;
mod mark;
mod poke;
mod remove;
mod requeue;
mod reschedule;
mod resolve;
mod retry;
mod schedule;
mod skip;
mod start;
mod succeed;

pub use await_retry::{AWAIT_RETRY, await_retry};
pub use cancel::{CANCEL, cancel};
pub use clear::{CLEAR, clear};
pub use defer::{DEFER, defer};
pub use dispatch::{DISPATCH, DispatchTerms, dispatch};
pub use fail::{FAIL, fail, record_ending};
pub use halt::{HALT, halt};
pub use look::{LOOK, look};
pub use lose::{LOSE, lose};
pub use mark::{MARK, mark};
pub use poke::{POKE, poke};
pub use remove::{REMOVE, remove};
pub use requeue::{REQUEUE, requeue};
pub use reschedule::{RESCHEDULE, reschedule};
pub use resolve::{RESOLVE, resolve};
pub use retry::{RETRY, retry};
pub use schedule::{SCHEDULE, schedule};
pub use skip::{SKIP, skip};
pub use start::{START, start};
pub use succeed::{SUCCEED, succeed};

/// What the lifecycle page says of a transition.
#[derive(Debug, Clone, Copy)]
pub struct Transition {
    pub name: &'static str,
    pub from: &'static [TaskState],
    pub to: &'static [TaskState],
    pub when: &'static str,
}

/// Every transition, in the order of a task instance's life.
pub const ALL: [Transition; 20] = [
    SCHEDULE,
    RESOLVE,
    DEFER,
    LOOK,
    DISPATCH,
    START,
    SUCCEED,
    SKIP,
    FAIL,
    AWAIT_RETRY,
    RETRY,
    RESCHEDULE,
    POKE,
    REQUEUE,
    LOSE,
    CANCEL,
    HALT,
    CLEAR,
    MARK,
    REMOVE,
];

/// A transition was asked of a row in the wrong state: what caused it is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("task instance {ti} cannot {transition}: it is {state}")]
pub struct Refused {
    pub ti: TiPk,
    pub transition: &'static str,
    pub state: TaskState,
}

impl Transition {
    fn check(&self, row: &TiRow) -> Result<(), Refused> {
        if self.from.contains(&row.state) {
            Ok(())
        } else {
            Err(Refused {
                ti: row.pk,
                transition: self.name,
                state: row.state,
            })
        }
    }
}

/// States of a dispatch that may still report its start or its ending: `finished` may overtake `started`.
const OUT: &[TaskState] = &[Queued, Running];
/// States that a try may end from: of a dispatch, or of a wait that the scheduler ends itself.
const ENDING: &[TaskState] = &[Queued, Running, Deferred, AwaitingInput];

/// The lifecycle page's diagram, in Mermaid.
pub fn diagram() -> String {
    let mut out = String::from("stateDiagram-v2\n    [*] --> none\n");
    for t in ALL {
        for from in t.from {
            for to in t.to {
                out.push_str(&format!("    {from} --> {to}: {}\n", t.name));
            }
        }
    }
    for state in TaskState::ALL.iter().filter(|s| s.is_finished()) {
        out.push_str(&format!("    {state} --> [*]\n"));
    }
    out
}

/// The lifecycle page's table: one line a transition.
pub fn table() -> String {
    let names = |states: &[TaskState]| {
        states
            .iter()
            .map(|s| format!("`{s}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut out = String::from("| transition | from | to | when |\n| --- | --- | --- | --- |\n");
    for t in ALL {
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            t.name,
            names(t.from),
            names(t.to),
            t.when
        ));
    }
    out
}
