//! An API over a fresh store, and requests to it.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use chrono::Utc;
use gristmill_api::{ApiParts, Role, issue_token, router};
use gristmill_broker::{InProcess, InProcessConfig};
use gristmill_common::{engine::Command, ids::RunPk, row::TiRow, seal::SecretKey};
use gristmill_objects::ObjectStore;
use gristmill_presence::{MemoryPresence, Presence, PresenceConfig, WorkerInfo};
use gristmill_store::{Applied, DispatchContext, PlanCache, Reads, Store};
use gristmill_store_sqlite::SqliteStore;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) struct Api {
    pub(crate) parts: ApiParts,
    pub(crate) broker: Arc<InProcess>,
    pub(crate) presence: MemoryPresence,
    pub(crate) secret: SecretKey,
    router: Router,
    admin: String,
    plans: Arc<PlanCache>,
    _folder: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The JSON of an answer that must have this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// The `detail` of an error that must have this status, as text.
    #[track_caller]
    pub(crate) fn detail(&self, status: u16) -> String {
        match &self.expect(status)["detail"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

impl Api {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("db.sqlite"))
            .await
            .unwrap();
        store.migrate().await.unwrap();
        let broker = InProcess::new(InProcessConfig::default());
        let presence = MemoryPresence::new(PresenceConfig::default());
        let url = format!("file://{}/objects", folder.path().display());
        let secret = SecretKey::from_text(&"k".repeat(32)).unwrap();
        let parts = ApiParts::new(
            Arc::new(store),
            broker.clone(),
            Arc::new(presence.clone()),
            ObjectStore::from_url(&url).unwrap(),
            secret.clone(),
        );
        let admin = issue_token(&*parts.store, "test", Role::Admin, None, None)
            .await
            .unwrap();
        Self {
            router: router(parts.clone()),
            parts,
            broker,
            presence,
            secret,
            admin,
            plans: Arc::default(),
            _folder: folder,
        }
    }

    /// A request with any headers and body.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 100 << 20).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn as_caller(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    /// A request of the administrator, with one header more.
    pub(crate) async fn with_header(
        &self,
        method: Method,
        path: &str,
        header: (&str, &str),
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.admin))
            .header(header.0, header.1)
            .body(body.into())
            .unwrap();
        self.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.as_caller(Some(&self.admin), Method::GET, path, None)
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.as_caller(Some(&self.admin), Method::POST, path, Some(body))
            .await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.as_caller(Some(&self.admin), Method::PATCH, path, Some(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.as_caller(Some(&self.admin), Method::DELETE, path, None)
            .await
    }

    /// Deploys one DAG, written in YAML.
    pub(crate) async fn deploy(&self, yaml: &str) {
        let header = ("content-type", "application/yaml");
        let answer = self
            .with_header(Method::POST, "/api/v2/dags/deploy", header, yaml.to_owned())
            .await;
        answer.expect(200);
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.parts.store
    }

    /// What a scheduler would dispatch with.
    pub(crate) async fn context(&self) -> DispatchContext {
        DispatchContext {
            epoch: Some(self.presence.epoch().await.unwrap()),
            claim_window: Duration::from_secs(60),
            batch: 100,
            plans: self.plans.clone(),
            published: Arc::default(),
            token: Arc::new(|_| String::new()),
        }
    }

    /// What a scheduler would do with queued runs: starts them, and dispatches what is ready.
    pub(crate) async fn start_runs(&self) -> Applied {
        self.store()
            .start_runs(&self.context().await)
            .await
            .unwrap()
    }

    pub(crate) async fn apply(&self, command: Command) {
        let applied = self
            .store()
            .apply(&[command], &[], &self.context().await)
            .await
            .unwrap();
        assert_eq!(applied.stale, 0, "the command came too late");
    }

    /// Triggers a run with this id.
    pub(crate) async fn trigger(&self, dag: &str, run: &str) -> RunPk {
        let body = json!({ "dag_run_id": run });
        self.post(&format!("/api/v2/dags/{dag}/dagRuns"), body)
            .await
            .expect(200);
        self.store().run(dag, run).await.unwrap().unwrap().pk
    }

    pub(crate) async fn ti(&self, run: RunPk, task: &str) -> TiRow {
        self.store()
            .task_instance(run, task, -1)
            .await
            .unwrap()
            .unwrap()
    }

    /// A worker's lease.
    pub(crate) async fn worker(&self, incarnation: &str, queue: &str, slots: u32) {
        let info = WorkerInfo {
            incarnation: incarnation.to_owned(),
            name: incarnation.to_owned(),
            hostname: "host-1".to_owned(),
            pid: 7,
            queues: vec![queue.to_owned()],
            slots,
            version: "1".to_owned(),
            started_at: Utc::now(),
        };
        let epoch = self
            .presence
            .register(&info, Duration::from_secs(60))
            .await
            .unwrap();
        let status = gristmill_presence::WorkerStatus {
            running: 1,
            free: slots - 1,
            ..Default::default()
        };
        self.presence
            .renew(incarnation, epoch, &status)
            .await
            .unwrap();
    }
}

/// `a` then `b`, which does not run when `a` fails.
pub(crate) const CHAIN: &str = "
dag_id: chain
params: {n: {type: integer, default: 1}}
tasks:
  a: {noop: {}}
  b: {depends_on: [a], noop: {}}
";

pub(crate) mod events {
    //! What a worker would report.

    use chrono::Utc;
    use gristmill_common::{
        engine::Command,
        message::{Ending, Finished, Started, XcomOut},
        row::TiRow,
    };

    pub(crate) fn started(ti: &TiRow) -> Command {
        Command::Started(Started {
            run: ti.run,
            dispatch: ti.dispatch(),
            worker: "w1".to_owned(),
            hostname: "host-1".to_owned(),
            pid: Some(42),
            at: Utc::now(),
        })
    }

    pub(crate) fn finished(ti: &TiRow, ending: Ending, xcoms: Vec<XcomOut>) -> Command {
        Command::Finished(Box::new(Finished {
            run: ti.run,
            dispatch: ti.dispatch(),
            worker: "w1".to_owned(),
            hostname: "host-1".to_owned(),
            started_at: Utc::now(),
            ended_at: Utc::now(),
            ending,
            exit_code: Some(0),
            pid: Some(42),
            reason: None,
            xcoms,
        }))
    }
}
