//! Values of databases as JSON.

mod numeric;

pub(super) use numeric::Numeric;

use super::SqlError;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde_json::{Map, Value, json};
use sqlx::{
    Column, ColumnIndex, Row, TypeInfo, ValueRef,
    mysql::MySqlRow,
    postgres::{PgRow, PgTypeKind},
    sqlite::SqliteRow,
};

/// A row as a mapping from columns to values, each read by `value`.
pub(super) fn mapping<R: Row>(
    row: &R,
    value: impl Fn(&R, usize) -> Result<Value, SqlError>,
) -> Result<Map<String, Value>, SqlError>
where
    usize: ColumnIndex<R>,
{
    let mut mapping = Map::new();
    for column in row.columns() {
        let name = column.name().to_owned();
        if mapping
            .insert(name, value(row, column.ordinal())?)
            .is_some()
        {
            return Err(SqlError::SameName(column.name().to_owned()));
        }
    }
    Ok(mapping)
}

fn unread<R: Row>(row: &R, at: usize, kind: &str) -> SqlError
where
    usize: ColumnIndex<R>,
{
    SqlError::Type {
        column: row.column(at).name().to_owned(),
        kind: kind.to_ascii_lowercase(),
    }
}

pub(super) fn of_postgres(row: &PgRow, at: usize) -> Result<Value, SqlError> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().into_owned();
    Ok(match kind.name() {
        "BOOL" => json!(row.try_get::<bool, _>(at)?),
        "INT2" => json!(row.try_get::<i16, _>(at)?),
        "INT4" => json!(row.try_get::<i32, _>(at)?),
        "INT8" => json!(row.try_get::<i64, _>(at)?),
        "FLOAT4" => json!(row.try_get::<f32, _>(at)?),
        "FLOAT8" => json!(row.try_get::<f64, _>(at)?),
        "NUMERIC" => row.try_get::<Numeric, _>(at)?.json(),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" => json!(row.try_get::<String, _>(at)?),
        "DATE" => json!(row.try_get::<NaiveDate, _>(at)?),
        "TIME" => json!(row.try_get::<NaiveTime, _>(at)?),
        "TIMESTAMP" => json!(row.try_get::<NaiveDateTime, _>(at)?),
        "TIMESTAMPTZ" => json!(row.try_get::<DateTime<Utc>, _>(at)?),
        "UUID" => json!(row.try_get::<uuid::Uuid, _>(at)?),
        "JSON" | "JSONB" => row.try_get::<Value, _>(at)?,
        "TEXT[]" | "VARCHAR[]" => json!(row.try_get::<Vec<Option<String>>, _>(at)?),
        "INT4[]" => json!(row.try_get::<Vec<Option<i32>>, _>(at)?),
        "INT8[]" => json!(row.try_get::<Vec<Option<i64>>, _>(at)?),
        "VOID" => Value::Null,
        _ if matches!(kind.kind(), PgTypeKind::Enum(_)) => {
            json!(raw.as_str().map_err(sqlx::Error::Decode)?)
        }
        name => return Err(unread(row, at, name)),
    })
}

pub(super) fn of_mysql(row: &MySqlRow, at: usize) -> Result<Value, SqlError> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => {
            json!(row.try_get_unchecked::<i64, _>(at)?)
        }
        "TINYINT UNSIGNED" | "SMALLINT UNSIGNED" | "MEDIUMINT UNSIGNED" | "INT UNSIGNED"
        | "BIGINT UNSIGNED" | "YEAR" => json!(row.try_get_unchecked::<u64, _>(at)?),
        "FLOAT" => json!(row.try_get::<f32, _>(at)?),
        "DOUBLE" => json!(row.try_get::<f64, _>(at)?),
        "DECIMAL" => Numeric(row.try_get_unchecked::<String, _>(at)?).json(),
        "CHAR" | "VARCHAR" | "TINYTEXT" | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" | "ENUM" | "SET" => {
            json!(row.try_get_unchecked::<String, _>(at)?)
        }
        "DATE" => json!(row.try_get::<NaiveDate, _>(at)?),
        "TIME" => json!(row.try_get::<NaiveTime, _>(at)?),
        "DATETIME" => json!(row.try_get::<NaiveDateTime, _>(at)?),
        "TIMESTAMP" => json!(row.try_get::<DateTime<Utc>, _>(at)?),
        "JSON" => row.try_get::<Value, _>(at)?,
        name => return Err(unread(row, at, name)),
    })
}

pub(super) fn of_sqlite(row: &SqliteRow, at: usize) -> Result<Value, SqlError> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    // By what the value is, not by what its column was declared as: SQLite holds any in any.
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INTEGER" | "BOOLEAN" => json!(row.try_get_unchecked::<i64, _>(at)?),
        "REAL" => json!(row.try_get_unchecked::<f64, _>(at)?),
        "BLOB" => return Err(unread(row, at, &kind)),
        _ => json!(row.try_get_unchecked::<String, _>(at)?),
    })
}
