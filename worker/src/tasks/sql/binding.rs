//! JSON values as parameters of statements.
//!
//! PostgreSQL says which types a statement's parameters have, so that a text can stand for a date there. The others take
//! what they get.

use super::{SqlError, value::Numeric};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use gristmill_common::timetable::parse_date;
use serde_json::Value;
use sqlx::{
    Either, Encode, Postgres, Statement, Type, TypeInfo,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgStatement, PgTypeInfo},
    types::Json,
};

/// Binds a JSON value as what it is: of databases that do not say what they want.
macro_rules! json_of {
    ($query:expr, $value:expr) => {
        match $value {
            serde_json::Value::Null => $query.bind(None::<String>),
            serde_json::Value::Bool(truth) => $query.bind(*truth),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(whole) => $query.bind(whole),
                None => $query.bind(number.as_f64()),
            },
            serde_json::Value::String(text) => $query.bind(text.clone()),
            other => $query.bind(other.to_string()),
        }
    };
}
pub(super) use json_of;

/// A value in the form that most types of PostgreSQL take: enumerations and all kinds of text.
struct Text {
    kind: PgTypeInfo,
    text: Option<String>,
}

impl Type<Postgres> for Text {
    fn type_info() -> PgTypeInfo {
        <String as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Text {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match &self.text {
            Some(text) => <&str as Encode<'_, Postgres>>::encode_by_ref(&text.as_str(), buffer),
            None => Ok(IsNull::Yes),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.kind.clone())
    }
}

/// Values as the types that a statement's parameters have.
pub(super) fn postgres_arguments(
    statement: &PgStatement,
    values: &[Value],
) -> Result<PgArguments, SqlError> {
    let kinds = match statement.parameters() {
        Some(Either::Left(kinds)) => kinds,
        _ => &[],
    };
    if kinds.len() != values.len() {
        let message = format!(
            "the statement binds {} parameters, and {} are given",
            kinds.len(),
            values.len()
        );
        return Err(SqlError::Query(sqlx::Error::Protocol(message)));
    }
    let mut arguments = PgArguments::default();
    for (i, (kind, value)) in kinds.iter().zip(values).enumerate() {
        add(&mut arguments, kind, value).ok_or_else(|| SqlError::Parameter {
            at: i + 1,
            kind: kind.name().to_ascii_lowercase(),
            value: shortened(value),
        })?;
    }
    Ok(arguments)
}

fn add(arguments: &mut PgArguments, kind: &PgTypeInfo, value: &Value) -> Option<()> {
    use sqlx::Arguments;
    if value.is_null() {
        let kind = kind.clone();
        return arguments.add(Text { kind, text: None }).ok();
    }
    let text = || match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let whole = || value.as_i64().or_else(|| text().trim().parse().ok());
    let float = || value.as_f64().or_else(|| text().trim().parse().ok());
    match kind.name() {
        "BOOL" => arguments.add(value.as_bool().or_else(|| text().parse().ok())?),
        "INT2" => arguments.add(i16::try_from(whole()?).ok()?),
        "INT4" => arguments.add(i32::try_from(whole()?).ok()?),
        "INT8" => arguments.add(whole()?),
        "FLOAT4" => arguments.add(float()? as f32),
        "FLOAT8" => arguments.add(float()?),
        "DATE" => arguments.add(date(&text())?),
        "TIME" => arguments.add(text().parse::<NaiveTime>().ok()?),
        "TIMESTAMP" => arguments.add(local(&text())?),
        "TIMESTAMPTZ" => arguments.add(instant(&text())?),
        "UUID" => arguments.add(text().parse::<uuid::Uuid>().ok()?),
        "JSON" | "JSONB" => arguments.add(Json(value.clone())),
        "NUMERIC" => {
            let text = match value.as_f64().filter(|_| value.is_f64()) {
                // Without an exponent, unlike in JSON.
                Some(float) => float.to_string(),
                None => text(),
            };
            arguments.add(Numeric::parse(&text)?)
        }
        "TEXT[]" | "VARCHAR[]" => arguments.add(items(value, |item| match item {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })?),
        "INT4[]" => arguments.add(items(value, |item| i32::try_from(item.as_i64()?).ok())?),
        "INT8[]" => arguments.add(items(value, Value::as_i64)?),
        _ => arguments.add(Text {
            kind: kind.clone(),
            text: Some(text()),
        }),
    }
    .ok()
}

fn items<T>(value: &Value, item: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(item).collect()
}

/// Of a time, its day in UTC.
fn date(text: &str) -> Option<NaiveDate> {
    text.parse()
        .ok()
        .or_else(|| instant(text).map(|at| at.date_naive()))
}

fn instant(text: &str) -> Option<DateTime<Utc>> {
    parse_date(text, chrono_tz::UTC)
}

/// A time without a zone; one with a zone is taken in UTC.
fn local(text: &str) -> Option<NaiveDateTime> {
    instant(text).map(|at| at.naive_utc())
}

/// For messages.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
