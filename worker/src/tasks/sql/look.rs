//! A sensor's look into a database: a query that may read, and nothing else.

use crate::{
    run::Execution,
    tasks::sensor::{Blind, Seen},
};
use gristmill_common::spec::SqlQuery;
use serde_json::Value;

/// A sensor's look: whether the first value of a query's first row is true.
pub(in crate::tasks) async fn look(
    execution: &Execution,
    sensor: &SqlQuery,
) -> Result<Seen, Blind> {
    let context = &execution.context;
    let render = |what: &str, text: &str| {
        context
            .renderer
            .render(text)
            .map(|text| text.trim().to_owned())
            .map_err(|error| Blind::ForGood(format!("sensor.sql.{what}: {error}")))
    };
    let id = render("connection", &sensor.connection)?;
    let query = render("query", &sensor.query)?;
    let parameters = sensor
        .parameters
        .iter()
        .map(|value| context.renderer.render_value(value))
        .collect::<Result<Vec<Value>, _>>()
        .map_err(|error| Blind::ForGood(format!("sensor.sql.parameters: {error}")))?;
    let connection =
        super::connection(execution, "sensor.sql.connection", &id).map_err(Blind::ForGood)?;
    let databases = &execution.worker.databases;
    let database = databases
        .of(connection)
        .map_err(|error| Blind::ForGood(format!("connection {id:?}: {error}")))?;
    let first = database
        .first_value(&query, &parameters)
        .await
        .map_err(|error| Blind::Failed(format!("sensor.sql on {id}: {error}")))?;
    Ok(match first {
        Some(value) if is_true(&value) => Seen::Found {
            note: format!("the query on {id} gave {value}"),
            value,
        },
        Some(value) => Seen::NotYet(format!("the query on {id} gave {value}")),
        None => Seen::NotYet(format!("the query on {id} gave no row")),
    })
}

/// As in Airflow: neither null, 0, false, `"0"` nor an empty text.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.as_str(), "" | "0"),
        Value::Array(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_true() {
        for value in [json!(true), json!(1), json!(-0.5), json!("no"), json!([])] {
            assert!(is_true(&value), "{value}");
        }
        for value in [
            json!(null),
            json!(false),
            json!(0),
            json!(0.0),
            json!(""),
            json!("0"),
        ] {
            assert!(!is_true(&value), "{value}");
        }
    }
}
