//! The API, played.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

pub(super) const RUN: &str = "/api/v2/dags/sales/dagRuns/r1";

/// Answers one after the other; the last again and again.
#[derive(Debug)]
pub(super) struct Sequence(Mutex<VecDeque<ResponseTemplate>>);

impl Sequence {
    pub(super) fn of(answers: impl IntoIterator<Item = ResponseTemplate>) -> Self {
        Self(Mutex::new(answers.into_iter().collect()))
    }
}

impl Respond for Sequence {
    fn respond(&self, _request: &Request) -> ResponseTemplate {
        let mut answers = self.0.lock().unwrap();
        match answers.len() {
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        }
    }
}

pub(super) fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

pub(super) async fn answer(
    server: &MockServer,
    verb: &str,
    at: &str,
    answer: impl Respond + 'static,
) {
    let mock = Mock::given(method(verb)).and(path(at)).respond_with(answer);
    mock.mount(server).await;
}

pub(super) fn run(state: &str) -> Value {
    let ended = matches!(state, "success" | "failed");
    json!({
        "dag_id": "sales", "dag_run_id": "r1", "state": state, "run_type": "manual", "cancelled": false, "reason": null,
        "start_date": "2026-01-02T03:04:05Z", "end_date": ended.then_some("2026-01-02T03:04:17Z"), "duration": null,
        "run_after": "2026-01-02T03:04:05Z", "task_states": {state: 2},
    })
}

pub(super) fn instance(task_id: &str, state: &str, try_number: u32) -> Value {
    json!({
        "task_id": task_id, "map_index": -1, "state": state, "try_number": try_number, "queue": "default",
        "hostname": "w1", "start_date": "2026-01-02T03:04:05Z", "duration": 1.5, "reason": null,
    })
}

/// The DAG `sales` with an integer parameter `n`, and a run `r1` of it that has just been started.
pub(super) async fn dag(server: &MockServer, paused: bool) {
    let details = json!({
        "dag_id": "sales", "is_paused": paused,
        "params": {"n": {"value": 1, "schema": {"type": "integer"}}},
    });
    answer(server, "GET", "/api/v2/dags/sales/details", ok(details)).await;
    answer(
        server,
        "POST",
        "/api/v2/dags/sales/dagRuns",
        ok(run("queued")),
    )
    .await;
}

/// A run that passes through these states.
pub(super) async fn states(server: &MockServer, states: &[&str]) {
    answer(server, "GET", RUN, ok(run(states[0]))).await;
    let rest = states[1..].iter().map(|state| ok(run(state)));
    answer(server, "GET", &format!("{RUN}/wait"), Sequence::of(rest)).await;
}

pub(super) async fn instances(server: &MockServer, instances: Value) {
    let at = format!("{RUN}/taskInstances");
    answer(server, "GET", &at, ok(json!({"task_instances": instances, "total_entries": instances.as_array().unwrap().len()}))).await;
}

/// A page of a log.
pub(super) fn log(lines: &[&str], token: Option<&str>) -> ResponseTemplate {
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| json!({"timestamp": "2026-01-02T03:04:05Z", "event": line, "level": "info", "logger": "stdout"}))
        .collect();
    ok(json!({"content": lines, "continuation_token": token}))
}
