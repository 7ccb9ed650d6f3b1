//! Databases by their connections, opened on first use and shared by all sensors of a worker.

use super::{
    SqlError,
    binding::{json_of, postgres_arguments},
    target::Target,
    value,
};
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, Executor, MySqlPool, PgPool, Row, SqlSafeStr, SqlitePool, Statement,
    mysql::MySqlPoolOptions, postgres::PgPoolOptions, sqlite::SqlitePoolOptions,
};
use std::{
    collections::HashMap,
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

/// By the text of their connections.
#[derive(Debug, Default)]
pub(crate) struct Databases(Mutex<HashMap<String, Database>>);

/// One database, to be read.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Postgres(PgPool),
    MySql(MySqlPool),
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
        Ok(match Target::of(connection)? {
            Target::Postgres(options) => Self::Postgres(
                PgPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(PATIENCE)
                    .idle_timeout(IDLE)
                    .connect_lazy_with(*options),
            ),
            Target::MySql(options) => Self::MySql(
                MySqlPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(PATIENCE)
                    .idle_timeout(IDLE)
                    .connect_lazy_with(*options),
            ),
            Target::Sqlite(options) => Self::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(PATIENCE)
                    .idle_timeout(IDLE)
                    .connect_lazy_with(options.read_only(true).create_if_missing(false)),
            ),
        })
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
            .map_err(|_| SqlError::Late(PATIENCE))?
    }

    async fn ask(&self, query: &str, parameters: &[Value]) -> Result<Option<Value>, SqlError> {
        // The text is the author's own, as for any database's client; values go in as parameters.
        let statement = AssertSqlSafe(query.to_owned()).into_sql_str();
        match self {
            Self::Postgres(pool) => {
                let mut tx = pool.begin_with("BEGIN READ ONLY").await?;
                let prepared = (&mut *tx).prepare(statement).await?;
                let arguments = postgres_arguments(&prepared, parameters)?;
                let row = prepared
                    .query_with(arguments)
                    .fetch_optional(&mut *tx)
                    .await?;
                tx.rollback().await?;
                row.filter(|row| !row.is_empty())
                    .map(|row| value::of_postgres(&row, 0))
                    .transpose()
            }
            Self::MySql(pool) => {
                let mut tx = pool.begin_with("START TRANSACTION READ ONLY").await?;
                let mut bound = sqlx::query::<sqlx::MySql>(statement);
                for value in parameters {
                    bound = json_of!(bound, value);
                }
                let row = bound.fetch_optional(&mut *tx).await?;
                tx.rollback().await?;
                row.filter(|row| !row.is_empty())
                    .map(|row| value::of_mysql(&row, 0))
                    .transpose()
            }
            Self::Sqlite(pool) => {
                let mut bound = sqlx::query::<sqlx::Sqlite>(statement);
                for value in parameters {
                    bound = json_of!(bound, value);
                }
                let row = bound.fetch_optional(pool).await?;
                row.filter(|row| !row.is_empty())
                    .map(|row| value::of_sqlite(&row, 0))
                    .transpose()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

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
        assert!(of(json!({"conn_type": "oracle", "host": "x"})).contains("oracle"));
        assert!(of(json!({"conn_type": "postgres"})).contains("host"));
        assert!(of(json!({"conn_type": "sqlite"})).contains("path"));
    }
}
