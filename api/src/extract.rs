//! Bodies and queries of requests, with errors that name the place.

use crate::error::{ApiError, FieldError};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{fmt::Display, str::FromStr};

/// Most rows of one page.
pub(crate) const MAX_PAGE: i64 = 1000;
/// Rows of a page unless the request says otherwise.
pub(crate) const PAGE: i64 = 50;

/// A JSON body. Unlike axum's own it does not mind a missing content type, and an empty body is `{}`.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        must_be_json(request.headers())?;
        parse_json(&raw_body(request, state).await?).map(Self)
    }
}

/// Refuses a body that says that it is something else than JSON.
pub(crate) fn must_be_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    Err(ApiError::UnsupportedMedia(format!(
        "the body is {essence:?}; send JSON, with Content-Type: application/json"
    )))
}

/// A request's whole body, bounded by the route's limit.
pub(crate) async fn raw_body<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state)
        .await
        .map_err(|rejection| {
            let text = rejection.body_text();
            match rejection.status() {
                axum::http::StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(
                    "the request's body is larger than this operation takes".to_owned(),
                ),
                _ => ApiError::BadRequest(text),
            }
        })
}

/// Reads JSON; what does not fit is told with its path.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    // First as any JSON: a syntax error is another matter than a wrong type.
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        ApiError::Unprocessable(vec![FieldError {
            kind: "json_invalid",
            loc: vec!["body".into(), error.column().into()],
            msg: format!("JSON decode error: {error}"),
            input: json!({}),
        }])
    })?;
    from_value(value)
}

/// Reads what was parsed already.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(&value).map_err(|error| {
        let mut loc: Vec<Value> = vec!["body".into()];
        for segment in error.path() {
            use serde_path_to_error::Segment;
            match segment {
                Segment::Seq { index } => loc.push((*index).into()),
                Segment::Map { key } => loc.push(key.as_str().into()),
                Segment::Enum { variant } => loc.push(variant.as_str().into()),
                Segment::Unknown => {}
            }
        }
        let msg = error.inner().to_string();
        let kind = if msg.starts_with("unknown field") {
            "extra_forbidden"
        } else if msg.starts_with("missing field") {
            "missing"
        } else {
            "type_error"
        };
        if let (true, Some(name)) = (kind == "missing", msg.split('`').nth(1)) {
            loc.push(name.into());
        }
        let input = input_at(&value, &loc).cloned().unwrap_or(Value::Null);
        ApiError::field(FieldError {
            kind,
            loc,
            msg,
            input,
        })
    })
}

fn input_at<'a>(value: &'a Value, loc: &[Value]) -> Option<&'a Value> {
    loc.iter().skip(1).try_fold(value, |at, step| match step {
        Value::String(key) => at.get(key),
        other => at.get(usize::try_from(other.as_u64()?).ok()?),
    })
}

/// The query's pairs, in order; a name may come several times.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Self::of(parts.uri.query().unwrap_or_default());
        match query.0.iter().find(|(_, value)| value.contains('\0')) {
            None => Ok(query),
            Some((name, value)) => {
                let msg = "Input should be without NUL characters".to_owned();
                Err(ApiError::field(FieldError::query(name, msg, value)))
            }
        }
    }
}

impl Query {
    /// Of a query string.
    pub(crate) fn of(query: &str) -> Self {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// Of names and values: a body that asks for what another operation has in its query.
    pub(crate) fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// What stands here under a prefix, without it.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Self {
        let pairs = self.0.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(prefix)?;
            Some((name.to_owned(), value.clone()))
        });
        Self(pairs.collect())
    }

    /// The value of a name, which may be empty.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a name, as numbers.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<i64>, ApiError> {
        self.all(name)
            .into_iter()
            .map(|text| {
                text.parse().map_err(|_| {
                    let msg = "Input should be a valid integer".to_owned();
                    ApiError::field(FieldError::query(name, msg, &text))
                })
            })
            .collect()
    }

    /// The value of a name; an empty one is as good as none.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// The value of a name as a number or the like.
    pub(crate) fn parse<T: FromStr<Err: Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|error: T::Err| {
                    ApiError::field(FieldError::query(name, error.to_string(), text))
                })
            })
            .transpose()
    }

    /// A yes or no; also `1`, `0`, `True`, `False`, as clients in Python write them.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes") => Ok(Some(true)),
            Some("false" | "0" | "no") => Ok(Some(false)),
            Some(other) => Err(ApiError::field(FieldError::query(
                name,
                "expected true or false".to_owned(),
                other,
            ))),
        }
    }

    /// States, each of which `known` must accept. `none` and `no_status` mean the state before the first.
    pub(crate) fn states(&self, name: &str, known: &[&str]) -> Result<Vec<String>, ApiError> {
        self.all(name)
            .into_iter()
            .map(|state| {
                let state = if state == "no_status" {
                    "none".to_owned()
                } else {
                    state
                };
                if known.contains(&state.as_str()) {
                    Ok(state)
                } else {
                    let msg = format!(
                        "Invalid value for state. Valid values are {}",
                        known.join(", ")
                    );
                    Err(ApiError::field(FieldError::query(name, msg, &state)))
                }
            })
            .collect()
    }

    /// Refuses filters that Airflow has and this version has not: to leave one out would answer with what was not asked
    /// for.
    pub(crate) fn refuse(&self, names: &[&str]) -> Result<(), ApiError> {
        match names.iter().find(|name| self.text(name).is_some()) {
            None => Ok(()),
            Some(name) => Err(ApiError::NotYet(format!(
                "this version cannot filter by {name:?}; leave it out"
            ))),
        }
    }

    /// Whether an update's field is among those of `update_mask`; without a mask all are.
    pub(crate) fn masks(&self, field: &str) -> bool {
        let mask = self.all("update_mask");
        mask.is_empty() || mask.iter().any(|name| name == field)
    }

    /// `limit` and `offset`.
    pub(crate) fn page(&self) -> Result<(i64, i64), ApiError> {
        let number = |name: &str, default: i64| -> Result<i64, ApiError> {
            let value = self.parse::<i64>(name)?.unwrap_or(default);
            if value < 0 {
                return Err(ApiError::field(FieldError::query(
                    name,
                    "Input should be greater than or equal to 0".to_owned(),
                    &value.to_string(),
                )));
            }
            Ok(value)
        };
        Ok((number("limit", PAGE)?.min(MAX_PAGE), number("offset", 0)?))
    }
}

/// A path's parameters, percent-decoded; what does not fit is 422 with its name.
#[derive(Debug)]
pub(crate) struct At<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // No name has one, and PostgreSQL keeps none.
        if let Ok(raw) = RawPathParams::from_request_parts(parts, state).await
            && let Some((name, value)) = raw.iter().find(|(_, value)| value.contains('\0'))
        {
            return Err(ApiError::field(FieldError {
                kind: "value_error",
                loc: vec!["path".into(), name.into()],
                msg: "Input should be without NUL characters".to_owned(),
                input: value.into(),
            }));
        }
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::field(FieldError {
                kind: "type_error",
                loc: vec!["path".into()],
                msg: rejection.body_text(),
                input: parts.uri.path().into(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(rename = "conf")]
        _conf: Option<serde_json::Map<String, Value>>,
        #[serde(rename = "list")]
        _list: Option<Vec<i32>>,
    }

    fn loc(text: &str) -> (&'static str, Value) {
        match parse_json::<Sample>(text.as_bytes()) {
            Err(ApiError::Unprocessable(errors)) => (errors[0].kind, json!(errors[0].loc)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_path() {
        assert_eq!(
            loc(r#"{"conf": 3}"#),
            ("type_error", json!(["body", "conf"]))
        );
        assert_eq!(
            loc(r#"{"list": [1, "x"]}"#),
            ("type_error", json!(["body", "list", 1]))
        );
        assert_eq!(loc(r#"{"cnof": {}}"#).0, "extra_forbidden");
        assert_eq!(loc("{").0, "json_invalid");
        assert!(parse_json::<Sample>(b"").is_ok());
    }
}
