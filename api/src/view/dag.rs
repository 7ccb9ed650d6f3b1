//! DAGs and their tasks.

use super::{time, time_delta, time_or_null, version};
use gristmill_common::{
    asset::AssetCondition,
    graph::Graph,
    spec::{DagSpec, Schedule, TaskSpec, WeightRule},
};
use gristmill_store::{DagRow, VersionRow};
use serde_json::{Map, Value, json};

/// `DAGResponse`.
pub(crate) fn dag(
    row: &DagRow,
    newest: &VersionRow,
    has_import_errors: bool,
) -> Map<String, Value> {
    let tags: Vec<Value> = row
        .tags
        .iter()
        .map(|name| json!({ "name": name, "dag_id": row.dag_id, "dag_display_name": row.dag_id }))
        .collect();
    let limited = newest
        .spec
        .tasks
        .iter()
        .any(|t| t.max_active_tis_per_dag.is_some() || t.max_active_tis_per_dagrun.is_some());
    object(json!({
        "dag_id": row.dag_id,
        "dag_display_name": row.dag_id,
        "description": row.description,
        "is_paused": row.is_paused,
        "pause_reason": row.pause_reason,
        "is_stale": row.is_stale,
        "owners": row.owner.iter().collect::<Vec<_>>(),
        "tags": tags,
        "fileloc": row.fileloc,
        "relative_fileloc": row.fileloc,
        "file_token": row.fileloc,
        "bundle_name": "dags",
        "bundle_version": newest.bundle,
        "version_number": row.version_number,
        "last_parsed_time": time(row.updated_at),
        "last_parse_duration": null,
        "last_expired": null,
        "timetable_summary": row.schedule,
        "timetable_description": row.schedule.as_deref().unwrap_or("Never, only when triggered"),
        "timetable_partitioned": false,
        "timetable_periodic": is_periodic(&newest.spec),
        "max_active_runs": row.max_active_runs,
        "max_active_tasks": row.max_active_tasks,
        "max_consecutive_failed_dag_runs": newest.spec.max_consecutive_failed_dag_runs,
        "has_task_concurrency_limits": limited,
        "has_import_errors": has_import_errors,
        "is_backfillable": is_periodic(&newest.spec),
        "allowed_run_types": null,
        "next_dagrun_logical_date": time_or_null(row.next_logical_date),
        "next_dagrun_data_interval_start": time_or_null(row.next_interval_start),
        "next_dagrun_data_interval_end": time_or_null(row.next_interval_end),
        "next_dagrun_run_after": time_or_null(row.next_run_after),
    }))
}

/// Whether its runs follow from dates.
fn is_periodic(spec: &DagSpec) -> bool {
    matches!(spec.schedule, Schedule::Every(_)) || !spec.schedule.crons().is_empty()
}

/// `DAGDetailsResponse`.
pub(crate) fn details(
    row: &DagRow,
    newest: &VersionRow,
    has_import_errors: bool,
    active_runs: i64,
) -> Value {
    let spec = &newest.spec;
    let params: Map<String, Value> = spec
        .params
        .iter()
        .map(|(name, schema)| (name.clone(), param(schema)))
        .collect();
    let mut all = dag(row, newest, has_import_errors);
    all.extend(object(json!({
        "active_runs_count": active_runs,
        "asset_expression": spec.schedule.assets().map(AssetCondition::expression),
        "catchup": spec.catchup,
        "concurrency": row.max_active_tasks,
        "dag_run_timeout": spec.dagrun_timeout.map(|t| format!("PT{}S", t.as_secs_f64())),
        "default_args": {},
        "doc_md": spec.doc_md,
        "start_date": time_or_null(spec.start_date),
        "end_date": time_or_null(spec.end_date),
        "is_favorite": false,
        "is_paused_upon_creation": spec.is_paused_upon_creation,
        "last_parsed": time(row.updated_at),
        "latest_dag_version": version(newest),
        "owner_links": {},
        "params": params,
        "render_template_as_native_obj": false,
        "rerun_with_latest_version": null,
        "template_search_path": null,
        "timezone": spec.timezone.name(),
    })));
    Value::Object(all)
}

/// Airflow's form of a parameter: its default, and its schema beside it.
fn param(schema: &Value) -> Value {
    json!({
        "value": schema.get("default"),
        "description": schema.get("description"),
        "schema": schema,
    })
}

/// `TaskResponse` of every task, in topological order.
pub(crate) fn tasks(spec: &DagSpec) -> Vec<Value> {
    let graph = Graph::of(spec);
    spec.tasks
        .iter()
        .zip(0..)
        .map(|(one, idx)| {
            let downstream: Vec<&str> = graph
                .downstream(idx)
                .iter()
                .filter_map(|i| spec.task(*i))
                .map(|t| t.task_id.as_str())
                .collect();
            task(spec, one, &downstream)
        })
        .collect()
}

fn task(spec: &DagSpec, task: &TaskSpec, downstream: &[&str]) -> Value {
    json!({
        "task_id": task.task_id,
        "task_display_name": task.task_id,
        "operator_name": task.kind.name(),
        "class_ref": { "module_path": null, "class_name": task.kind.name() },
        "owner": spec.owner,
        "depends_on_past": task.looks_back(),
        "wait_for_downstream": task.wait_for_downstream,
        "doc_md": task.doc_md,
        "upstream_task_ids": task.depends_on,
        "downstream_task_ids": downstream,
        "start_date": time_or_null(spec.start_date),
        "end_date": time_or_null(spec.end_date),
        "execution_timeout": task.execution_timeout.map(time_delta),
        "extra_links": [],
        "is_mapped": spec.mapping(task).is_some(),
        "params": {},
        "pool": task.pool,
        "pool_slots": task.pool_slots,
        "priority_weight": task.priority_weight,
        "queue": task.queue,
        "retries": task.retries,
        "retry_delay": time_delta(task.retry_delay),
        "retry_exponential_backoff": task.retry_exponential_backoff,
        "template_fields": [],
        "trigger_rule": task.trigger_rule.as_str(),
        "ui_color": "#ffffff",
        "ui_fgcolor": "#000000",
        "weight_rule": match task.weight_rule {
            WeightRule::Downstream => "downstream",
            WeightRule::Upstream => "upstream",
            WeightRule::Absolute => "absolute",
        },
    })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
