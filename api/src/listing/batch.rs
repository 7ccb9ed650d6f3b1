//! `POST …/list`: what other listings have in their query, in a body.

use super::Kind;
use crate::{
    error::{ApiError, FieldError},
    extract::Query,
};
use serde_json::{Map, Value};

/// What a key of the body may hold; null is as good as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    Texts,
    /// Texts, in which null is the state before the first.
    States,
    Number,
    Whole,
}

/// Keys that every such body has.
const PAGE: [(&str, &str, Shape); 3] = [
    ("page_limit", "limit", Shape::Whole),
    ("page_offset", "offset", Shape::Whole),
    ("order_by", "order_by", Shape::Text),
];
/// Rows of a page unless the body says otherwise: more than of a query's.
const ROWS: &str = "100";

/// The query that asks for the same. `keys`: of the body, of the query, and what the body may hold there.
pub(crate) fn query<F>(
    body: Map<String, Value>,
    keys: &[(&str, &str, Shape)],
    ranges: &[(&str, F, Kind)],
) -> Result<Query, ApiError> {
    let mut pairs = Vec::new();
    let mut errors = Vec::new();
    for (key, value) in body {
        let known = keys.iter().chain(&PAGE).find(|(name, ..)| *name == key);
        let (to, shape) = match known {
            Some((_, to, shape)) => ((*to).to_owned(), *shape),
            None => match range_of(&key, ranges) {
                Some(shape) => (key.clone(), shape),
                None => {
                    let msg = "Extra inputs are not permitted";
                    errors.push(wrong("extra_forbidden", &key, msg, value));
                    continue;
                }
            },
        };
        match shape.texts(&value) {
            Some(texts) => pairs.extend(texts.into_iter().map(|text| (to.clone(), text))),
            None => errors.push(wrong("type_error", &key, shape.expected(), value)),
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::Unprocessable(errors));
    }
    if !pairs.iter().any(|(name, _)| name == "limit") {
        pairs.push(("limit".to_owned(), ROWS.to_owned()));
    }
    if let Some((name, value)) = pairs.iter().find(|(_, value)| value.contains('\0')) {
        let msg = "Input should be without NUL characters".to_owned();
        return Err(ApiError::field(FieldError::body(
            name,
            msg,
            value.as_str().into(),
        )));
    }
    Ok(Query::from_pairs(pairs))
}

fn range_of<F>(key: &str, ranges: &[(&str, F, Kind)]) -> Option<Shape> {
    let (name, ending) = key.rsplit_once('_')?;
    if !["gte", "gt", "lte", "lt"].contains(&ending) {
        return None;
    }
    let (.., kind) = ranges.iter().find(|(known, ..)| *known == name)?;
    Some(match kind {
        Kind::Time => Shape::Text,
        Kind::Seconds => Shape::Number,
    })
}

fn wrong(kind: &'static str, key: &str, msg: &str, input: Value) -> FieldError {
    FieldError {
        kind,
        loc: vec!["body".into(), key.into()],
        msg: msg.to_owned(),
        input,
    }
}

impl Shape {
    fn expected(self) -> &'static str {
        match self {
            Self::Text => "Input should be a valid string",
            Self::Texts => "Input should be a valid list of strings",
            Self::States => "Input should be a valid list of states",
            Self::Number => "Input should be a valid number",
            Self::Whole => "Input should be a valid integer",
        }
    }

    fn texts(self, value: &Value) -> Option<Vec<String>> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match (self, value) {
            (_, Value::Null) => Some(Vec::new()),
            (Self::Text, value) => text(value).map(|text| vec![text]),
            (Self::Texts, Value::Array(all)) => all.iter().map(text).collect(),
            (Self::States, Value::Array(all)) => all
                .iter()
                .map(|state| match state {
                    Value::Null => Some("none".to_owned()),
                    other => text(other),
                })
                .collect(),
            (Self::Number, Value::Number(number)) => Some(vec![number.to_string()]),
            (Self::Whole, Value::Number(number)) if number.is_i64() => {
                Some(vec![number.to_string()])
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(body: Value) -> Result<Query, ApiError> {
        let Value::Object(body) = body else {
            panic!("{body}")
        };
        let keys = [
            ("dag_ids", "dag_ids", Shape::Texts),
            ("states", "state", Shape::States),
        ];
        query(body, &keys, &[("duration", (), Kind::Seconds)])
    }

    #[test]
    fn a_body_becomes_a_query() {
        let query = of(
            json!({ "dag_ids": ["a", "b"], "states": [null, "failed"], "page_limit": 3,
            "order_by": null, "duration_gte": 0.5 }),
        )
        .unwrap();
        assert_eq!(query.all("dag_ids"), ["a", "b"]);
        assert_eq!(query.all("state"), ["none", "failed"]);
        assert_eq!(query.text("limit"), Some("3"));
        assert_eq!(query.text("duration_gte"), Some("0.5"));
        assert_eq!(of(json!({})).unwrap().text("limit"), Some("100"));
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let Err(ApiError::Unprocessable(errors)) =
            of(json!({ "dag_ids": "a", "limit": 3, "page_limit": "3", "start_date_gte": "x" }))
        else {
            panic!("it was taken");
        };
        let places: Vec<Value> = errors.iter().map(|e| json!([e.kind, e.loc[1]])).collect();
        assert_eq!(errors.len(), 4, "{places:?}");
        assert!(places.contains(&json!(["extra_forbidden", "start_date_gte"])));
        assert!(places.contains(&json!(["type_error", "dag_ids"])));
    }
}
