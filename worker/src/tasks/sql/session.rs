//! A connection of its own to a database, for one attempt of a task: what the attempt sets ends with it, and what it runs can
//! be stopped at the server.

use super::{
    SqlError,
    binding::{json_of, postgres_arguments},
    target::Target,
    value,
};
use futures::{Stream, StreamExt};
use gristmill_common::message::MAX_XCOM;
use serde_json::{Map, Value};
use sqlx::{
    AssertSqlSafe, Connection, Either, Executor, MySql, MySqlConnection, PgConnection, Postgres,
    Row, SqlSafeStr, SqlStr, Sqlite, SqliteConnection, Statement, mysql::MySqlConnectOptions,
    postgres::PgConnectOptions,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// To connect, and to be told that a query is to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// SQLite asks so often, in steps of its machine, whether to go on.
const STEPS: i32 = 10_000;

/// An open connection.
pub(super) enum Session {
    Postgres(PgConnection),
    MySql(MySqlConnection),
    Sqlite(SqliteConnection),
}

/// Stops what a session runs.
pub(super) enum Stopper {
    Postgres {
        options: Box<PgConnectOptions>,
        process: i32,
        since: String,
    },
    MySql {
        options: Box<MySqlConnectOptions>,
        connection: u64,
    },
    Sqlite(Arc<AtomicBool>),
}

/// What a statement gave.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Done {
    /// Rows that it returned, else those that it changed.
    pub(super) count: u64,
    pub(super) rows: Vec<Map<String, Value>>,
}

/// Which of a statement's rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    None,
    First,
    /// All; more than these fail the statement.
    UpTo(u32),
}

impl Session {
    /// Connects; `stop` makes SQLite stop.
    pub(super) async fn open(
        target: Target,
        stop: Arc<AtomicBool>,
    ) -> Result<(Self, Stopper), SqlError> {
        tokio::time::timeout(PATIENCE, Self::connect(target, stop))
            .await
            .map_err(|_| SqlError::Late(PATIENCE))?
    }

    async fn connect(target: Target, stop: Arc<AtomicBool>) -> Result<(Self, Stopper), SqlError> {
        Ok(match target {
            Target::Postgres(options) => {
                let mut connection = PgConnection::connect_with(&options).await?;
                // A server that looks after its clients ends the query of a worker that died.
                let about = "SELECT pg_backend_pid(), backend_start::text, CASE WHEN current_setting('server_version_num')::int >= 140000 \
                             THEN set_config('client_connection_check_interval', '2s', false) END \
                             FROM pg_stat_activity WHERE pid = pg_backend_pid()";
                let row = sqlx::query(about).fetch_one(&mut connection).await?;
                let stopper = Stopper::Postgres {
                    options,
                    process: row.try_get(0)?,
                    since: row.try_get(1)?,
                };
                (Self::Postgres(connection), stopper)
            }
            Target::MySql(options) => {
                let mut connection = MySqlConnection::connect_with(&options).await?;
                let row = sqlx::query("SELECT CONNECTION_ID()")
                    .fetch_one(&mut connection)
                    .await?;
                let stopper = Stopper::MySql {
                    options,
                    connection: row.try_get_unchecked(0)?,
                };
                (Self::MySql(connection), stopper)
            }
            Target::Sqlite(options) => {
                let mut connection = SqliteConnection::connect_with(&options).await?;
                let asked = stop.clone();
                connection
                    .lock_handle()
                    .await?
                    .set_progress_handler(STEPS, move || !asked.load(Ordering::Relaxed));
                (Self::Sqlite(connection), Stopper::Sqlite(stop))
            }
        })
    }

    pub(super) async fn begin(&mut self) -> Result<(), SqlError> {
        self.execute(match self {
            Self::Postgres(_) => "BEGIN",
            Self::MySql(_) => "START TRANSACTION",
            // The lock to write is taken at once: one that is asked for later may be refused for good.
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
        })
        .await
    }

    pub(super) async fn commit(&mut self) -> Result<(), SqlError> {
        self.execute("COMMIT").await
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), SqlError> {
        match self {
            Self::Postgres(connection) => connection.execute(statement).await.map(|_| ())?,
            Self::MySql(connection) => connection.execute(statement).await.map(|_| ())?,
            Self::Sqlite(connection) => connection.execute(statement).await.map(|_| ())?,
        }
        Ok(())
    }

    /// Ends the connection; what was not committed is rolled back.
    pub(super) async fn close(self) {
        let closed = match self {
            Self::Postgres(connection) => connection.close().await,
            Self::MySql(connection) => connection.close().await,
            Self::Sqlite(connection) => connection.close().await,
        };
        if let Err(error) = closed {
            tracing::debug!(%error, "a database's connection was not closed well");
        }
    }

    /// Runs one statement to its end.
    pub(super) async fn run(
        &mut self,
        text: &str,
        values: &[Value],
        keep: Keep,
    ) -> Result<Done, SqlError> {
        // The text is the author's own, as for any database's client; values go in as parameters.
        let statement: SqlStr = AssertSqlSafe(text.to_owned()).into_sql_str();
        match self {
            Self::Postgres(connection) => {
                let prepared = (&mut *connection).prepare(statement).await?;
                let arguments = postgres_arguments(&prepared, values)?;
                let rows = connection.fetch_many(prepared.query_with(arguments));
                let changed = |done: &sqlx::postgres::PgQueryResult| done.rows_affected();
                collect::<Postgres, _>(rows, changed, value::of_postgres, keep).await
            }
            Self::MySql(connection) => {
                let changed = |done: &sqlx::mysql::MySqlQueryResult| done.rows_affected();
                // Some statements cannot be prepared: without parameters none has to be.
                let rows = if values.is_empty() {
                    connection.fetch_many(sqlx::raw_sql(statement))
                } else {
                    let mut query = sqlx::query::<MySql>(statement);
                    for value in values {
                        query = json_of!(query, value);
                    }
                    connection.fetch_many(query)
                };
                collect::<MySql, _>(rows, changed, value::of_mysql, keep).await
            }
            Self::Sqlite(connection) => {
                let prepared = (&mut *connection).prepare(statement.clone()).await?;
                // Of what returns rows SQLite says how many the statement before it changed.
                let returns = !prepared.columns().is_empty();
                let changed = move |done: &sqlx::sqlite::SqliteQueryResult| {
                    if returns { 0 } else { done.rows_affected() }
                };
                let mut query = sqlx::query::<Sqlite>(statement);
                for value in values {
                    query = json_of!(query, value);
                }
                let rows = connection.fetch_many(query);
                collect::<Sqlite, _>(rows, changed, value::of_sqlite, keep).await
            }
        }
    }
}

/// Reads a statement's answer to its end.
async fn collect<DB: sqlx::Database, S>(
    mut answer: S,
    changed: impl Fn(&DB::QueryResult) -> u64,
    value: impl Fn(&DB::Row, usize) -> Result<Value, SqlError>,
    keep: Keep,
) -> Result<Done, SqlError>
where
    S: Stream<Item = Result<Either<DB::QueryResult, DB::Row>, sqlx::Error>> + Unpin,
    usize: sqlx::ColumnIndex<DB::Row>,
{
    let mut done = Done::default();
    let (mut returned, mut affected, mut size) = (0u64, 0, 0);
    while let Some(part) = answer.next().await {
        match part? {
            Either::Left(end) => affected += changed(&end),
            Either::Right(row) => {
                returned += 1;
                match keep {
                    Keep::None => continue,
                    Keep::First if returned > 1 => continue,
                    Keep::UpTo(most) if returned > u64::from(most) => {
                        return Err(SqlError::TooManyRows(most));
                    }
                    Keep::First | Keep::UpTo(_) => {}
                }
                let row = value::mapping(&row, &value)?;
                size += serde_json::to_string(&row).map_or(0, |text| text.len() + 1);
                if size > MAX_XCOM {
                    return Err(SqlError::TooLarge(MAX_XCOM));
                }
                done.rows.push(row);
            }
        }
    }
    done.count = if returned > 0 { returned } else { affected };
    Ok(done)
}

impl Stopper {
    /// Stops what runs: its connection ends, and with it what it had not committed.
    pub(super) async fn stop(&self) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(stop) => stop.store(true, Ordering::Relaxed),
            Self::Postgres {
                options,
                process,
                since,
            } => {
                let mut other = timely(PgConnection::connect_with(options)).await?;
                // Its number may be another's by now.
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2";
                let query = sqlx::query(end).bind(*process).bind(since.clone());
                timely(query.execute(&mut other)).await?;
            }
            Self::MySql {
                options,
                connection,
            } => {
                let mut other = timely(MySqlConnection::connect_with(options)).await?;
                let kill = AssertSqlSafe(format!("KILL CONNECTION {connection}"));
                // A connection that has ended meanwhile cannot be killed: that is as good.
                match timely(sqlx::raw_sql(kill).execute(&mut other)).await {
                    Err(SqlError::Query(sqlx::Error::Database(_))) | Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

async fn timely<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, SqlError> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    Ok(done.map_err(|_| SqlError::Late(PATIENCE))??)
}

#[cfg(test)]
mod tests;
