//! The REST calls that load needs.

use crate::error::{LoadError, Result};
use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long one request may hold; the API answers 202 after it and is asked again.
const HOLD: &str = "60s";
/// Between two looks at a run that is watched. Each look counts its task instances, which in a wide run is work: it must not
/// become a part of what is measured.
const LOOK: &str = "20s";
/// Task instances of one page; the API gives no more than it allows itself.
const PAGE: usize = 100;

/// A run as the API shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    pub dag_run_id: String,
    pub state: String,
    #[serde(default)]
    pub task_states: BTreeMap<String, usize>,
}

/// A task instance as the API shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct TaskInstance {
    pub task_id: String,
    start_date: Option<DateTime<Utc>>,
    end_date: Option<DateTime<Utc>>,
    dag_run_id: String,
}

impl TaskInstance {
    /// When its process had been started, by the worker's clock.
    pub fn started(&self) -> Result<DateTime<Utc>> {
        self.start_date.ok_or_else(|| self.without("start_date"))
    }

    /// When its process tree was empty and its log kept, by the worker's clock.
    pub fn ended(&self) -> Result<DateTime<Utc>> {
        self.end_date.ok_or_else(|| self.without("end_date"))
    }

    fn without(&self, date: &'static str) -> LoadError {
        LoadError::NoDate {
            run_id: self.dag_run_id.clone(),
            task_id: self.task_id.clone(),
            date,
        }
    }
}

#[derive(Deserialize)]
struct TaskInstancePage {
    task_instances: Vec<TaskInstance>,
    total_entries: usize,
}

#[derive(Deserialize)]
struct AccessToken {
    access_token: String,
}

/// A run that was asked for.
#[derive(Debug)]
pub struct Triggered {
    pub run_id: String,
    /// This machine's clock as the request was sent.
    pub sent_at: DateTime<Utc>,
    /// From sending the request to having its answer.
    pub answered_in: Duration,
}

/// A signed-in user of one API server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// Signs in at the API server at `base` (`http://host:port`).
    pub async fn sign_in(base: &str, username: &str, password: &str) -> Result<Self> {
        let mut client = Self::with_token(base, "")?;
        let body = json!({"username": username, "password": password});
        let request = client.request(Method::POST, "/auth/token").json(&body);
        let answer: AccessToken = body_of("POST", "/auth/token", request).await?.1;
        client.token = answer.access_token;
        Ok(client)
    }

    /// Uses a token that was made before. `base` is `http://host:port`.
    pub fn with_token(base: &str, token: &str) -> Result<Self> {
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().build()?,
            base: base.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
        })
    }

    /// The same user at another API server of the same deployment.
    pub fn at(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    /// Makes or renews a DAG from the text of its file.
    pub async fn deploy(&self, dag_id: &str, yaml: String) -> Result<()> {
        let path = format!("/api/v2/dags/deploy?file_name={dag_id}.yaml");
        let request = self
            .request(Method::POST, &path)
            .header(reqwest::header::CONTENT_TYPE, "application/yaml")
            .body(yaml);
        body_of::<Value>("POST", &path, request).await.map(drop)
    }

    /// Makes a pool, unless there is one.
    pub async fn add_pool(&self, name: &str, slots: usize) -> Result<()> {
        let path = "/api/v2/pools";
        let body = json!({"name": name, "slots": slots, "description": "load test", "include_deferred": false});
        let request = self.request(Method::POST, path).json(&body);
        match done("POST", path, request).await {
            // Another scenario made it before.
            Err(LoadError::Refused { status: 409, .. }) => Ok(()),
            other => other,
        }
    }

    /// Makes what a path of the API makes.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let path = format!("/api/v2{path}");
        let request = self.request(Method::POST, &path).json(body);
        Ok(body_of("POST", &path, request).await?.1)
    }

    /// Sets what a path of the API keeps.
    pub async fn put(&self, path: &str, body: &Value) -> Result<()> {
        let path = format!("/api/v2{path}");
        done("PUT", &path, self.request(Method::PUT, &path).json(body)).await
    }

    /// Names of the workers that are there.
    pub async fn workers(&self) -> Result<usize> {
        let path = "/api/v2/workers";
        let (_, answer): (_, Value) = body_of("GET", path, self.request(Method::GET, path)).await?;
        Ok(answer["workers"].as_array().map_or(0, Vec::len))
    }

    /// Asks for a run with this conf and does not wait for it. A conf of `()` is an empty one.
    pub async fn trigger(&self, dag_id: &str, conf: &impl Serialize) -> Result<Triggered> {
        let path = format!("/api/v2/dags/{dag_id}/dagRuns");
        let request = self
            .request(Method::POST, &path)
            .json(&json!({"conf": conf}));
        let (sent_at, clock) = (Utc::now(), Instant::now());
        let (_, run): (_, Run) = body_of("POST", &path, request).await?;
        Ok(Triggered {
            run_id: run.dag_run_id,
            sent_at,
            answered_in: clock.elapsed(),
        })
    }

    /// Asks for a run under an idempotency key, so that it can be asked for again when the answer does not come in time.
    pub async fn trigger_once(&self, dag_id: &str, key: &str, time: Duration) -> Result<Run> {
        let path = format!("/api/v2/dags/{dag_id}/dagRuns");
        let request = self.request(Method::POST, &path).json(&json!({}));
        let request = request.header("idempotency-key", key).timeout(time);
        Ok(body_of("POST", &path, request).await?.1)
    }

    /// Asks for a run and waits until it has ended, in one request while that lasts.
    pub async fn run_to_end(&self, dag_id: &str, deadline: Duration) -> Result<Run> {
        let path = format!("/api/v2/dags/{dag_id}/dagRuns?wait={HOLD}");
        let request = self.request(Method::POST, &path).json(&json!({}));
        match body_of("POST", &path, request).await? {
            (StatusCode::ACCEPTED, run) => {
                let run: Run = run;
                self.wait(dag_id, &run.dag_run_id, deadline).await
            }
            (_, run) => Ok(run),
        }
    }

    /// A run as it is now.
    pub async fn run(&self, dag_id: &str, run_id: &str) -> Result<Run> {
        let path = format!("/api/v2/dags/{dag_id}/dagRuns/{run_id}");
        let request = self.request(Method::GET, &path);
        Ok(body_of("GET", &path, request).await?.1)
    }

    /// Stops a run.
    pub async fn cancel(&self, dag_id: &str, run_id: &str) -> Result<()> {
        let path = format!("/api/v2/dags/{dag_id}/dagRuns/{run_id}/cancel");
        done("POST", &path, self.request(Method::POST, &path)).await
    }

    /// Deletes a DAG with its runs.
    pub async fn delete_dag(&self, dag_id: &str) -> Result<()> {
        let path = format!("/api/v2/dags/{dag_id}");
        done("DELETE", &path, self.request(Method::DELETE, &path)).await
    }

    /// Deletes a pool.
    pub async fn delete_pool(&self, name: &str) -> Result<()> {
        let path = format!("/api/v2/pools/{name}");
        done("DELETE", &path, self.request(Method::DELETE, &path)).await
    }

    /// Waits until a run has ended, and shows it now and then until it has.
    pub async fn watch(
        &self,
        dag_id: &str,
        run_id: &str,
        deadline: Duration,
        mut see: impl FnMut(&Run),
    ) -> Result<Run> {
        let path = format!("/api/v2/dags/{dag_id}/dagRuns/{run_id}/wait?timeout={LOOK}");
        let start = Instant::now();
        while start.elapsed() < deadline {
            let (status, run) = body_of("GET", &path, self.request(Method::GET, &path)).await?;
            see(&run);
            if status == StatusCode::OK {
                return Ok(run);
            }
        }
        Err(not_ended(dag_id, run_id, start))
    }

    /// Waits until a run has ended.
    pub async fn wait(&self, dag_id: &str, run_id: &str, deadline: Duration) -> Result<Run> {
        let path = format!("/api/v2/dags/{dag_id}/dagRuns/{run_id}/wait?timeout={HOLD}");
        let start = Instant::now();
        while start.elapsed() < deadline {
            let request = self.request(Method::GET, &path);
            if let (StatusCode::OK, run) = body_of("GET", &path, request).await? {
                return Ok(run);
            }
        }
        Err(not_ended(dag_id, run_id, start))
    }

    /// All task instances of a run.
    pub async fn task_instances(&self, dag_id: &str, run_id: &str) -> Result<Vec<TaskInstance>> {
        let mut found = Vec::new();
        loop {
            let offset = found.len();
            let path = format!(
                "/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit={PAGE}&offset={offset}"
            );
            let (_, page): (_, TaskInstancePage) =
                body_of("GET", &path, self.request(Method::GET, &path)).await?;
            let total = page.total_entries;
            found.extend(page.task_instances);
            if found.len() >= total || found.len() == offset {
                return Ok(found);
            }
        }
    }

    /// The value of a counter in the API server's Prometheus text, if it is there.
    pub async fn counter(&self, name: &str) -> Option<f64> {
        let text = self
            .request(Method::GET, "/metrics")
            .send()
            .await
            .ok()?
            .text()
            .await
            .ok()?;
        text.lines().find_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            (key == name).then(|| value.parse().ok())?
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }
}

fn not_ended(dag_id: &str, run_id: &str, start: Instant) -> LoadError {
    LoadError::NotEnded {
        dag_id: dag_id.to_owned(),
        run_id: run_id.to_owned(),
        waited: start.elapsed(),
    }
}

/// Sends a request whose answer's body does not matter.
async fn done(method: &'static str, path: &str, request: RequestBuilder) -> Result<()> {
    let answer = request.send().await?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    Err(LoadError::Refused {
        method,
        path: path.to_owned(),
        status: status.as_u16(),
        body: answer.text().await?,
    })
}

/// The status and body of an answer that is a success.
async fn body_of<T: DeserializeOwned>(
    method: &'static str,
    path: &str,
    request: RequestBuilder,
) -> Result<(StatusCode, T)> {
    let answer = request.send().await?;
    let status = answer.status();
    if status.is_success() {
        return Ok((status, answer.json().await?));
    }
    Err(LoadError::Refused {
        method,
        path: path.to_owned(),
        status: status.as_u16(),
        body: answer.text().await?,
    })
}
