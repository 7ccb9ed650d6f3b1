//! From a connection of the deployment to a database's address.

use super::{SqlError, script::Dialect};
use serde_json::Value;
use sqlx::{
    ConnectOptions, mysql::MySqlConnectOptions, postgres::PgConnectOptions,
    sqlite::SqliteConnectOptions,
};
use std::{fmt::Display, str::FromStr};

/// Where a database is, and how to get in.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
    /// May be written to; made if it is not there.
    Sqlite(Box<SqliteConnectOptions>),
}

/// Shown in the list of connections of a server.
const APPLICATION: &str = "gristmill-worker";

impl Target {
    /// Of an opened connection.
    pub(super) fn of(connection: &Value) -> Result<Self, SqlError> {
        let text = |field: &str| filled(connection.get(field));
        let host = || text("host").ok_or(SqlError::Missing("host"));
        let port = match connection.get("port").and_then(Value::as_u64) {
            Some(port) => Some(u16::try_from(port).map_err(unreadable)?),
            None => None,
        };
        let tls = filled(connection.pointer("/extra/sslmode"));
        match text("conn_type").unwrap_or_default() {
            "postgres" | "postgresql" => {
                let mut options = PgConnectOptions::new_without_pgpass()
                    .host(host()?)
                    .application_name(APPLICATION)
                    .disable_statement_logging();
                if let Some(port) = port {
                    options = options.port(port);
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
                if let Some(mode) = tls {
                    options = options.ssl_mode(mode.parse().map_err(unreadable)?);
                }
                Ok(Self::Postgres(Box::new(options)))
            }
            "mysql" | "mariadb" => {
                let mut options = MySqlConnectOptions::new()
                    .host(host()?)
                    .disable_statement_logging();
                if let Some(port) = port {
                    options = options.port(port);
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
                if let Some(mode) = tls {
                    options = options.ssl_mode(mode.parse().map_err(unreadable)?);
                }
                Ok(Self::MySql(Box::new(options)))
            }
            "sqlite" => {
                let path = text("host")
                    .or_else(|| text("schema"))
                    .ok_or(SqlError::Missing("host (the file's path)"))?;
                let options = SqliteConnectOptions::from_str(path)
                    .map_err(unreadable)?
                    .create_if_missing(true)
                    .disable_statement_logging();
                Ok(Self::Sqlite(Box::new(options)))
            }
            other => Err(SqlError::Kind(other.to_owned())),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::MySql(_) => Dialect::MySql,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }
}

fn filled(value: Option<&Value>) -> Option<&str> {
    value
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

fn unreadable(error: impl Display) -> SqlError {
    SqlError::Connection(error.to_string())
}
