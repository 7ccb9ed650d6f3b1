//! The `http` task: one request, made by the worker itself.

use super::{
    sensor::{Blind, Seen},
    xcom,
};
use crate::run::{Execution, Outcome};
use chrono::Utc;
use futures::StreamExt;
use gristmill_common::{
    message::MAX_XCOM,
    spec::{HttpBody, HttpTask},
};
use reqwest::{
    Client, Method, Request, Response, StatusCode, header::RETRY_AFTER, redirect::Policy,
};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// An answer's body above this fails the attempt.
const LARGEST_ANSWER: usize = MAX_XCOM;
/// A server may ask for no longer pause within an attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: Map<String, Value>,
    retry_after: Option<Duration>,
    text: String,
}

enum Failure {
    /// Worth asking again.
    Again {
        reason: String,
        pause: Option<Duration>,
    },
    Final(String),
    /// An answer of another status than was expected.
    Unexpected {
        status: u16,
        reason: String,
        pause: Option<Duration>,
        worth_asking_again: bool,
    },
}

pub(crate) async fn run(execution: &Execution, task: &HttpTask) -> Outcome {
    execution.report_started(None);
    let work = async {
        match execution.message.task.execution_timeout {
            Some(after) => tokio::time::timeout(after.duration(), request(execution, task))
                .await
                .unwrap_or_else(|_| Outcome::failed(format!("timed out after {after}"))),
            None => request(execution, task).await,
        }
    };
    tokio::select! {
        outcome = work => outcome,
        wish = execution.wished() => Outcome::wished(wish),
    }
}

async fn request(execution: &Execution, task: &HttpTask) -> Outcome {
    let client = match execution.worker.clients.of(task) {
        Ok(client) => client,
        Err(error) => return Outcome::failed_for_good(format!("http: {error}")),
    };
    let mut pause = Duration::from_millis(500);
    for attempt in 1..=task.attempts.max(1) {
        let request = match build(execution, task, &client) {
            Ok(request) => request,
            Err(reason) => return Outcome::failed_for_good(reason),
        };
        // Nothing is sent under a lease that is over: another attempt may be under way.
        if !execution.worker.lease.holds() {
            return Outcome::wished(crate::held::Wish::Interrupt);
        }
        execution
            .log
            .note(&format!("{} {}", request.method(), shown(request.url())))
            .await;
        match ask(&client, request, task, execution).await {
            Ok(answer) => {
                execution
                    .log
                    .note(&format!("{} {} bytes", answer.status, answer.text.len()))
                    .await;
                return match xcom::return_value(execution, value_of(&answer)).await {
                    Ok(xcoms) => Outcome::success(xcoms),
                    Err(reason) => Outcome::failed(reason),
                };
            }
            Err(Failure::Final(reason)) => return Outcome::failed(reason),
            Err(Failure::Unexpected {
                status,
                reason,
                worth_asking_again,
                ..
            }) if !worth_asking_again || attempt >= task.attempts => {
                return Outcome {
                    status: Some(status),
                    output: vec![reason.clone()],
                    ..Outcome::failed(reason)
                };
            }
            Err(Failure::Again { reason, .. }) if attempt >= task.attempts => {
                return Outcome::failed(reason);
            }
            Err(
                Failure::Again {
                    reason,
                    pause: asked,
                }
                | Failure::Unexpected {
                    reason,
                    pause: asked,
                    ..
                },
            ) => {
                let wait = asked.unwrap_or(pause).min(LONGEST_PAUSE);
                execution
                    .log
                    .note(&format!(
                        "{reason}; asking again in {} ms",
                        wait.as_millis()
                    ))
                    .await;
                tokio::time::sleep(wait).await;
                pause *= 2;
            }
        }
    }
    Outcome::failed("http: no attempt was made")
}

/// A sensor's look: one request, whose answer is a success or not yet one.
pub(super) async fn look(execution: &Execution, task: &HttpTask) -> Result<Seen, Blind> {
    let client = execution
        .worker
        .clients
        .of(task)
        .map_err(|error| Blind::Failed(format!("http: {error}")))?;
    let request = build(execution, task, &client).map_err(Blind::ForGood)?;
    // Nothing is sent under a lease that is over: another attempt may be under way.
    if !execution.worker.lease.holds() {
        return Err(Blind::Interrupted);
    }
    let what = format!("{} {}", request.method(), shown(request.url()));
    match ask(&client, request, task, execution).await {
        Ok(answer) => Ok(Seen::Found {
            note: format!("{what}: {}, {} bytes", answer.status, answer.text.len()),
            value: value_of(&answer),
        }),
        Err(
            Failure::Again { reason, .. }
            | Failure::Unexpected { reason, .. }
            | Failure::Final(reason),
        ) => Ok(Seen::NotYet(format!("{what}: {reason}"))),
    }
}

/// Clients by their settings: making one reads the host's certificates, and one's connections serve many requests.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<(Duration, u32, bool), Client>>);

/// Clients that are kept; beyond that the cache starts anew.
const MOST_CLIENTS: usize = 64;

impl Clients {
    fn of(&self, task: &HttpTask) -> Result<Client, reqwest::Error> {
        let key = (task.timeout.duration(), task.max_redirects, task.verify_tls);
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let redirects = match task.max_redirects {
            0 => Policy::none(),
            n => Policy::limited(n as usize),
        };
        let client = Client::builder()
            .timeout(task.timeout.duration())
            .redirect(redirects)
            .tls_danger_accept_invalid_certs(!task.verify_tls)
            .pool_max_idle_per_host(8)
            .user_agent(concat!("gristmill/", env!("CARGO_PKG_VERSION")))
            .build()?;
        if clients.len() >= MOST_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

fn build(execution: &Execution, task: &HttpTask, client: &Client) -> Result<Request, String> {
    let renderer = &execution.context.renderer;
    let render = |what: &str, text: &str| {
        renderer
            .render(text)
            .map(std::borrow::Cow::into_owned)
            .map_err(|error| format!("http.{what}: {error}"))
    };
    let method = render("method", &task.method)?;
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
        .map_err(|_| format!("http.method: {method:?} is no method"))?;
    let connection = match &task.connection {
        None => None,
        Some(id) => Some(
            execution
                .context
                .connections
                .get(id)
                .ok_or_else(|| format!("http.connection: there is no connection {id:?}; make it with `gristmill connections set {id} …`"))?,
        ),
    };
    let url = absolute(&render("url", &task.url)?, connection)?;
    let mut request = client.request(method, url);
    if !task.query.is_empty() {
        let query = task
            .query
            .iter()
            .map(|(name, text)| Ok((name.clone(), render(&format!("query.{name}"), text)?)))
            .collect::<Result<Vec<_>, String>>()?;
        request = request.query(&query);
    }
    for (name, text) in &task.headers {
        request = request.header(name, render(&format!("headers.{name}"), text)?);
    }
    request = authenticate(request, connection);
    request = match &task.body {
        None => request,
        Some(HttpBody::Json(value)) => request.json(
            &renderer
                .render_value(value)
                .map_err(|error| format!("http.json: {error}"))?,
        ),
        Some(HttpBody::Form(fields)) => {
            let fields = fields
                .iter()
                .map(|(name, text)| Ok((name.clone(), render(&format!("form.{name}"), text)?)))
                .collect::<Result<Vec<_>, String>>()?;
            request.form(&fields)
        }
        Some(HttpBody::Body(text)) => request.body(render("body", text)?),
    };
    request
        .build()
        .map_err(|error| format!("http: {}", error.without_url()))
}

/// An absolute URL, or a path below the connection's host.
fn absolute(url: &str, connection: Option<&Value>) -> Result<url::Url, String> {
    if url.contains("://") {
        return url::Url::parse(url).map_err(|error| format!("http.url {url:?}: {error}"));
    }
    let field = |name: &str| {
        connection
            .and_then(|c| c.get(name))
            .filter(|v| !v.is_null())
    };
    let host = field("host").and_then(Value::as_str).ok_or_else(|| {
        format!("http.url {url:?} is no absolute URL, and there is no connection that gives a host")
    })?;
    let scheme = field("schema").and_then(Value::as_str).unwrap_or("https");
    let base = if host.contains("://") {
        host.to_owned()
    } else {
        format!("{scheme}://{host}")
    };
    let mut base = url::Url::parse(&base)
        .map_err(|error| format!("http.connection: its host {host:?}: {error}"))?;
    if let Some(port) = field("port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
    {
        base.set_port(Some(port))
            .map_err(|()| format!("http.connection: port {port} cannot be set"))?;
    }
    base.join(url)
        .map_err(|error| format!("http.url {url:?}: {error}"))
}

fn authenticate(
    request: reqwest::RequestBuilder,
    connection: Option<&Value>,
) -> reqwest::RequestBuilder {
    let Some(connection) = connection else {
        return request;
    };
    let text = |value: Option<&Value>| {
        value
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
    };
    if let Some(token) = text(connection.get("extra").and_then(|extra| extra.get("token"))) {
        return request.bearer_auth(token);
    }
    match text(connection.get("login")) {
        Some(login) => request.basic_auth(login, text(connection.get("password"))),
        None => request,
    }
}

/// A URL for the log: query values may be secrets.
fn shown(url: &url::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _ = url.set_password(None);
    url.to_string()
}

async fn ask(
    client: &Client,
    request: Request,
    task: &HttpTask,
    execution: &Execution,
) -> Result<Answer, Failure> {
    let response = client
        .execute(request)
        .await
        .map_err(|error| Failure::Again {
            reason: format!("no answer: {}", chain(&error.without_url())),
            pause: None,
        })?;
    let answer = read(response).await?;
    let expected = if task.expect.status.is_empty() {
        answer.status.is_success()
    } else {
        task.expect.status.contains(&answer.status.as_u16())
    };
    if !expected {
        let start: String = answer.text.chars().take(200).collect();
        let reason = format!(
            "answered {}: {}",
            answer.status,
            execution.context.mask.apply(start)
        );
        let again =
            answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error();
        return Err(Failure::Unexpected {
            status: answer.status.as_u16(),
            reason,
            pause: answer.retry_after,
            worth_asking_again: again,
        });
    }
    if let Some(check) = &task.expect.check {
        let facts = json!({
            "status": answer.status.as_u16(),
            "headers": answer.headers,
            "text": answer.text,
            "json": serde_json::from_str::<Value>(&answer.text).unwrap_or(Value::Null),
        });
        let facts = facts.as_object().cloned().unwrap_or_default();
        match execution.context.renderer.eval(check, facts) {
            Ok(Value::Bool(true)) => {}
            Ok(other) => {
                return Err(Failure::Final(format!(
                    "the check {check:?} is {other}, not true"
                )));
            }
            Err(error) => return Err(Failure::Final(format!("http.expect.check: {error}"))),
        }
    }
    Ok(answer)
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

async fn read(response: Response) -> Result<Answer, Failure> {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(pause_of);
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned()),
            )
        })
        .collect();
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Failure::Again {
            reason: format!("the answer broke off: {}", chain(&error.without_url())),
            pause: None,
        })?;
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(Failure::Final(format!(
                "the answer is larger than {LARGEST_ANSWER} bytes"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status,
        headers,
        retry_after,
        text: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// `Retry-After`: seconds, or an HTTP date.
fn pause_of(text: &str) -> Option<Duration> {
    if let Ok(secs) = text.trim().parse() {
        return Some(Duration::from_secs(secs));
    }
    let at = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    (at.with_timezone(&Utc) - Utc::now()).to_std().ok()
}

/// The return value: the answer's JSON, or its text.
fn value_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text).unwrap_or_else(|_| Value::String(answer.text.clone()))
}
