//! DAG runs.

use super::{duration, time, time_or_null, version};
use gristmill_common::{row::RunRow, state::RunState};
use gristmill_store::{StateCounts, VersionRow};
use serde_json::{Value, json};

/// Airflow's closed list of what makes a run.
const TRIGGERED_BY: [&str; 8] = [
    "cli",
    "operator",
    "rest_api",
    "ui",
    "test",
    "timetable",
    "asset",
    "backfill",
];

/// `DAGRunResponse`, with `cancelled` and `reason` of our own; `task_states` counts instances by state.
pub(crate) fn run(row: &RunRow, of: &VersionRow, task_states: Option<&StateCounts>) -> Value {
    // One that was cleared and waits for its start keeps the time of its last.
    let started_at = row.started_at.filter(|_| row.state != RunState::Queued);
    let by = row.triggered_by.as_str();
    let mut value = json!({
        "dag_run_id": row.run_id,
        "dag_id": row.dag_id,
        "dag_display_name": row.dag_id,
        "state": row.state,
        "run_type": row.run_type,
        "triggered_by": if TRIGGERED_BY.contains(&by) { by } else { "rest_api" },
        "triggering_user_name": null,
        "logical_date": time_or_null(row.logical_date),
        "data_interval_start": time_or_null(row.data_interval_start),
        "data_interval_end": time_or_null(row.data_interval_end),
        "run_after": time(row.run_after),
        "queued_at": time(row.queued_at),
        "start_date": time_or_null(started_at),
        "end_date": time_or_null(row.ended_at),
        "duration": duration(started_at, row.ended_at),
        "last_scheduling_decision": null,
        "conf": row.conf,
        "params": row.params,
        "note": row.note,
        "dag_versions": [version(of)],
        "bundle_version": of.bundle,
        "partition_key": null,
        "partition_date": null,
        "cancelled": row.cancelled,
        "reason": row.stop_reason.as_ref().or(row.clean_up.as_ref()),
    });
    if let Some(counts) = task_states {
        value["task_states"] = json!(counts);
    }
    value
}
