//! Values of databases as JSON.

use super::database::SqlError;
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde_json::{Value, json};
use sqlx::{Row, TypeInfo, ValueRef, postgres::PgRow, sqlite::SqliteRow};

/// The first value of a row.
pub(super) fn of_postgres(row: &PgRow) -> Result<Value, SqlError> {
    let raw = row.try_get_raw(0)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "BOOL" => json!(row.try_get::<bool, _>(0)?),
        "INT2" => json!(row.try_get::<i16, _>(0)?),
        "INT4" => json!(row.try_get::<i32, _>(0)?),
        "INT8" => json!(row.try_get::<i64, _>(0)?),
        "FLOAT4" => json!(row.try_get::<f32, _>(0)?),
        "FLOAT8" => json!(row.try_get::<f64, _>(0)?),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" => json!(row.try_get::<String, _>(0)?),
        "DATE" => json!(row.try_get::<NaiveDate, _>(0)?),
        "TIMESTAMP" => json!(row.try_get::<NaiveDateTime, _>(0)?),
        "TIMESTAMPTZ" => json!(row.try_get::<DateTime<Utc>, _>(0)?),
        "JSON" | "JSONB" => row.try_get::<Value, _>(0)?,
        _ => return Err(SqlError::Type(kind)),
    })
}

/// The first value of a row.
pub(super) fn of_sqlite(row: &SqliteRow) -> Result<Value, SqlError> {
    let raw = row.try_get_raw(0)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    // By what the value is, not by what its column was declared as: SQLite holds any in any.
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INTEGER" | "BOOLEAN" => json!(row.try_get_unchecked::<i64, _>(0)?),
        "REAL" => json!(row.try_get_unchecked::<f64, _>(0)?),
        "BLOB" => return Err(SqlError::Type(kind)),
        _ => json!(row.try_get_unchecked::<String, _>(0)?),
    })
}
