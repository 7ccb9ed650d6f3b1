//! The REST API, as a test uses it.

use super::SOON;
use gristmill_testkit::wait;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) dag_id: String,
    pub(crate) run_id: String,
}

impl Run {
    /// Its path below `/api/v2`.
    pub(crate) fn path(&self) -> String {
        format!(
            "/dags/{}/dagRuns/{}",
            self.dag_id,
            self.run_id.replace('+', "%2B")
        )
    }
}

/// An authorised client of one API server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// `http://127.0.0.1:PORT`
    pub(crate) address: String,
    pub(crate) token: String,
}

impl Client {
    pub(crate) fn new(address: String, token: String) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(40))
            .build()
            .unwrap();
        Self {
            http,
            address,
            token,
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}/api/v2{path}", self.address))
            .bearer_auth(&self.token)
    }

    async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<(StatusCode, Value)> {
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        Ok((
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        ))
    }

    /// A GET that has to succeed.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = Self::answer(self.request(Method::GET, path)).await.unwrap();
        assert!(status.is_success(), "GET {path}: {status} {body}");
        body
    }

    /// A GET as text, which has to succeed.
    pub(crate) async fn text(&self, path: &str) -> String {
        let request = self
            .request(Method::GET, path)
            .header("accept", "text/plain");
        let answer = request.send().await.unwrap().error_for_status().unwrap();
        answer.text().await.unwrap()
    }

    /// A POST that has to succeed.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, body) = Self::answer(self.request(Method::POST, path).json(body))
            .await
            .unwrap();
        assert!(status.is_success(), "POST {path}: {status} {body}");
        body
    }

    /// A PATCH, whatever comes of it.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = Self::answer(self.request(Method::PATCH, path).json(body))
            .await
            .unwrap();
        (status.as_u16(), body)
    }

    /// Deploys one DAG file.
    pub(crate) async fn deploy(&self, yaml: &str) {
        let request = self.request(Method::POST, "/dags/deploy?file_name=test.yaml");
        let request = request
            .header("content-type", "application/yaml")
            .body(yaml.to_owned());
        let (status, body) = Self::answer(request).await.unwrap();
        let errors = body["errors"]
            .as_array()
            .is_none_or(|errors| !errors.is_empty());
        assert!(
            status.is_success() && !errors,
            "deploying: {status} {body}\n{yaml}"
        );
    }

    /// Makes a run.
    pub(crate) async fn trigger(&self, dag_id: &str) -> Run {
        let run = self
            .post(&format!("/dags/{dag_id}/dagRuns"), &json!({}))
            .await;
        Run {
            dag_id: dag_id.to_owned(),
            run_id: run["dag_run_id"].as_str().unwrap().to_owned(),
        }
    }

    /// Deploys a DAG file and makes a run of it.
    pub(crate) async fn start(&self, dag_id: &str, yaml: &str) -> Run {
        self.deploy(yaml).await;
        self.trigger(dag_id).await
    }

    /// Waits until the run has ended, through outages of the API and of what is behind it.
    pub(crate) async fn ended(&self, run: &Run, patience: Duration) -> Value {
        let path = format!("{}/wait?timeout=20", run.path());
        let until = Instant::now() + patience;
        let mut last = "nothing".to_owned();
        while Instant::now() < until {
            match Self::answer(self.request(Method::GET, &path)).await {
                Ok((StatusCode::OK, body)) => return body,
                Ok((StatusCode::ACCEPTED, body)) => last = body.to_string(),
                Ok((status, body)) if status.is_server_error() => {
                    last = format!("{status} {body}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Ok((status, body)) => panic!("GET {path}: {status} {body}"),
                Err(error) => {
                    last = error.to_string();
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        panic!("{run:?} had not ended after {patience:?}; the last answer was {last}");
    }

    /// Every task instance of a run.
    pub(crate) async fn instances(&self, run: &Run) -> Vec<Value> {
        let page = self
            .get(&format!("{}/taskInstances?limit=1000", run.path()))
            .await;
        page["task_instances"].as_array().unwrap().clone()
    }

    /// One task instance that is not mapped.
    pub(crate) async fn instance(&self, run: &Run, task: &str) -> Value {
        self.get(&format!("{}/taskInstances/{task}", run.path()))
            .await
    }

    /// The return value of a task.
    pub(crate) async fn xcom(&self, run: &Run, task: &str) -> Value {
        let path = format!(
            "{}/taskInstances/{task}/xcomEntries/return_value",
            run.path()
        );
        self.get(&path).await["value"].clone()
    }

    /// Waits until a task instance is in a state.
    pub(crate) async fn task_is(&self, run: &Run, task: &str, state: &str) {
        let what = format!("{task} of {run:?} to be {state}");
        // A run that is still queued has no instances.
        wait::until(&what, SOON, async || {
            let all = self.instances(run).await;
            let is = |instance: &Value| instance["task_id"] == task && instance["state"] == state;
            all.iter().any(is).then_some(())
        })
        .await
        .unwrap();
    }
}
