//! What the engine is told: events of workers and findings of reconcilers, all on one path.

use crate::{
    ids::{Dispatch, RunPk, TiPk},
    message::{Finished, Started},
};

/// One fact about a run or a task instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Started(Started),
    Finished(Box<Finished>),
    /// The dispatch ended with an empty process tree before its time; it runs anew at no cost.
    Requeued {
        run: RunPk,
        dispatch: Dispatch,
        reason: String,
    },
    /// It is proven that nobody claimed the dispatch and nobody can.
    Unclaimed {
        run: RunPk,
        dispatch: Dispatch,
        reason: String,
    },
    /// The record of claims has lost its memory since the dispatch went out. It may have run, but has no live process, and
    /// nobody can claim it any more.
    Forgotten {
        run: RunPk,
        dispatch: Dispatch,
        reason: String,
    },
    /// The worker that held the dispatch was judged lost, and everything it had sent was applied.
    Lost {
        run: RunPk,
        dispatch: Dispatch,
        reason: String,
    },
    /// The run is stopped, and it is proven that nobody claimed the dispatch and nobody can.
    CancelledUnclaimed {
        run: RunPk,
        dispatch: Dispatch,
    },
    RetryDue {
        run: RunPk,
        ti: TiPk,
    },
    /// End the run: what has not started is skipped, what runs is killed. All its unfinished instances are loaded.
    StopRun {
        run: RunPk,
        cancelled: bool,
        reason: String,
    },
}

impl Command {
    pub fn run(&self) -> RunPk {
        match self {
            Self::Started(e) => e.run,
            Self::Finished(e) => e.run,
            Self::Requeued { run, .. }
            | Self::Unclaimed { run, .. }
            | Self::Forgotten { run, .. }
            | Self::Lost { run, .. }
            | Self::CancelledUnclaimed { run, .. }
            | Self::RetryDue { run, .. }
            | Self::StopRun { run, .. } => *run,
        }
    }

    /// The instance that it is about, unless it is about a whole run.
    pub fn ti(&self) -> Option<TiPk> {
        match self {
            Self::Started(e) => Some(e.dispatch.ti),
            Self::Finished(e) => Some(e.dispatch.ti),
            Self::Requeued { dispatch, .. }
            | Self::Unclaimed { dispatch, .. }
            | Self::Forgotten { dispatch, .. }
            | Self::Lost { dispatch, .. }
            | Self::CancelledUnclaimed { dispatch, .. } => Some(dispatch.ti),
            Self::RetryDue { ti, .. } => Some(*ti),
            Self::StopRun { .. } => None,
        }
    }
}
