//! A sensor's poke: one look, made by the worker itself. What was not found is looked for again by another poke; nothing is
//! kept in between, and a poke that found nothing leaves no log.

mod file;
mod stores;

pub(crate) use stores::Stores;

use super::{http, sql, xcom};
use crate::run::{Execution, Outcome};
use gristmill_common::spec::{SensorOn, SensorTask};
use serde_json::Value;

/// What a look saw.
pub(super) enum Seen {
    /// It is so; the value is the task's.
    Found { value: Value, note: String },
    /// Not yet, and why.
    NotYet(String),
}

/// Why a look saw nothing at all.
pub(super) enum Blind {
    /// Another try may mend it.
    Failed(String),
    /// It is wrong in itself.
    ForGood(String),
    /// The worker's lease is over: another may look at the same time.
    Interrupted,
}

pub(super) async fn run(execution: &Execution, sensor: &SensorTask) -> Outcome {
    execution.report_started(None);
    let work = async {
        match execution.message.task.execution_timeout {
            Some(after) => tokio::time::timeout(after.duration(), poke(execution, sensor))
                .await
                .unwrap_or_else(|_| Outcome::failed(format!("timed out after {after}"))),
            None => poke(execution, sensor).await,
        }
    };
    tokio::select! {
        outcome = work => outcome,
        wish = execution.wished() => Outcome::wished(wish),
    }
}

async fn poke(execution: &Execution, sensor: &SensorTask) -> Outcome {
    let seen = match &sensor.on {
        SensorOn::File(path) => file::look(execution, path).await,
        SensorOn::Http(task) => http::look(execution, task).await,
        SensorOn::Sql(query) => sql::look(execution, query).await,
        SensorOn::Time(_) | SensorOn::Delta(_) | SensorOn::Dag(_) | SensorOn::Asset(_) => {
            Err(Blind::ForGood("no worker looks for this".to_owned()))
        }
    };
    match seen {
        Ok(Seen::NotYet(reason)) => Outcome::not_yet(execution.context.mask.apply(reason)),
        Ok(Seen::Found { value, note }) => {
            execution.log.note(&note).await;
            match xcom::return_value(execution, value).await {
                Ok(xcoms) => Outcome::success(xcoms),
                Err(reason) => Outcome::failed(reason),
            }
        }
        Err(Blind::Failed(reason)) => Outcome::failed(reason),
        Err(Blind::Interrupted) => Outcome::wished(crate::held::Wish::Interrupt),
        Err(Blind::ForGood(reason)) => Outcome::failed_for_good(reason),
    }
}
