//! A connection with its counters: what every statement goes through. The statements themselves stand by noun in
//! `statements/`, as methods of [`Session`].

use crate::{codec, error};
use chrono::{DateTime, Utc};
use gristmill_store::{StoreError, StoreResult};
use serde::de::DeserializeOwned;
use sqlx::{
    Arguments, Row, Sqlite, SqliteConnection,
    pool::PoolConnection,
    sqlite::{SqliteArguments, SqliteRow},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What this process has sent since its start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) statements: AtomicU64,
    /// Logical transactions that were committed.
    pub(crate) transactions: AtomicU64,
    /// Physical commits, each with one fsync of the log.
    pub(crate) commits: AtomicU64,
}

/// The connection that a session works on.
#[derive(Debug)]
pub(crate) enum Link {
    /// The only connection that writes, on loan from the writer.
    Writer(SqliteConnection),
    /// A snapshot of what is committed.
    Reader(PoolConnection<Sqlite>),
}

#[derive(Debug)]
pub(crate) struct Session {
    link: Link,
    stats: Arc<Stats>,
    /// When the session began.
    pub(crate) now: DateTime<Utc>,
    /// SQLite undid the whole transaction under us: nothing more may be sent, or it would be committed on its own.
    broken: Option<String>,
    /// A statement failed, and what the transaction was to do is not done: it is not committed.
    refused: Option<String>,
    /// A run was accepted or ended: waiters are told after the commit.
    pub(crate) announces: bool,
}

/// A parameter of a statement.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    Null,
    Int(i64),
    Text(String),
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<bool> for Arg {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<DateTime<Utc>> for Arg {
    fn from(value: DateTime<Utc>) -> Self {
        Self::Int(value.timestamp_micros())
    }
}

impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl<T: Into<Arg>> From<Option<T>> for Arg {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The parameters of a statement, `?1` first.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::session::Arg::from($value)),*] };
}
pub(crate) use args;

impl Session {
    pub(crate) fn new(link: Link, stats: Arc<Stats>, now: DateTime<Utc>) -> Self {
        Self {
            link,
            stats,
            now,
            broken: None,
            refused: None,
            announces: false,
        }
    }

    pub(crate) fn into_link(self) -> Link {
        self.link
    }

    /// Why the transaction is gone, if it is.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Why the transaction may not be committed, if it may not.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    fn connection(&mut self) -> StoreResult<&mut SqliteConnection> {
        if let Some(why) = &self.broken {
            return Err(StoreError::Unavailable(format!(
                "the transaction was undone before: {why}"
            )));
        }
        self.stats.statements.fetch_add(1, Ordering::Relaxed);
        Ok(match &mut self.link {
            Link::Writer(connection) => connection,
            Link::Reader(connection) => connection,
        })
    }

    /// Notes what an error means for the transaction.
    fn failed(&mut self, error: sqlx::Error) -> StoreError {
        if error::ends_transaction(&error) {
            self.broken = Some(error.to_string());
        }
        self.refused = Some(error.to_string());
        error::store_error(error)
    }

    /// Rows of a query that answers with one JSON column.
    pub(crate) async fn rows<T: DeserializeOwned>(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
    ) -> StoreResult<Vec<T>> {
        let connection = self.connection()?;
        match sqlx::query_with(sql, bind(args)?)
            .fetch_all(connection)
            .await
        {
            Ok(rows) => rows.iter().map(decode_row).collect(),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The same for SQL put together at run time; its parts are constants of this crate, all values are parameters.
    pub(crate) async fn rows_of<T: DeserializeOwned>(
        &mut self,
        sql: String,
        args: Vec<Arg>,
    ) -> StoreResult<Vec<T>> {
        let connection = self.connection()?;
        match sqlx::query_with(sqlx::AssertSqlSafe(sql), bind(args)?)
            .fetch_all(connection)
            .await
        {
            Ok(rows) => rows.iter().map(decode_row).collect(),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The first row.
    pub(crate) async fn row<T: DeserializeOwned>(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
    ) -> StoreResult<Option<T>> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// The single row of a query that always has one.
    pub(crate) async fn one<T: DeserializeOwned>(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
    ) -> StoreResult<T> {
        self.row(sql, args)
            .await?
            .ok_or_else(|| StoreError::Corrupt(format!("no row came from {sql:?}")))
    }

    /// The number of rows written.
    pub(crate) async fn execute(&mut self, sql: &'static str, args: Vec<Arg>) -> StoreResult<u64> {
        let connection = self.connection()?;
        match sqlx::query_with(sql, bind(args)?).execute(connection).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Rows of a write whose unique key may be taken: then `taken` is the error.
    pub(crate) async fn rows_unless_taken<T: DeserializeOwned>(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
        taken: impl FnOnce() -> StoreError + Send,
    ) -> StoreResult<Vec<T>> {
        let connection = self.connection()?;
        match sqlx::query_with(sql, bind(args)?)
            .fetch_all(connection)
            .await
        {
            Ok(rows) => rows.iter().map(decode_row).collect(),
            Err(error) if error::is_unique_violation(&error) => Err(taken()),
            Err(error) => Err(self.failed(error)),
        }
    }
}

fn bind(args: Vec<Arg>) -> StoreResult<SqliteArguments> {
    let mut bound = SqliteArguments::default();
    for arg in args {
        match arg {
            Arg::Null => bound.add(None::<i64>),
            Arg::Int(value) => bound.add(value),
            Arg::Text(value) => bound.add(value),
        }
        .map_err(|error| StoreError::Other(format!("a parameter cannot be bound: {error}")))?;
    }
    Ok(bound)
}

fn decode_row<T: DeserializeOwned>(row: &SqliteRow) -> StoreResult<T> {
    codec::decode(
        row.try_get_unchecked::<&str, _>(0)
            .map_err(error::store_error)?,
    )
}
