//! Databases that tasks talk to, by connections of the deployment: PostgreSQL, MySQL (MariaDB) and SQLite.

mod binding;
mod database;
mod look;
mod script;
mod session;
mod target;
mod task;
mod value;

pub(crate) use database::Databases;
pub(super) use look::look;
pub(super) use task::run;

use crate::run::Execution;
use serde_json::Value;
use std::time::Duration;

/// Why a database did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    #[error(
        "its type {0:?} is no database that can be asked: use postgres, mysql or sqlite as conn_type"
    )]
    Kind(String),
    #[error("it names no {0}")]
    Missing(&'static str),
    #[error("it cannot be read: {0}")]
    Connection(String),
    #[error("{0}")]
    Query(#[from] sqlx::Error),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error(
        "the column {column:?} is of the type {kind}, which is not read: cast it to boolean, bigint, double precision or text"
    )]
    Type { column: String, kind: String },
    #[error("two columns are called {0:?}: name them differently with AS")]
    SameName(String),
    #[error("parameter {at} is a {kind} for the database, and {value} is none")]
    Parameter {
        at: usize,
        kind: String,
        value: String,
    },
    #[error(
        "the query gave more than {0} rows: ask for fewer, or raise max_rows (larger results belong into a table or a file)"
    )]
    TooManyRows(u32),
    #[error("its rows are more than {0} bytes: ask for fewer, or leave them in a table or a file")]
    TooLarge(usize),
    #[error("the worker stops it")]
    Stopped,
}

/// The opened connection that a task names.
fn connection<'e>(execution: &'e Execution, key: &str, id: &str) -> Result<&'e Value, String> {
    execution.context.connections.get(id).ok_or_else(|| {
        format!(
            "{key}: there is no connection {id:?}; make it with `gristmill connections set {id} …`"
        )
    })
}
