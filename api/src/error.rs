//! Every failure of a request, and what it looks like over HTTP: Airflow's `{"detail": …}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gristmill_common::params::ParamViolation;
use gristmill_objects::ObjectError;
use gristmill_presence::PresenceError;
use gristmill_store::StoreError;
use serde::Serialize;
use serde_json::{Value, json};

/// Seconds after which a client should try again when a part is away.
const RETRY_AFTER: u64 = 2;

/// One thing that is wrong with a request's shape, as Airflow's API tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FieldError {
    /// Kind of error: `extra_forbidden`, `missing`, `type_error`, …
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Where: `["body", "conf"]`, `["query", "limit"]`.
    pub(crate) loc: Vec<Value>,
    pub(crate) msg: String,
    pub(crate) input: Value,
}

impl FieldError {
    pub(crate) fn query(name: &str, msg: String, input: &str) -> Self {
        Self {
            kind: "value_error",
            loc: vec!["query".into(), name.into()],
            msg,
            input: input.into(),
        }
    }

    pub(crate) fn body(field: &str, msg: String, input: Value) -> Self {
        Self {
            kind: "value_error",
            loc: vec!["body".into(), field.into()],
            msg,
            input,
        }
    }
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{0}")]
    NotAuthenticated(&'static str),
    #[error("Forbidden")]
    Forbidden,
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    BadRequest(String),
    #[error("the DAG's parameters do not fit their schemas")]
    BadParams(Vec<ParamViolation>),
    #[error("{0}")]
    Conflict(String),
    /// A name is taken: Airflow's shape of a unique key's violation.
    #[error("{0}")]
    Exists(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("the request has not the expected shape")]
    Unprocessable(Vec<FieldError>),
    #[error("{0}")]
    UnsupportedMedia(String),
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    #[error("too many attempts; try again in {retry_after} s")]
    TooMany { retry_after: u64 },
    /// The API has it, this version does not do it.
    #[error("{0}")]
    NotYet(String),
    /// A part of the deployment is away.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    pub(crate) fn field(error: FieldError) -> Self {
        Self::Unprocessable(vec![error])
    }

    pub(crate) fn no_dag(dag_id: &str) -> Self {
        Self::NotFound(format!("Dag with dag_id: '{dag_id}' not found"))
    }

    pub(crate) fn no_run(dag_id: &str, run_id: &str) -> Self {
        Self::NotFound(format!(
            "The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found"
        ))
    }

    /// What is wrong, in one text or as Airflow's list of it.
    pub(crate) fn detail(&self) -> Value {
        self.body()["detail"].take()
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotAuthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::BadRequest(_) | Self::BadParams(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) | Self::Exists(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotYet(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn body(&self) -> Value {
        match self {
            Self::Unprocessable(errors) => json!({ "detail": errors }),
            Self::BadParams(violations) => {
                let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
                json!({ "detail": texts.join("; "), "violations": violations })
            }
            Self::Exists(message) => json!({ "detail": {
                "reason": "Unique constraint violation",
                "statement": "hidden",
                "orig_error": "hidden",
                "message": message,
            }}),
            // What broke inside is for the log; it may hold what the caller must not see.
            Self::Internal(_) => json!({ "detail": "Internal Server Error" }),
            other => json!({ "detail": other.to_string() }),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match &self {
            Self::Internal(reason) => tracing::error!(reason, "a request failed"),
            Self::Unavailable(reason) => tracing::warn!(reason, "a part is away"),
            _ => {}
        }
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self {
            Self::NotAuthenticated(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Unavailable(_) => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER.into());
            }
            Self::TooMany { retry_after } => {
                headers.insert(header::RETRY_AFTER, retry_after.into());
            }
            _ => {}
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::Unavailable(_) | StoreError::Schema { .. } => Self::Unavailable(text),
            StoreError::Conflict(_) => {
                Self::Unavailable(format!("the database is too busy with this record: {text}"))
            }
            StoreError::Exists { .. } => Self::Exists(text),
            StoreError::NotFound { .. } => Self::NotFound(text),
            StoreError::Refused(_) => Self::Conflict(text),
            StoreError::Corrupt(_) | StoreError::Other(_) => Self::Internal(text),
        }
    }
}

impl From<PresenceError> for ApiError {
    fn from(error: PresenceError) -> Self {
        let text = error.to_string();
        if error.is_unavailable() {
            Self::Unavailable(text)
        } else {
            Self::Internal(text)
        }
    }
}

impl From<ObjectError> for ApiError {
    fn from(error: ObjectError) -> Self {
        if error.is_not_found() {
            Self::NotFound(error.to_string())
        } else {
            Self::Unavailable(error.to_string())
        }
    }
}
