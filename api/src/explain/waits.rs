//! Instances that wait without a worker: for what, and until when.

use super::{Facts, Found};
use gristmill_common::{
    row::TiRow,
    spec::{SensorOn, TaskKind},
    state::TaskState,
};
use serde_json::json;

/// Its trigger rule holds, but not what `depends_on_past` asks for.
pub(super) fn past(ti: &TiRow, found: &mut Found) {
    let why = ti.reason.as_deref().unwrap_or("the run before it");
    found.add(
        "depends_on_past",
        format!("depends_on_past: {why}"),
        json!({ "next_look_at": ti.next_at }),
    );
}

pub(super) fn waiting(facts: &Facts, ti: &TiRow, found: &mut Found) {
    let counts = facts
        .pool
        .as_ref()
        .is_some_and(|pool| pool.include_deferred);
    if ti.state == TaskState::Deferred && !ti.try_goes_on() && counts {
        // It takes a slot before it begins to wait.
        super::pool(facts, ti, found);
        if !found.is_empty() {
            return;
        }
    }
    let why = ti.reason.as_deref().unwrap_or("it was just begun");
    let due = match ti.next_at {
        Some(at) if at > facts.now => format!("; the next look is due at {at}"),
        Some(_) => "; the next look is due now".to_owned(),
        None => String::new(),
    };
    let wait = ti.wait.as_ref();
    let details = json!({
        "since": wait.map(|wait| wait.since),
        "looks": wait.map(|wait| wait.looks),
        "next_look_at": ti.next_at,
    });
    let (kind, message) = match &facts.task.kind {
        _ if ti.state == TaskState::UpForReschedule => (
            "sensor_poke",
            format!("the sensor found nothing yet: {why}{due}"),
        ),
        TaskKind::Sensor(sensor) => match &sensor.on {
            SensorOn::Time(_) | SensorOn::Delta(_) => ("sensor_time", format!("the sensor {why}")),
            SensorOn::Dag(_) => (
                "sensor_dag",
                format!("the sensor waits for another DAG: {why}{due}"),
            ),
            SensorOn::Asset(_) => (
                "sensor_asset",
                format!("the sensor waits for an update of an asset: {why}{due}"),
            ),
            _ => ("sensor_poke", format!("the sensor waits: {why}{due}")),
        },
        TaskKind::TriggerDag(task) if ti.wait.is_none() => (
            "trigger_dag",
            format!("a scheduler is about to trigger a run of {}", task.dag_id),
        ),
        // It sleeps until the run wakes it: no look is worth a word.
        TaskKind::TriggerDag(_) => ("triggered_run", format!("it {why}")),
        TaskKind::Approval(task) => (
            "approval",
            match ti.next_at.filter(|at| *at > facts.now) {
                Some(at) => format!(
                    "it waits for an answer of {} until {at}",
                    task.who.join(", ")
                ),
                None => format!("it waits for an answer of {}", task.who.join(", ")),
            },
        ),
        _ => ("waiting", format!("it is {}: {why}{due}", ti.state)),
    };
    found.add(kind, message, details);
}
