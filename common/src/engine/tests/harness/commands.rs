//! Commands about rows, as workers and reconcilers would send them.

use super::RUN;
use crate::{
    engine::Command,
    ids::{Dispatch, Fence, RunPk, TiPk},
    message::{Ending, Finished, Started, XcomOut},
    row::TiRow,
};
use chrono::DateTime;

pub(in crate::engine::tests) fn started(row: &TiRow) -> Command {
    Command::Started(Started {
        run: row.run,
        dispatch: row.dispatch(),
        worker: "w".into(),
        hostname: "h".into(),
        pid: Some(1),
        at: DateTime::UNIX_EPOCH,
    })
}

pub(in crate::engine::tests) fn finished(row: &TiRow, ending: Ending) -> Command {
    finished_with(row, ending, Vec::new())
}

pub(in crate::engine::tests) fn finished_with(
    row: &TiRow,
    ending: Ending,
    xcoms: Vec<XcomOut>,
) -> Command {
    Command::Finished(Box::new(Finished {
        run: row.run,
        dispatch: row.dispatch(),
        worker: "w".into(),
        hostname: "h".into(),
        started_at: DateTime::UNIX_EPOCH,
        ended_at: DateTime::UNIX_EPOCH,
        ending,
        exit_code: None,
        pid: None,
        reason: None,
        xcoms,
    }))
}

pub(in crate::engine::tests) fn lost(row: &TiRow) -> Command {
    Command::Lost {
        run: row.run,
        dispatch: row.dispatch(),
        reason: "gone".into(),
    }
}

pub(in crate::engine::tests) fn requeued(row: &TiRow) -> Command {
    Command::Requeued {
        run: row.run,
        dispatch: row.dispatch(),
        reason: "drained".into(),
    }
}

pub(in crate::engine::tests) fn unclaimed(row: &TiRow) -> Command {
    Command::Unclaimed {
        run: row.run,
        dispatch: row.dispatch(),
        reason: "late".into(),
    }
}

pub(in crate::engine::tests) fn forgotten(row: &TiRow) -> Command {
    Command::Forgotten {
        run: row.run,
        dispatch: row.dispatch(),
        reason: "Redis was emptied".into(),
    }
}

pub(in crate::engine::tests) fn stop(reason: &str, cancelled: bool) -> Command {
    stop_run(RUN, reason, cancelled)
}

pub(in crate::engine::tests) fn stop_run(run: RunPk, reason: &str, cancelled: bool) -> Command {
    Command::StopRun {
        run,
        cancelled,
        reason: reason.into(),
    }
}

/// The dispatch before this row's.
pub(in crate::engine::tests) fn older(row: &TiRow) -> TiRow {
    TiRow {
        fence: Fence(row.fence.0 - 1),
        ..row.clone()
    }
}

pub(in crate::engine::tests) fn cancelled_unclaimed(run: RunPk, dispatch: Dispatch) -> Command {
    Command::CancelledUnclaimed { run, dispatch }
}

pub(in crate::engine::tests) fn retry_due(run: RunPk, ti: TiPk) -> Command {
    Command::RetryDue { run, ti }
}
