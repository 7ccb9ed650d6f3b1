//! `/openapi.json`: a description of every operation. It is what the tests of the router go through.
//!
//! Operations of Airflow's API stand in `openapi/airflow.json`, a line each, with what they take and answer; those of our own
//! in [`OPERATIONS`], which also has the summaries of many of the others.

#[cfg(test)]
mod tests;

use crate::{error::ApiError, parts::App};
use axum::{Json, extract::State as AppState};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// Method, path, what it does.
pub(super) const OPERATIONS: &[(&str, &str, &str)] = &[
    (
        "post",
        "/auth/token",
        "Sign in: a session's token for a user name and a password",
    ),
    (
        "get",
        "/health",
        "Whether every part can be reached, with reasons",
    ),
    ("get", "/metrics", "Metrics for Prometheus"),
    (
        "get",
        "/api/v2/monitor/health",
        "Health in Airflow's form, always 200",
    ),
    ("get", "/api/v2/version", "The version"),
    ("get", "/api/v2/dags", "List DAGs"),
    (
        "post",
        "/api/v2/dags/deploy",
        "Deploy a folder (tar.zst) or a file (YAML, JSON)",
    ),
    ("get", "/api/v2/dags/{dag_id}", "A DAG"),
    ("patch", "/api/v2/dags/{dag_id}", "Pause or unpause a DAG"),
    (
        "delete",
        "/api/v2/dags/{dag_id}",
        "Delete a DAG with its ended runs",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/details",
        "A DAG with its parameters and settings",
    ),
    ("get", "/api/v2/dags/{dag_id}/tasks", "A DAG's tasks"),
    ("get", "/api/v2/dags/{dag_id}/tasks/{task_id}", "A task"),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagVersions",
        "A DAG's versions, newest first",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagVersions/{version_number}",
        "A version",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagVersions/{version_number}/diff",
        "What a version changed",
    ),
    ("get", "/api/v2/dagSources/{dag_id}", "A version's file"),
    ("get", "/api/v2/dagStats", "Runs by state"),
    (
        "get",
        "/api/v2/callbacks",
        "Callbacks that were called, newest first; ?state=failed, ?dag_id=",
    ),
    ("get", "/api/v2/callbacks/{callback_id}", "A callback"),
    (
        "post",
        "/api/v2/callbacks/{callback_id}/retry",
        "Deliver a callback again",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/deadlines",
        "A run's deadlines, and when they were missed",
    ),
    (
        "get",
        "/api/v2/importErrors",
        "Files that could not be imported",
    ),
    (
        "post",
        "/api/v2/dags/{dag_id}/dagRuns",
        "Trigger a run; ?wait=60s answers when it has ended",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns",
        "List runs, newest first; ~ means of all DAGs",
    ),
    ("get", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}", "A run"),
    (
        "patch",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}",
        "Set a run's state (queued, success, failed) or its note; failed stops one that is under way",
    ),
    (
        "delete",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}",
        "Delete an ended run",
    ),
    (
        "post",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/cancel",
        "Cancel a run",
    ),
    (
        "post",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/clear",
        "Run a run's tasks anew; a dry run (the default) lists them",
    ),
    (
        "post",
        "/api/v2/dags/{dag_id}/clearTaskInstances",
        "Run task instances anew; a dry run (the default) lists them",
    ),
    (
        "patch",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}",
        "Set a task's state: success, failed, skipped",
    ),
    (
        "patch",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/dry_run",
        "What that would change",
    ),
    (
        "patch",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}",
        "Set the state of an instance of a mapped task",
    ),
    (
        "patch",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/dry_run",
        "What that would change",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/wait",
        "Wait until a run has ended",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances",
        "List task instances",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}",
        "A task instance",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}",
        "An instance of a mapped task",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/listMapped",
        "The instances of a mapped task",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/tries",
        "Its tries",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/explain",
        "Why it is not running",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/dependencies",
        "The same in Airflow's form",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/logs/{try_number}",
        "A try's log",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/xcomEntries",
        "XComs",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/xcomEntries/{xcom_key}",
        "An XCom with its value",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/artifacts",
        "Files that a run's tasks have left",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/artifacts",
        "Files that a task instance has left",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/artifacts/{name}",
        "Such a file, as it is",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/hitlDetails",
        "What is asked of people; ~ means of all DAGs or runs",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/hitlDetails",
        "What an approval asks",
    ),
    (
        "patch",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/hitlDetails",
        "Answer an approval",
    ),
    ("get", "/api/v2/queues", "Queues: depths, consumers, slots"),
    ("get", "/api/v2/queues/{queue}", "A queue"),
    (
        "patch",
        "/api/v2/queues/{queue}",
        "Pause or resume a queue, set or lift its rate",
    ),
    (
        "put",
        "/api/v2/queues/{queue}/rateLimit",
        "Set or lift the rate at which a queue's tasks start",
    ),
    (
        "get",
        "/api/v2/parallelism",
        "How many tasks may be active in the whole deployment, and how many are",
    ),
    ("put", "/api/v2/parallelism", "Set or lift that limit"),
    ("post", "/api/v2/queues/{queue}/pause", "Pause a queue"),
    ("post", "/api/v2/queues/{queue}/resume", "Resume a queue"),
    ("get", "/api/v2/workers", "Workers"),
    ("get", "/api/v2/pools", "List pools"),
    ("post", "/api/v2/pools", "Create a pool"),
    ("get", "/api/v2/pools/{pool_name}", "A pool"),
    ("patch", "/api/v2/pools/{pool_name}", "Change a pool"),
    ("delete", "/api/v2/pools/{pool_name}", "Delete a pool"),
    ("get", "/api/v2/variables", "List variables"),
    ("post", "/api/v2/variables", "Create a variable"),
    ("get", "/api/v2/variables/{variable_key}", "A variable"),
    (
        "patch",
        "/api/v2/variables/{variable_key}",
        "Change a variable",
    ),
    (
        "delete",
        "/api/v2/variables/{variable_key}",
        "Delete a variable",
    ),
    (
        "get",
        "/api/v2/connections",
        "List connections, secrets masked",
    ),
    ("post", "/api/v2/connections", "Create a connection"),
    (
        "get",
        "/api/v2/connections/{connection_id}",
        "A connection, secrets masked",
    ),
    (
        "patch",
        "/api/v2/connections/{connection_id}",
        "Change a connection",
    ),
    (
        "delete",
        "/api/v2/connections/{connection_id}",
        "Delete a connection",
    ),
    ("get", "/api/v2/backfills", "List backfills, newest first"),
    ("post", "/api/v2/backfills", "Fill in runs of the past"),
    (
        "post",
        "/api/v2/backfills/dry_run",
        "The runs that a backfill would make",
    ),
    (
        "get",
        "/api/v2/backfills/{backfill_id}",
        "A backfill and how far it is",
    ),
    (
        "put",
        "/api/v2/backfills/{backfill_id}/pause",
        "Start no further runs",
    ),
    (
        "put",
        "/api/v2/backfills/{backfill_id}/unpause",
        "Start runs again",
    ),
    (
        "put",
        "/api/v2/backfills/{backfill_id}/cancel",
        "Cancel the runs that have not started",
    ),
    ("get", "/api/v2/assets", "Assets with their lineage"),
    ("get", "/api/v2/assets/{asset_id}", "An asset"),
    (
        "get",
        "/api/v2/assets/events",
        "Updates of assets, newest first",
    ),
    (
        "post",
        "/api/v2/assets/events",
        "Tell of an asset's update by hand",
    ),
    (
        "get",
        "/api/v2/assets/{asset_id}/queuedEvents",
        "Runs that wait for more, by an asset",
    ),
    (
        "delete",
        "/api/v2/assets/{asset_id}/queuedEvents",
        "Forget an asset's updates that wait",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/assets/queuedEvents",
        "Updates that wait for a DAG's next run",
    ),
    (
        "delete",
        "/api/v2/dags/{dag_id}/assets/queuedEvents",
        "Forget the updates that wait for a DAG's next run",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/assets/{asset_id}/queuedEvents",
        "Updates of an asset that wait for a DAG's next run",
    ),
    (
        "delete",
        "/api/v2/dags/{dag_id}/assets/{asset_id}/queuedEvents",
        "Forget an asset's updates that wait for a DAG's next run",
    ),
    (
        "get",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/upstreamAssetEvents",
        "The updates of assets that made a run",
    ),
    ("get", "/api/v2/eventLogs", "The audit log, newest first"),
    ("get", "/api/v2/jobs", "Schedulers"),
    ("get", "/api/v2/tokens", "List API tokens"),
    ("post", "/api/v2/tokens", "Make an API token"),
    ("delete", "/api/v2/tokens/{name}", "Revoke an API token"),
];

/// Operations of Airflow's API: what each takes and answers with, as its official client has it, and whether it is here.
/// Told again in docs/api-compatibility.md.
const AIRFLOW: &str = include_str!("openapi/airflow.json");
/// What their bodies and answers hold.
const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// Refusals that any operation may answer with.
const REFUSALS: [(u16, &str); 12] = [
    (400, "What is asked for cannot be"),
    (401, "No token, or one that does not hold"),
    (403, "The token is not for this"),
    (404, "What the path names is not there"),
    (405, "The path is there, but not for this method"),
    (409, "It is in the way of what is there"),
    (413, "The body, or a part of it, is too large"),
    (415, "The body is not of a type that is read"),
    (422, "The request has not the expected shape"),
    (429, "Too many attempts"),
    (501, "This version does not do it"),
    (503, "A part of the deployment is away"),
];
/// What operations of our own may answer with.
const SUCCESSES: [u16; 4] = [200, 201, 202, 204];

/// An operation of Airflow's API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compatible {
    /// What its client calls it.
    id: String,
    method: String,
    path: String,
    /// Whether CI systems and people on call use it.
    starred: bool,
    state: State,
    /// In which way it is another than Airflow's.
    note: Option<String>,
    /// Of a success.
    status: u16,
    /// The schema of a success's body; absent: any, or none.
    answer: Option<String>,
    /// The schema of the request's body; absent: none.
    body: Option<String>,
    /// The path's names that are numbers.
    #[serde(default)]
    integers: Vec<String>,
    /// The query's names, each with `[]` where it may come several times, and with its type or format after a colon.
    #[serde(default)]
    query: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    There,
    /// Answers 501.
    Absent,
}

fn compatible() -> serde_json::Result<Vec<Compatible>> {
    serde_json::from_str(AIRFLOW)
}

/// The names in a path's braces.
fn parts_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
}

fn path_parameters(path: &str, integers: &[String]) -> Vec<Value> {
    parts_of(path)
        .map(|name| {
            let kind = if integers.iter().any(|integer| integer == name) {
                "integer"
            } else {
                "string"
            };
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
        })
        .collect()
}

/// A query's parameter from its short form.
fn query_parameter(short: &str) -> Value {
    let (name, kind) = short.split_once(':').unwrap_or((short, "string"));
    let schema = match kind {
        "date-time" => json!({ "type": "string", "format": "date-time" }),
        kind => json!({ "type": kind }),
    };
    match name.strip_suffix("[]") {
        Some(name) => json!({ "name": name, "in": "query",
            "schema": { "type": "array", "items": schema } }),
        None => json!({ "name": name, "in": "query", "schema": schema }),
    }
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn success(status: u16, schema: Option<Value>) -> Value {
    if status == 204 {
        return json!({ "description": "Done; there is no body" });
    }
    let content = schema.unwrap_or_else(|| json!({}));
    json!({ "description": "Done", "content": { "application/json": { "schema": content } } })
}

fn with_refusals(mut responses: Map<String, Value>) -> Map<String, Value> {
    for (status, _) in REFUSALS {
        let response = json!({ "$ref": format!("#/components/responses/{status}") });
        responses.insert(status.to_string(), response);
    }
    responses
}

/// An operation that only we have: its summary says what it does.
fn own(method: &str, path: &str, summary: &str) -> Value {
    let responses = SUCCESSES.map(|status| (status.to_string(), success(status, None)));
    let mut operation = json!({
        "summary": summary,
        "parameters": path_parameters(path, &[]),
        "responses": with_refusals(responses.into_iter().collect()),
    });
    if path == "/metrics" {
        let text = json!({ "text/plain": { "schema": { "type": "string" } } });
        operation["responses"]["200"]["content"] = text;
    }
    if matches!(method, "post" | "put" | "patch") {
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": {} } } });
    }
    operation
}

impl Compatible {
    fn described(&self, summary: &str) -> Value {
        let mut parameters = path_parameters(&self.path, &self.integers);
        parameters.extend(self.query.split_whitespace().map(query_parameter));
        let answer = self.answer.as_deref().map(reference);
        let mut responses = Map::new();
        if self.state == State::There {
            responses.insert(self.status.to_string(), success(self.status, answer));
        }
        if self.id == "wait_dag_run_until_finished" {
            responses.insert("202".to_owned(), success(202, None));
        }
        let mut operation = json!({
            "operationId": self.id,
            "summary": summary,
            "parameters": parameters,
            "responses": with_refusals(responses),
        });
        if self.starred {
            operation["x-starred"] = true.into();
        }
        if let Some(note) = &self.note {
            operation["description"] = note.as_str().into();
        }
        if let Some(body) = &self.body {
            let content = json!({ "application/json": { "schema": reference(body) } });
            operation["requestBody"] = json!({ "content": content });
        }
        operation
    }
}

/// The document, without the version.
static DOCUMENT: LazyLock<Result<Value, String>> =
    LazyLock::new(|| built().map_err(|error| error.to_string()));

fn built() -> serde_json::Result<Value> {
    let mut paths: Map<String, Value> = Map::new();
    for operation in compatible()? {
        let known = OPERATIONS
            .iter()
            .find(|(method, path, _)| *method == operation.method && *path == operation.path);
        let name = operation.id.replace('_', " ");
        let summary = known.map_or(name.as_str(), |(_, _, summary)| summary);
        let item = paths
            .entry(operation.path.clone())
            .or_insert_with(|| json!({}));
        item[&operation.method] = operation.described(summary);
    }
    for (method, path, summary) in OPERATIONS {
        let item = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        if item.get(*method).is_none() {
            item[*method] = own(method, path, summary);
        }
    }
    let schemas: Map<String, Value> = serde_json::from_str(SCHEMAS)?;
    let error = json!({ "type": "object", "required": ["detail"], "properties": { "detail": {} } });
    let refusals: Map<String, Value> = REFUSALS
        .into_iter()
        .map(|(status, why)| {
            let content = json!({ "application/json": { "schema": error } });
            let response = json!({ "description": why, "content": content });
            (status.to_string(), response)
        })
        .collect();
    Ok(json!({
        "openapi": "3.1.0",
        "info": { "title": "Gristmill", "version": "" },
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
            "responses": refusals,
        },
        "security": [{ "bearer": [] }],
        "paths": paths,
    }))
}

pub(super) async fn document(AppState(app): AppState<App>) -> Result<Json<Value>, ApiError> {
    let document = DOCUMENT.as_ref();
    let mut document = document.map_err(|e| ApiError::Internal(e.clone()))?.clone();
    document["info"]["version"] = app.version.as_str().into();
    Ok(Json(document))
}
