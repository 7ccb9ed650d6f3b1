//! What each kind of task does on a worker.

mod artifacts;
mod cache;
mod child;
mod data;
mod env;
mod http;
mod scratch;
mod sensor;
mod shell;
mod sql;
mod xcom;

pub(crate) use http::Clients;
pub(crate) use sensor::Stores;
pub(crate) use sql::Databases;

use crate::run::{Execution, Outcome};
use gristmill_common::spec::TaskKind;

/// Runs a task to its end, or takes the result of an earlier success.
pub(crate) async fn run(execution: &Execution) -> Outcome {
    match &execution.message.task.cache {
        None => work(execution).await,
        Some(cache) => Box::pin(cache::run(execution, cache, work(execution))).await,
    }
}

/// Runs a task to its end. In-process work is dropped when something is wished of it; processes are killed first.
async fn work(execution: &Execution) -> Outcome {
    // What waits for a process must not take the memory of what makes requests: thousands may.
    match &execution.message.task.kind {
        TaskKind::Shell(task) => shell::run(execution, task).await,
        TaskKind::Http(task) => Box::pin(http::run(execution, task)).await,
        TaskKind::Sql(task) => Box::pin(sql::run(execution, task)).await,
        TaskKind::Data(task) => Box::pin(data::run(execution, task)).await,
        TaskKind::Sensor(sensor) => Box::pin(sensor::run(execution, sensor)).await,
        TaskKind::Noop(_) | TaskKind::Empty(_) => Outcome::success(Vec::new()),
        kind @ (TaskKind::Branch(_) | TaskKind::ShortCircuit(_) | TaskKind::LatestOnly(_)) => {
            Outcome::failed_for_good(format!(
                "a {} is decided by a scheduler, not by a worker",
                kind.name()
            ))
        }
        TaskKind::TriggerDag(_) | TaskKind::Approval(_) => Outcome::failed_for_good(format!(
            "a {} task waits in the scheduler: no worker should have got it",
            execution.message.task.kind.name()
        )),
    }
}
