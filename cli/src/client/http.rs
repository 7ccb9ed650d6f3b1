//! Requests to the API.

use std::time::Duration;

use reqwest::{Method, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use super::ClientError;
use super::credentials::{Credentials, Sources, is_loopback};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence of the server in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Rows asked for at a time; the API may give fewer.
const PAGE: usize = 100;

/// The API at one address, with one token. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<SecretString>,
}

/// One call, being put together.
#[derive(Debug)]
pub(crate) struct Request {
    builder: reqwest::RequestBuilder,
    url: Url,
    had_token: bool,
}

/// Rows of a listing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Value>,
    /// How many there are in all, beyond those that were asked for.
    pub(crate) total: usize,
}

impl Client {
    /// Prepares to talk to the API at `base`; asks it for nothing but, if there is a password for it, a token.
    pub(crate) async fn connect(base: &str, sources: &Sources) -> Result<Self, ClientError> {
        let base = parse_base(base)?;
        let http = build(&base)?;
        let credentials = sources.find(&base)?;
        let mut client = Self {
            http,
            base,
            token: None,
        };
        client.token = match credentials {
            Credentials::Nothing => None,
            Credentials::Token(token) => Some(token),
            Credentials::AdminPassword(password) => Some(client.sign_in("admin", &password).await?),
        };
        Ok(client)
    }

    /// A token for this user.
    async fn sign_in(
        &self,
        username: &str,
        password: &SecretString,
    ) -> Result<SecretString, ClientError> {
        let url = join(&self.base, &["auth", "token"]);
        let body = json!({"username": username, "password": password.expose_secret()});
        let request = self.request_to(Method::POST, url.clone()).json(&body);
        let answer = request.send().await.map_err(|error| match error {
            ClientError::Auth { detail, .. } => ClientError::Auth {
                detail,
                hint: "GRISTMILL_ADMIN_PASSWORD is not the admin's password here",
            },
            other => other,
        })?;
        let token = answer.get("access_token").and_then(Value::as_str);
        token
            .map(|token| token.to_owned().into())
            .ok_or_else(|| ClientError::Answer {
                url,
                reason: "there is no access_token in it".to_owned(),
            })
    }

    /// A call of `/api/v2/<segments>`; each segment is encoded.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> Request {
        let mut path = vec!["api", "v2"];
        path.extend_from_slice(segments);
        self.request_to(method, join(&self.base, &path))
    }

    pub(crate) fn get(&self, segments: &[&str]) -> Request {
        self.request(Method::GET, segments)
    }

    fn request_to(&self, method: Method, url: Url) -> Request {
        let mut builder = self
            .http
            .request(method, url.clone())
            .header(header::ACCEPT, "application/json");
        if let Some(token) = &self.token {
            builder = builder.bearer_auth(token.expose_secret());
        }
        Request {
            builder,
            url,
            had_token: self.token.is_some(),
        }
    }

    /// A POST with a JSON body.
    pub(crate) async fn post(&self, segments: &[&str], body: &Value) -> Result<Value, ClientError> {
        self.request(Method::POST, segments).json(body).send().await
    }

    /// A PATCH with a JSON body.
    pub(crate) async fn patch(
        &self,
        segments: &[&str],
        body: &Value,
    ) -> Result<Value, ClientError> {
        self.request(Method::PATCH, segments)
            .json(body)
            .send()
            .await
    }

    /// The first `max` rows of a listing, over as many pages as it takes; `key` is the list's name in the answer.
    pub(crate) async fn list(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
        key: &str,
        max: usize,
    ) -> Result<Rows, ClientError> {
        let mut rows: Vec<Value> = Vec::new();
        loop {
            let limit = PAGE.min(max - rows.len());
            let mut request = self
                .get(segments)
                .query("limit", limit)
                .query("offset", rows.len());
            for (name, value) in query {
                request = request.query(name, value);
            }
            let url = request.url.clone();
            let mut answer = request.send().await?;
            let Some(Value::Array(page)) = answer.get_mut(key).map(Value::take) else {
                return Err(ClientError::Answer {
                    url,
                    reason: format!("there is no list {key:?} in it"),
                });
            };
            let last = page.is_empty();
            rows.extend(page);
            let total = answer.get("total_entries").and_then(Value::as_u64);
            let total = total.map_or(rows.len(), |total| total as usize);
            if last || rows.len() >= total.min(max) {
                rows.truncate(max);
                return Ok(Rows {
                    total: total.max(rows.len()),
                    rows,
                });
            }
        }
    }
}

impl Request {
    pub(crate) fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.builder = self.builder.query(&[(name, value.to_string())]);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    pub(crate) fn json(mut self, body: &(impl Serialize + ?Sized)) -> Self {
        self.builder = self.builder.json(body);
        self
    }

    pub(crate) fn body(mut self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        self.builder = self
            .builder
            .header(header::CONTENT_TYPE, content_type)
            .body(body);
        self
    }

    /// The answer's JSON; `null` for an answer without a body.
    pub(crate) async fn send(self) -> Result<Value, ClientError> {
        let Self {
            builder,
            url,
            had_token,
        } = self;
        let lost = |error: reqwest::Error| ClientError::of_transport(&url, &error);
        let answer = builder.send().await.map_err(lost)?;
        let status = answer.status();
        let body = answer.text().await.map_err(lost)?;
        if !status.is_success() {
            return Err(ClientError::of_status(&url, status, &body, had_token));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&body).map_err(|error| ClientError::Answer {
            url,
            reason: error.to_string(),
        })
    }

    /// An answer whose body is read piece by piece.
    pub(crate) async fn open(self) -> Result<Download, ClientError> {
        let Self {
            builder,
            url,
            had_token,
        } = self;
        let lost = |error: reqwest::Error| ClientError::of_transport(&url, &error);
        let answer = builder.send().await.map_err(lost)?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.text().await.map_err(lost)?;
            return Err(ClientError::of_status(&url, status, &body, had_token));
        }
        Ok(Download { answer, url })
    }

    /// The answer's JSON as a type.
    pub(crate) async fn fetch<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let url = self.url.clone();
        let answer = self.send().await?;
        serde_json::from_value(answer).map_err(|error| ClientError::Answer {
            url,
            reason: error.to_string(),
        })
    }
}

/// A body on its way.
#[derive(Debug)]
pub(crate) struct Download {
    answer: reqwest::Response,
    url: Url,
}

impl Download {
    /// The next piece; `None` after the last.
    pub(crate) async fn piece(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let piece = self.answer.chunk().await;
        let piece = piece.map_err(|error| ClientError::of_transport(&self.url, &error))?;
        Ok(piece.map(Vec::from))
    }
}

fn parse_base(base: &str) -> Result<Url, ClientError> {
    let bad = |reason: &str| {
        ClientError::Settings(format!(
            "{base:?} is no address of an API: {reason}; write for example http://127.0.0.1:8080"
        ))
    };
    let url = Url::parse(base).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it has to begin with http:// or https://"));
    }
    // Credentials in an address end up in logs and process lists.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad(
            "credentials do not belong into it, they go into GRISTMILL_TOKEN",
        ));
    }
    Ok(url)
}

fn build(base: &Url) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("gristmill/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        // The API never redirects; following one would carry the token elsewhere.
        .redirect(reqwest::redirect::Policy::none());
    if base.scheme() == "http" {
        // Loading the system's certificates takes longer than a whole command.
        builder = builder.tls_certs_only([]);
    }
    if is_loopback(base) {
        builder = builder.no_proxy();
    }
    builder
        .build()
        .map_err(|error| ClientError::Settings(format!("cannot prepare HTTP: {error}")))
}

/// The address extended by path segments.
fn join(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // Only URLs without a host (mailto:) have no segments, and those are refused before.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use wiremock::matchers::{method, path, query_param};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    #[rstest]
    #[case("http://h:8080", "http://h:8080/api/v2/dags/a/dagRuns/x+y:z")]
    #[case("http://h:8080/", "http://h:8080/api/v2/dags/a/dagRuns/x+y:z")]
    #[case("https://h/flow/", "https://h/flow/api/v2/dags/a/dagRuns/x+y:z")]
    fn paths_are_joined(#[case] base: &str, #[case] expected: &str) {
        let base = parse_base(base).unwrap();
        let url = join(&base, &["api", "v2", "dags", "a", "dagRuns", "x+y:z"]);
        assert_eq!(url.as_str(), expected);
        assert!(join(&base, &["a/b?c"]).as_str().ends_with("a%2Fb%3Fc"));
    }

    #[rstest]
    #[case("127.0.0.1:8080")]
    #[case("ftp://h")]
    #[case("http://user:word@h")]
    fn bad_addresses_are_refused(#[case] base: &str) {
        assert!(matches!(parse_base(base), Err(ClientError::Settings(_))));
    }

    #[tokio::test]
    async fn listings_are_paged() {
        let server = MockServer::start().await;
        for (limit, offset, ids) in [(100, 0, 0..100), (20, 100, 100..120)] {
            let ids: Vec<usize> = ids.collect();
            Mock::given(method("GET"))
                .and(path("/api/v2/dags"))
                .and(query_param("limit", limit.to_string()))
                .and(query_param("offset", offset.to_string()))
                .respond_with(
                    ResponseTemplate::new(200)
                        .set_body_json(json!({"dags": ids, "total_entries": 300})),
                )
                .expect(1)
                .mount(&server)
                .await;
        }
        let client = Client::connect(&server.uri(), &Sources::default())
            .await
            .unwrap();
        let listing = client.list(&["dags"], &[], "dags", 120).await.unwrap();
        assert_eq!((listing.rows.len(), listing.total), (120, 300));
    }

    #[tokio::test]
    async fn a_password_is_exchanged_for_a_token() {
        let server = MockServer::start().await;
        Mock::given(method("POST"))
            .and(path("/auth/token"))
            .and(wiremock::matchers::body_json(
                json!({"username": "admin", "password": "word"}),
            ))
            .respond_with(ResponseTemplate::new(201).set_body_json(json!({"access_token": "tok"})))
            .expect(1)
            .mount(&server)
            .await;
        Mock::given(wiremock::matchers::bearer_token("tok"))
            .respond_with(ResponseTemplate::new(200).set_body_json(json!({"dag_id": "a"})))
            .expect(1)
            .mount(&server)
            .await;
        let sources = Sources {
            admin_password: Some("word".to_owned()),
            ..Sources::default()
        };
        let client = Client::connect(&server.uri(), &sources).await.unwrap();
        let dag = client.get(&["dags", "a"]).send().await.unwrap();
        assert_eq!(dag["dag_id"], "a");
    }
}
