//! The JSON of records: Airflow's keys with Airflow's types (its clients are strict), and a few of our own beside them.

pub(crate) mod approval;
pub(crate) mod dag;
pub(crate) mod run;
pub(crate) mod task_instance;

use chrono::{DateTime, SecondsFormat, Utc};
use gristmill_common::span::Span;
use gristmill_store::VersionRow;
use serde_json::{Value, json};

/// A time as Airflow's API writes it.
pub(crate) fn time(at: DateTime<Utc>) -> Value {
    at.to_rfc3339_opts(SecondsFormat::Micros, true).into()
}

pub(crate) fn time_or_null(at: Option<DateTime<Utc>>) -> Value {
    at.map_or(Value::Null, time)
}

/// Seconds between the two; null unless both are there.
pub(crate) fn duration(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> Value {
    match (from, to) {
        (Some(from), Some(to)) => {
            json!((to - from).num_microseconds().unwrap_or(i64::MAX) as f64 / 1e6)
        }
        _ => Value::Null,
    }
}

/// Airflow's `TimeDelta`.
pub(crate) fn time_delta(span: Span) -> Value {
    let ms = span.millis();
    json!({
        "__type": "TimeDelta",
        "days": ms / 86_400_000,
        "seconds": ms / 1000 % 86_400,
        "microseconds": ms % 1000 * 1000,
    })
}

/// `DagVersionResponse`.
pub(crate) fn version(row: &VersionRow) -> Value {
    json!({
        "id": row.id,
        "version_number": row.version_number,
        "dag_id": row.dag_id,
        "dag_display_name": row.dag_id,
        "bundle_name": "dags",
        "bundle_version": row.bundle,
        "bundle_url": null,
        "created_at": time(row.created_at),
    })
}
