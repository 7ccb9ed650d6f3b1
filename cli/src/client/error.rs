//! What can go wrong between the client and the API.

use reqwest::StatusCode;
use serde_json::Value;
use url::Url;

/// Longest part of an answer that is not ours (a proxy's page) to be shown.
const LONGEST_FOREIGN: usize = 300;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The client's own settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// No connection, or it broke before the answer was complete.
    #[error("cannot reach the API at {url}: {reason}")]
    Unreachable {
        url: Url,
        reason: String,
        /// The request may have arrived: what it asked for may have happened.
        maybe_sent: bool,
    },
    /// Something answers there, but not (or not now) as the API does.
    #[error("the API at {url} answered {status}: {detail}")]
    Server {
        url: Url,
        status: StatusCode,
        detail: String,
    },
    /// The answer cannot be read.
    #[error("the answer of {url} is not one of Gristmill's API: {reason}")]
    Answer { url: Url, reason: String },
    /// A part of an answer has another shape than this client knows.
    #[error(
        "the API gave {what} of another shape than this client knows; are both of one version? {reason}"
    )]
    Shape { what: &'static str, reason: String },
    /// No token, a wrong one, or one that may not do this.
    #[error("{detail}; {hint}")]
    Auth { detail: String, hint: &'static str },
    /// The API understood and said no.
    #[error("{detail}")]
    Rejected {
        status: StatusCode,
        detail: String,
        /// The whole answer, for those that say more than why; `null` if it is no JSON.
        answer: Value,
    },
}

impl ClientError {
    /// The same call may succeed a little later, without anybody having changed anything about it.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Server { .. })
    }

    /// The API knows nothing under this name.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Rejected { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// What was asked for is at odds with how things are, such as cancelling what has ended.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Rejected { status, .. } if *status == StatusCode::CONFLICT)
    }

    pub(super) fn of_transport(url: &Url, error: &reqwest::Error) -> Self {
        Self::Unreachable {
            url: origin(url),
            reason: root_cause(error),
            maybe_sent: !error.is_connect(),
        }
    }

    pub(crate) fn of_status(url: &Url, status: StatusCode, body: &str, had_token: bool) -> Self {
        let detail = detail(status, body);
        match status {
            StatusCode::UNAUTHORIZED if had_token => Self::Auth {
                detail,
                hint: "the token is wrong or has expired: give a valid one as GRISTMILL_TOKEN or --token",
            },
            StatusCode::UNAUTHORIZED => Self::Auth {
                detail,
                hint: "give a token as GRISTMILL_TOKEN, --token or --token-file",
            },
            StatusCode::FORBIDDEN => Self::Auth {
                detail,
                hint: "the token's role does not allow this",
            },
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Self::Server {
                url: origin(url),
                status,
                detail,
            },
            _ if status.is_client_error() => Self::Rejected {
                status,
                detail,
                answer: serde_json::from_str(body).unwrap_or_default(),
            },
            _ => Self::Server {
                url: origin(url),
                status,
                detail,
            },
        }
    }
}

/// The URL without path and query: what a user can check.
fn origin(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_path("");
    url.set_query(None);
    url
}

/// The innermost error: "Connection refused" rather than "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The `detail` of an error answer as text: a string, a list of problems with their places, or an object.
fn detail(status: StatusCode, body: &str) -> String {
    let answer: Option<Value> = serde_json::from_str(body).ok();
    match answer.as_ref().and_then(|answer| answer.get("detail")) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(problems)) => {
            let lines: Vec<String> = problems.iter().map(problem).collect();
            lines.join("\n")
        }
        Some(object @ Value::Object(_)) => problem(object),
        _ if body.trim().is_empty() => status
            .canonical_reason()
            .unwrap_or("an error without a text")
            .to_owned(),
        _ => body.trim().chars().take(LONGEST_FOREIGN).collect(),
    }
}

/// One problem of a list: `body.conf: should be an object`.
fn problem(problem: &Value) -> String {
    let text = ["msg", "message", "reason"]
        .iter()
        .find_map(|key| problem.get(key)?.as_str());
    let place = problem.get("loc").and_then(Value::as_array).map(|parts| {
        let parts: Vec<String> = parts.iter().map(plain).collect();
        parts.join(".")
    });
    match (place, text) {
        (Some(place), Some(text)) if !place.is_empty() => format!("{place}: {text}"),
        (_, Some(text)) => text.to_owned(),
        _ => plain(problem),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        r#"{"detail": "Dag with dag_id: 'x' not found"}"#,
        "Dag with dag_id: 'x' not found"
    )]
    #[case(
        r#"{"detail": [{"loc": ["body", "conf"], "msg": "should be an object", "type": "x"}, {"msg": "two"}]}"#,
        "body.conf: should be an object\ntwo"
    )]
    #[case(
        r#"{"detail": {"reason": "Unique constraint violation", "message": "run a exists"}}"#,
        "run a exists"
    )]
    #[case("<html>bad gateway</html>", "<html>bad gateway</html>")]
    #[case("", "Bad Request")]
    fn details_are_readable(#[case] body: &str, #[case] expected: &str) {
        assert_eq!(detail(StatusCode::BAD_REQUEST, body), expected);
    }

    #[rstest]
    #[case(500, true)]
    #[case(503, true)]
    #[case(429, true)]
    #[case(404, false)]
    #[case(401, false)]
    #[case(409, false)]
    fn what_may_pass_is_transient(#[case] status: u16, #[case] transient: bool) {
        let url = Url::parse("http://127.0.0.1:1/api/v2/dags?x=y").unwrap();
        let error =
            ClientError::of_status(&url, StatusCode::from_u16(status).unwrap(), "{}", false);
        assert_eq!(error.is_transient(), transient, "{error}");
    }
}
