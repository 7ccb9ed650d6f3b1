//! One delivery of a callback.

use crate::SchedulerHandle;
use chrono::TimeDelta;
use gristmill_common::callback::Webhook;
use gristmill_store::{CallRow, CallState, Delivery};
use reqwest::{Client, Method, RequestBuilder, redirect::Policy};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use url::Url;

/// A delivery takes no longer, whatever its callback says.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// The wait after the first failure; it doubles.
const FIRST_WAIT: TimeDelta = TimeDelta::seconds(5);
const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(10);
/// Of an answer that is no success: so many characters are kept.
const SHOWN: usize = 200;

pub(super) struct Deliverer {
    handle: Arc<SchedulerHandle>,
    client: Client,
}

/// An answer, or why there is none.
struct Failure {
    reason: String,
    status: Option<u16>,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self {
            reason,
            status: None,
        }
    }
}

impl Deliverer {
    pub(super) fn new(handle: Arc<SchedulerHandle>) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(LONGEST)
            // Where it is sent is what its author named, and nowhere else.
            .redirect(Policy::none())
            .pool_max_idle_per_host(4)
            .user_agent(concat!("gristmill/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { handle, client })
    }

    pub(super) async fn deliver(&self, call: &CallRow) -> Delivery {
        let outcome = match &call.webhook {
            Some(webhook) => self.send(call, webhook).await,
            None => Err("it could not be made".to_owned().into()),
        };
        let done = |state, error: Option<String>, status: Option<u16>| Delivery {
            id: call.id,
            attempts: call.attempts,
            state,
            next_at: None,
            error,
            status: status.map(i32::from),
        };
        let failure = match outcome {
            Ok(status) => return done(CallState::Delivered, None, Some(status)),
            Err(failure) => failure,
        };
        let next_at = self.handle.store.now() + wait(call);
        if next_at > call.give_up_at {
            tracing::warn!(
                callback = call.id, dag = call.dag_id, run = call.run_id, event = %call.event, target = call.target,
                attempts = call.attempts, error = failure.reason, "a callback is given up"
            );
            let reason = format!(
                "given up after {} attempts: {}",
                call.attempts, failure.reason
            );
            return done(CallState::Failed, Some(reason), failure.status);
        }
        tracing::info!(
            callback = call.id, dag = call.dag_id, event = %call.event, target = call.target, attempts = call.attempts,
            error = failure.reason, "a callback was not delivered; it will be tried again"
        );
        Delivery {
            next_at: Some(next_at),
            ..done(CallState::Pending, Some(failure.reason), failure.status)
        }
    }

    async fn send(&self, call: &CallRow, webhook: &Webhook) -> Result<u16, Failure> {
        let connection = match &webhook.connection {
            None => None,
            Some(id) => Some(self.connection(id).await?),
        };
        let url = url_of(webhook, connection.as_ref())?;
        let method = Method::from_bytes(webhook.method.as_bytes())
            .map_err(|_| format!("{:?} is no HTTP method", webhook.method))?;
        let timeout = u64::try_from(webhook.timeout_ms).unwrap_or_default();
        let mut request = self
            .client
            .request(method, url)
            .timeout(Duration::from_millis(timeout).clamp(Duration::from_millis(1), LONGEST))
            // The same for every delivery of it: whoever minds a second one can tell.
            .header("idempotency-key", format!("gristmill-callback-{}", call.id));
        for (name, value) in &webhook.headers {
            request = request.header(name, value);
        }
        let request = authenticate(request, connection.as_ref());
        let answer = request.json(&call.body).send().await;
        let answer =
            answer.map_err(|error| format!("no answer: {}", chain(&error.without_url())))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(status.as_u16());
        }
        let text = beginning(answer).await;
        Err(Failure {
            reason: format!("answered {status}: {}", masked(text, connection.as_ref())),
            status: Some(status.as_u16()),
        })
    }

    async fn connection(&self, id: &str) -> Result<Value, String> {
        let found = self.handle.store.secret("connection", id).await;
        let sealed = found
            .map_err(|error| format!("connection {id:?}: {error}"))?
            .ok_or_else(|| {
                format!(
                    "there is no connection {id:?}; make it with `gristmill connections set {id} …`"
                )
            })?
            .0;
        let opened = self.handle.secret.open(&sealed);
        let text = opened.map_err(|error| format!("connection {id:?}: {error}"))?;
        serde_json::from_slice(&text).map_err(|_| format!("connection {id:?} is not readable"))
    }
}

/// How long after a failed delivery the next is made: doubling, and spread by the call's id.
fn wait(call: &CallRow) -> TimeDelta {
    let doublings = u32::try_from(call.attempts - 1).unwrap_or(0).min(20);
    let wait = FIRST_WAIT
        .checked_mul(1 << doublings)
        .map_or(LONGEST_WAIT, |wait| wait.min(LONGEST_WAIT));
    // Up to a fifth more.
    wait + wait * i32::try_from(call.id % 21).unwrap_or(0) / 100
}

fn text<'c>(connection: Option<&'c Value>, path: &[&str]) -> Option<&'c str> {
    path.iter()
        .try_fold(connection?, |value, key| value.get(key))?
        .as_str()
        .filter(|text| !text.is_empty())
}

fn url_of(webhook: &Webhook, connection: Option<&Value>) -> Result<Url, String> {
    let parsed = |url: &str| {
        let url = Url::parse(url).map_err(|error| format!("the webhook's URL: {error}"))?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            other => Err(format!(
                "the webhook's URL is of {other}, not http or https"
            )),
        }
    };
    let path = match &webhook.url {
        Some(url) if url.contains("://") => return parsed(url),
        Some(path) => path.as_str(),
        None => match text(connection, &["extra", "url"]) {
            Some(url) => return parsed(url),
            None => "",
        },
    };
    let host = text(connection, &["host"]).ok_or(
        "the webhook has no absolute URL, and its connection has neither extra.url nor a host",
    )?;
    let mut base = match host.contains("://") {
        true => parsed(host)?,
        false => {
            let scheme = text(connection, &["schema"]).unwrap_or("https");
            parsed(&format!("{scheme}://{host}"))?
        }
    };
    let port = connection
        .and_then(|c| c.get("port"))
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok());
    if let Some(port) = port {
        base.set_port(Some(port))
            .map_err(|()| format!("the connection's port {port} cannot be set"))?;
    }
    match path {
        "" => Ok(base),
        path => base
            .join(path)
            .map_err(|error| format!("the webhook {path:?}: {error}")),
    }
}

fn authenticate(request: RequestBuilder, connection: Option<&Value>) -> RequestBuilder {
    if let Some(token) = text(connection, &["extra", "token"]) {
        return request.bearer_auth(token);
    }
    match text(connection, &["login"]) {
        Some(login) => request.basic_auth(login, text(connection, &["password"])),
        None => request,
    }
}

/// The beginning of an answer; the rest is not read.
async fn beginning(mut answer: reqwest::Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > 4 * SHOWN {
            break;
        }
    }
    String::from_utf8_lossy(&body).chars().take(SHOWN).collect()
}

/// A server may echo what it was sent.
fn masked(mut shown: String, connection: Option<&Value>) -> String {
    for path in [&["password"][..], &["extra", "token"]] {
        if let Some(secret) = text(connection, path) {
            shown = shown.replace(secret, "***");
        }
    }
    shown
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn webhook(url: Option<&str>) -> Webhook {
        serde_json::from_value(json!({"url": url, "method": "POST", "timeout_ms": 1000})).unwrap()
    }

    #[test]
    fn urls_come_from_the_callback_or_its_connection() {
        let of = |url, connection: Value| {
            url_of(&webhook(url), Some(&connection)).map(|url| url.to_string())
        };
        let host = json!({"host": "h", "schema": "http", "port": 81});
        assert_eq!(
            of(Some("/x?y=1"), host.clone()).unwrap(),
            "http://h:81/x?y=1"
        );
        assert_eq!(of(None, host).unwrap(), "http://h:81/");
        let whole = json!({"host": "h", "extra": {"url": "https://hooks.example/T/B/secret"}});
        assert_eq!(
            of(None, whole.clone()).unwrap(),
            "https://hooks.example/T/B/secret"
        );
        assert_eq!(of(Some("https://other/"), whole).unwrap(), "https://other/");
        let error = of(Some("file:///etc/passwd"), json!({})).unwrap_err();
        assert!(error.contains("not http"), "{error}");
        assert!(
            of(Some("x"), json!({}))
                .unwrap_err()
                .contains("no absolute URL")
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let connection = json!({"password": "p4ss", "extra": {"token": "t0ken"}});
        let shown = masked("no p4ss and t0ken".to_owned(), Some(&connection));
        assert_eq!(shown, "no *** and ***");
    }
}
