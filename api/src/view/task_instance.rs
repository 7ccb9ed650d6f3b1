//! Task instances and their tries.

use super::{duration, time, time_or_null, version};
use gristmill_common::{
    row::{AttemptRow, RunRow, TiRow},
    state::TaskState,
};
use gristmill_store::VersionRow;
use serde_json::{Value, json};
use uuid::Uuid;

/// A state on Airflow's API, where the first is null.
pub(crate) fn state(state: TaskState) -> Value {
    match state {
        TaskState::None => Value::Null,
        other => other.as_str().into(),
    }
}

/// `TaskInstanceResponse`, with what we know beside it.
pub(crate) fn task_instance(row: &TiRow, run: &RunRow, of: &VersionRow) -> Value {
    let kind = of.spec.task(row.task_idx).map_or("", |t| t.kind.name());
    json!({
        "id": row.attempt.unwrap_or_else(|| never_tried(row)),
        "task_id": row.task_id,
        "task_display_name": row.task_id,
        "dag_id": run.dag_id,
        "dag_display_name": run.dag_id,
        "dag_run_id": run.run_id,
        "map_index": row.map_index,
        "logical_date": time_or_null(run.logical_date),
        "run_after": time(run.run_after),
        "start_date": time_or_null(row.started_at),
        "end_date": time_or_null(row.ended_at),
        "duration": duration(row.started_at, row.ended_at),
        "state": state(row.state),
        "try_number": row.try_number,
        "max_tries": row.max_tries,
        "hostname": row.hostname,
        "unixname": null,
        "pool": row.pool,
        "pool_slots": row.pool_slots,
        "queue": row.queue,
        "priority_weight": row.priority_weight,
        "operator": kind,
        "operator_name": kind,
        "queued_when": time_or_null(row.queued_at),
        "scheduled_when": time_or_null(row.scheduled_at),
        "pid": row.pid,
        "executor": null,
        "executor_config": "{}",
        "note": null,
        "rendered_map_index": row.map_name,
        "rendered_fields": {},
        "trigger": null,
        "triggerer_job": null,
        "dag_version": version(of),
        "map_values": row.map_values,
        "reason": row.reason,
        "exit_code": row.exit_code,
        "worker": row.worker,
        "next_retry_at": time_or_null(row.next_at.filter(|_| row.state == TaskState::UpForRetry)),
        "infra_losses": row.infra_losses,
    })
}

/// One ended try: `TaskInstanceHistoryResponse`.
pub(crate) fn attempt(attempt: &AttemptRow, row: &TiRow, run: &RunRow, of: &VersionRow) -> Value {
    let mut value = task_instance(row, run, of);
    value["id"] = json!(attempt.attempt);
    value["task_instance_id"] = json!(attempt.attempt);
    value["try_number"] = json!(attempt.try_number);
    // A try that infrastructure ended has failed for Airflow's closed list of states.
    value["state"] = match attempt.ending.as_str() {
        "lost" | "requeued" => "failed".into(),
        other => other.into(),
    };
    value["ending"] = json!(attempt.ending);
    value["start_date"] = time_or_null(attempt.started_at);
    value["end_date"] = time(attempt.ended_at);
    value["duration"] = duration(attempt.started_at, Some(attempt.ended_at));
    value["hostname"] = json!(attempt.hostname);
    value["pid"] = json!(attempt.pid);
    value["worker"] = json!(attempt.worker);
    value["exit_code"] = json!(attempt.exit_code);
    value["reason"] = json!(attempt.reason);
    value
}

/// Airflow gives every instance a UUID; one that was never tried has one made of its key.
fn never_tried(row: &TiRow) -> Uuid {
    Uuid::new_v5(
        &Uuid::NAMESPACE_OID,
        format!("gristmill/ti/{}", row.pk).as_bytes(),
    )
}
