//! Databases by their connections, opened on first use and shared by all tasks of a worker.

use super::value;
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, ConnectOptions, PgPool, Postgres, Row, Sqlite, SqlitePool,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions},
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqlitePoolOptions},
};
use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Databases that are kept open; beyond that the cache starts anew.
const MOST: usize = 64;
/// Connections to each at one time: sensors take turns.
const CONNECTIONS: u32 = 4;
/// Of one query, waiting for a connection included.
const PATIENCE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60);

/// Why a database did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    #[error("its type {0:?} is no database that can be asked: use postgres or sqlite as conn_type")]
    Kind(String),
    #[error("it names no {0}")]
    Missing(&'static str),
    #[error("it cannot be read: {0}")]
    Connection(String),
    #[error("{0}")]
    Query(#[from] sqlx::Error),
    #[error("no answer within {PATIENCE:?}")]
    Late,
    #[error(
        "the value is of the type {0}, which is not read: cast it to boolean, bigint, double precision or text"
    )]
    Type(String),
}

/// By the text of their connections.
#[derive(Debug, Default)]
pub(crate) struct Databases(Mutex<HashMap<String, Database>>);

/// One database, to be read.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Databases {
    /// The database of an opened connection.
    pub(super) fn of(&self, connection: &Value) -> Result<Database, SqlError> {
        let key = connection.to_string();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = open.get(&key) {
            return Ok(database.clone());
        }
        let database = Database::of(connection)?;
        if open.len() >= MOST {
            open.clear();
        }
        open.insert(key, database.clone());
        Ok(database)
    }
}

impl Database {
    /// Opens nothing yet: that is part of the first query.
    fn of(connection: &Value) -> Result<Self, SqlError> {
        let text = |field: &str| {
            connection
                .get(field)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        match text("conn_type").unwrap_or_default() {
            "postgres" | "postgresql" => {
                let mut options = PgConnectOptions::new_without_pgpass()
                    .host(text("host").ok_or(SqlError::Missing("host"))?)
                    .application_name("gristmill-worker")
                    .disable_statement_logging();
                if let Some(port) = connection.get("port").and_then(Value::as_u64) {
                    options = options.port(u16::try_from(port).unwrap_or(5432));
                }
                if let Some(login) = text("login") {
                    options = options.username(login);
                }
                if let Some(password) = text("password") {
                    options = options.password(password);
                }
                if let Some(database) = text("schema") {
                    options = options.database(database);
                }
                let pool = PgPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(PATIENCE)
                    .idle_timeout(IDLE);
                Ok(Self::Postgres(pool.connect_lazy_with(options)))
            }
            "sqlite" => {
                let path = text("host")
                    .or_else(|| text("schema"))
                    .ok_or(SqlError::Missing("host (the file's path)"))?;
                let options = SqliteConnectOptions::from_str(path)
                    .map_err(|error| SqlError::Connection(error.to_string()))?
                    .read_only(true)
                    .create_if_missing(false)
                    .disable_statement_logging();
                let pool = SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(PATIENCE)
                    .idle_timeout(IDLE);
                Ok(Self::Sqlite(pool.connect_lazy_with(options)))
            }
            other => Err(SqlError::Kind(other.to_owned())),
        }
    }

    /// The first value of the first row, `None` without a row. Nothing can be written: a look may come at any time, and
    /// more than once.
    pub(super) async fn first_value(
        &self,
        query: &str,
        parameters: &[Value],
    ) -> Result<Option<Value>, SqlError> {
        tokio::time::timeout(PATIENCE, self.ask(query, parameters))
            .await
            .map_err(|_| SqlError::Late)?
    }

    async fn ask(&self, query: &str, parameters: &[Value]) -> Result<Option<Value>, SqlError> {
        // The text is the author's own, as for any database's client; values go in as parameters.
        let statement = AssertSqlSafe(query.to_owned());
        match self {
            Self::Postgres(pool) => {
                let mut tx = pool.begin_with("BEGIN READ ONLY").await?;
                let bound = parameters
                    .iter()
                    .fold(sqlx::query::<Postgres>(statement), bind_postgres);
                let row = bound.fetch_optional(&mut *tx).await?;
                tx.rollback().await?;
                row.filter(|row| !row.is_empty())
                    .map(|row| value::of_postgres(&row))
                    .transpose()
            }
            Self::Sqlite(pool) => {
                let bound = parameters
                    .iter()
                    .fold(sqlx::query::<Sqlite>(statement), bind_sqlite);
                let row = bound.fetch_optional(pool).await?;
                row.filter(|row| !row.is_empty())
                    .map(|row| value::of_sqlite(&row))
                    .transpose()
            }
        }
    }
}

fn bind_postgres<'q>(
    query: Query<'q, Postgres, PgArguments>,
    value: &Value,
) -> Query<'q, Postgres, PgArguments> {
    match value {
        Value::Null => query.bind(None::<String>),
        Value::Bool(truth) => query.bind(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => query.bind(whole),
            None => query.bind(number.as_f64()),
        },
        Value::String(text) => query.bind(text.clone()),
        Value::Array(_) | Value::Object(_) => query.bind(value.to_string()),
    }
}

fn bind_sqlite<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    value: &Value,
) -> Query<'q, Sqlite, SqliteArguments> {
    match value {
        Value::Null => query.bind(None::<String>),
        Value::Bool(truth) => query.bind(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => query.bind(whole),
            None => query.bind(number.as_f64()),
        },
        Value::String(text) => query.bind(text.clone()),
        Value::Array(_) | Value::Object(_) => query.bind(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_file_is_asked_and_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let make = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true);
        let mut writer = make.connect().await.unwrap();
        for statement in [
            "CREATE TABLE t (n INTEGER, s TEXT)",
            "INSERT INTO t VALUES (7, 'seven')",
        ] {
            sqlx::query(statement).execute(&mut writer).await.unwrap();
        }
        let connection = json!({"conn_type": "sqlite", "host": path.to_str().unwrap()});
        let databases = Databases::default();
        let database = databases.of(&connection).unwrap();
        let ask =
            async |query: &str, parameters: &[Value]| database.first_value(query, parameters).await;
        let count = ask("SELECT count(*) FROM t WHERE n > ?1", &[json!(5)]).await;
        assert_eq!(count.unwrap(), Some(json!(1)));
        let text = ask("SELECT s FROM t WHERE n = ?1", &[json!(7)]).await;
        assert_eq!(text.unwrap(), Some(json!("seven")));
        assert_eq!(ask("SELECT n FROM t WHERE n = 8", &[]).await.unwrap(), None);
        assert_eq!(
            ask("SELECT NULL FROM t", &[]).await.unwrap(),
            Some(Value::Null)
        );
        let written = ask("DELETE FROM t RETURNING 1", &[]).await.unwrap_err();
        assert!(written.to_string().contains("readonly"), "{written}");
        assert!(ask("SELEC", &[]).await.is_err());
    }

    #[tokio::test]
    async fn connections_that_cannot_work_say_so() {
        let of = |connection: Value| {
            Databases::default()
                .of(&connection)
                .unwrap_err()
                .to_string()
        };
        assert!(of(json!({"conn_type": "mysql", "host": "x"})).contains("mysql"));
        assert!(of(json!({"conn_type": "postgres"})).contains("host"));
        assert!(of(json!({"conn_type": "sqlite"})).contains("path"));
    }
}
