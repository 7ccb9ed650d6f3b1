//! `/openapi.json`: a small description of every operation. Its list is what the tests of the router go through.

use crate::parts::App;
use axum::{Json, extract::State};
use serde_json::{Map, Value, json};

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
    ("get", "/api/v2/pools/{pool}", "A pool"),
    ("patch", "/api/v2/pools/{pool}", "Change a pool"),
    ("delete", "/api/v2/pools/{pool}", "Delete a pool"),
    ("get", "/api/v2/variables", "List variables"),
    ("post", "/api/v2/variables", "Create a variable"),
    ("get", "/api/v2/variables/{key}", "A variable"),
    ("patch", "/api/v2/variables/{key}", "Change a variable"),
    ("delete", "/api/v2/variables/{key}", "Delete a variable"),
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

/// The names in a path's braces.
fn parts_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
}

pub(super) async fn document(State(app): State<App>) -> Json<Value> {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, summary) in OPERATIONS {
        let parameters: Vec<Value> = parts_of(path)
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let item = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        item[*method] = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": { "default": { "description": "JSON; an error is {\"detail\": …}" } },
        });
    }
    Json(json!({
        "openapi": "3.1.0",
        "info": { "title": "Gristmill", "version": app.version },
        "components": { "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } } },
        "security": [{ "bearer": [] }],
        "paths": paths,
    }))
}
