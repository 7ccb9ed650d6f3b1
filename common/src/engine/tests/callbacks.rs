//! Which events call, and with what.

use super::harness::*;
use crate::{
    callback::{CallOn, NewCall, Webhook},
    message::Ending::*,
    spec::DagSpec,
    state::TaskState,
};
use chrono::Duration;
use serde_json::{Value, json};

fn hook(to: &str) -> Value {
    json!([{"webhook": format!("http://h/{to}")}])
}

/// Every event of a task calls.
fn all_events(more: Value) -> Value {
    let mut task = json!({
        "on_success": hook("s"), "on_failure": hook("f"), "on_retry": hook("r"), "on_skipped": hook("k"),
    });
    let given = more.as_object().unwrap().clone();
    task.as_object_mut().unwrap().extend(given);
    task
}

fn world(tasks: Vec<Value>) -> World {
    let spec: DagSpec = serde_json::from_value(json!({
        "dag_id": "d", "on_success": hook("S"), "on_failure": hook("F"), "tasks": tasks,
    }))
    .unwrap();
    let mut world = World::of(spec, 1);
    world.start();
    world
}

/// The events that were called since the last time, with the task of each.
fn called(world: &mut World) -> Vec<(CallOn, Option<String>)> {
    let calls = std::mem::take(&mut world.calls);
    calls
        .into_iter()
        .map(|call| (call.event, call.task_id))
        .collect()
}

fn of(event: CallOn, task: &str) -> (CallOn, Option<String>) {
    (event, (!task.is_empty()).then(|| task.to_owned()))
}

#[test]
fn each_event_calls_its_own() {
    let retried = all_events(json!({"retries": 1, "retry_delay": "1s"}));
    let mut world = world(vec![
        task("a", &[], retried),
        task("b", &["a"], all_events(json!({"trigger_rule": "all_done"}))),
        task("c", &["b"], all_events(json!({"empty": {}}))),
    ]);
    world.end("a", Failed);
    assert_eq!(called(&mut world), [of(CallOn::OnRetry, "a")]);
    world.now += Duration::seconds(1);
    let row = world.ti("a").clone();
    world.apply(&[retry_due(row.run, row.pk)]);
    world.end("a", FailedForGood);
    assert_eq!(called(&mut world), [of(CallOn::OnFailure, "a")]);
    world.end("b", Skipped);
    // What a rule skips has not skipped itself; and the run ends with it.
    assert_eq!(world.state("c"), TaskState::Skipped);
    assert_eq!(
        called(&mut world),
        [of(CallOn::OnSkipped, "b"), of(CallOn::OnSuccess, "")]
    );
}

#[test]
fn a_run_calls_when_it_ends_and_nobody_for_a_cancel() {
    let mut good = world(vec![task(
        "a",
        &[],
        json!({"empty": {}, "on_success": hook("s")}),
    )]);
    assert_eq!(
        called(&mut good),
        [of(CallOn::OnSuccess, "a"), of(CallOn::OnSuccess, "")]
    );
    let mut bad = world(vec![task("a", &[], all_events(json!({})))]);
    bad.end("a", Failed);
    assert_eq!(
        called(&mut bad),
        [of(CallOn::OnFailure, "a"), of(CallOn::OnFailure, "")]
    );
    let mut cancelled = world(vec![task("a", &[], all_events(json!({})))]);
    cancelled.begin("a");
    cancelled.apply(&[stop("enough", true)]);
    let row = cancelled.ti("a").clone();
    cancelled.apply(&[finished(&row, Cancelled)]);
    assert!(cancelled.run().state.is_finished());
    assert_eq!(called(&mut cancelled), []);
}

#[test]
fn templates_see_the_event_and_errors_are_kept() {
    let callbacks = json!([
        {"webhook": "http://user:p@h:81/{{ event.state }}?x=1", "message": "{{ event.task_id }}: {{ event.reason }}",
         "headers": {"x-date": "{{ params.x }}"}},
        {"connection": "chat", "template": "slack"},
        {"webhook": "http://h/{{ params.nothing }}"},
    ]);
    let mut world = world(vec![task("a", &[], json!({"on_failure": callbacks}))]);
    world.runs.get_mut(&RUN).unwrap().params = json!({"x": "7"}).as_object().unwrap().clone();
    world.dispatch();
    let row = world.ti("a").clone();
    let mut ending = finished(&row, Failed);
    if let crate::engine::Command::Finished(event) = &mut ending {
        event.reason = Some("exit code 3".to_owned());
    }
    world.apply(&[ending]);
    let calls: Vec<NewCall> = std::mem::take(&mut world.calls);
    let of_task: Vec<&NewCall> = calls.iter().filter(|call| call.ti.is_some()).collect();
    let first: &Webhook = of_task[0].webhook.as_ref().unwrap();
    assert_eq!(first.url.as_deref(), Some("http://user:p@h:81/failed?x=1"));
    assert_eq!(first.headers["x-date"], "7");
    assert_eq!(of_task[0].target, "h:81");
    assert_eq!(of_task[0].body["message"], "a: exit code 3");
    assert_eq!(of_task[0].body["try_number"], 1);
    assert_eq!(of_task[1].target, "chat");
    assert_eq!(
        of_task[1].body,
        json!({"text": "d: a failed: exit code 3 (run r1)"})
    );
    let error = of_task[2].webhook.as_ref().unwrap_err();
    assert!(error.contains("nothing"), "{error}");
}
