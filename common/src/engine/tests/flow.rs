//! Branches, short circuits, `latest_only`: what a scheduler decides itself.

use super::harness::*;
use crate::{
    engine::{DECISION_KEY, decision_skips},
    ids::UNMAPPED,
    message::{Ending::*, XcomOut},
    row::{RETURN_VALUE, RunType, XcomValue},
    spec::DagSpec,
    state::{RunState, TaskState},
};
use chrono::{DateTime, Duration, Utc};
use rstest::rstest;
use serde_json::{Value, json};

/// `start` returns a value; `b` branches by it over `x`, `y` and `j`, which also follows both.
fn branching(choose: &str, returned: Value) -> World {
    let mut world = World::started(vec![
        task("start", &[], json!({})),
        task("b", &["start"], json!({"branch": {"choose": choose}})),
        task("x", &["b"], json!({})),
        task("y", &["b"], json!({})),
        task(
            "j",
            &["b", "x", "y"],
            json!({"trigger_rule": "none_failed_min_one_success"}),
        ),
    ]);
    world.dispatch();
    let start = world.ti("start").clone();
    let value = XcomOut {
        key: RETURN_VALUE.to_owned(),
        value: XcomValue::Inline(returned),
    };
    world.apply(&[finished_with(&start, Success, vec![value])]);
    world
}

const PULL: &str = "{{ ti.xcom_pull('start') }}";

/// The states of `b`, `x`, `y` and `j` once it has decided.
#[rstest]
#[case::one(PULL, json!("x"), ["success", "scheduled", "skipped", "none"])]
#[case::a_list(PULL, json!(["x", "y"]), ["success", "scheduled", "scheduled", "none"])]
#[case::none(PULL, json!(null), ["success", "skipped", "skipped", "skipped"])]
#[case::an_empty_list(PULL, json!([]), ["success", "skipped", "skipped", "skipped"])]
#[case::text("{% if ti.xcom_pull('start') > 3 %}x{% else %}y{% endif %}", json!(2), ["success", "skipped", "scheduled", "none"])]
#[case::an_empty_text("{% if ti.xcom_pull('start') > 3 %}x{% endif %}", json!(2), ["success", "skipped", "skipped", "skipped"])]
#[case::the_join_alone(PULL, json!("j"), ["success", "skipped", "skipped", "scheduled"])]
#[case::unknown(PULL, json!("z"), ["failed", "upstream_failed", "upstream_failed", "upstream_failed"])]
#[case::no_id(PULL, json!(7), ["failed", "upstream_failed", "upstream_failed", "upstream_failed"])]
fn a_branch_follows_what_it_chooses(
    #[case] choose: &str,
    #[case] returned: Value,
    #[case] expected: [&str; 4],
) {
    let world = branching(choose, returned);
    assert_eq!(world.states()[1..], expected);
}

#[test]
fn a_task_that_joins_the_branches_runs_although_it_was_not_chosen() {
    let mut world = branching(PULL, json!("x"));
    world.end("x", Success);
    assert_eq!(world.state("j"), TaskState::Scheduled);
    world.end("j", Success);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn a_wrong_choice_is_named_with_what_was_allowed() {
    let world = branching(PULL, json!(["x", "zed"]));
    let reason = world.ti("b").reason.clone().unwrap();
    assert!(
        reason.contains("\"zed\"") && reason.contains("x, y, j"),
        "{reason}"
    );
    let world = branching(PULL, json!({"a": 1}));
    let reason = world.ti("b").reason.clone().unwrap();
    assert!(reason.contains(r#"{"a":1}"#), "{reason}");
}

#[test]
fn a_decision_is_kept_for_tasks_that_are_cleared_later() {
    let mut world = branching(PULL, json!("x"));
    assert_eq!(world.xcom("b", RETURN_VALUE), Some(json!("x")));
    let record = world.xcom("b", DECISION_KEY).unwrap();
    assert_eq!(record, json!({"followed": ["x", "j"]}));
    let skipped = |task| decision_skips(&record, task);
    assert_eq!(
        [skipped("x"), skipped("j"), skipped("y")],
        [false, false, true]
    );
    // Put back by hand, as a clear does.
    for task_id in ["y", "x"] {
        world.put_back(task_id);
        world.decide_again(task_id, std::slice::from_ref(&record));
    }
    assert_eq!(world.state("y"), TaskState::Skipped);
    assert_eq!(world.state("x"), TaskState::Scheduled);
}

#[test]
fn a_group_is_chosen_by_its_name_and_names_are_those_of_the_branchs_group() {
    let mut world = World::started(vec![
        task("g.b", &[], json!({"branch": {"choose": "inner"}})),
        task("g.inner.a", &["g.b"], json!({})),
        task("g.inner.b", &["g.inner.a"], json!({})),
        task("g.other", &["g.b"], json!({})),
    ]);
    let states = ["success", "scheduled", "none", "skipped"];
    assert_eq!(world.states(), states);
    world.end("g.inner.a", Success);
    assert_eq!(world.state("g.inner.b"), TaskState::Scheduled);
}

#[test]
fn a_skip_overrides_rules_and_stops_what_waits_but_not_what_runs_or_has_ended() {
    let rule = |rule| json!({"trigger_rule": rule, "retries": 1, "retry_delay": "1h"});
    let mut world = World::started(
        vec![
            task("start", &[], json!({})),
            task(
                "b",
                &["start"],
                json!({"branch": "".to_owned(), "trigger_rule": "all_done"}),
            ),
        ]
        .into_iter()
        .map(|mut task| {
            if task["task_id"] == "b" {
                task["branch"] = json!({"choose": ""});
            }
            task
        })
        .chain([
            task("waits", &["b"], rule("all_done")),
            task("ready", &["b"], rule("always")),
            task("retries", &["b"], rule("always")),
            task("runs", &["b"], rule("always")),
            task("ended", &["b"], rule("always")),
            task(
                "mapped",
                &["b"],
                json!({"expand": {"x": [1, 2]}, "trigger_rule": "all_done"}),
            ),
        ])
        .collect(),
    );
    world.end("retries", Failed);
    world.end("ended", Success);
    world.begin("runs");
    let ready = world.ti("ready").clone();
    world.apply(&[requeued(&ready)]);
    let before = [
        "none",
        "scheduled",
        "up_for_retry",
        "running",
        "success",
        "none",
    ];
    assert_eq!(world.states()[2..], before);
    let start = world.ti("start").clone();
    world.apply(&[finished(&start, Success)]);
    let after = [
        "skipped", "skipped", "skipped", "running", "success", "skipped",
    ];
    assert_eq!(world.states()[2..], after);
    world.end("runs", Success);
    assert_eq!(world.run().state, RunState::Success);
}

#[rstest]
#[case(json!("{{ 1 < 2 }}"), true)]
#[case(json!("{{ 1 > 2 }}"), false)]
#[case(json!("{{ [] }}"), false)]
#[case(json!("{{ [0] }}"), true)]
#[case(json!("{{ 0 }}"), false)]
#[case(json!("{{ none }}"), false)]
#[case(json!("{% if true %}False{% endif %}"), false)]
#[case(json!("yes"), true)]
#[case(json!(""), false)]
fn a_short_circuit_goes_by_truth(#[case] condition: Value, #[case] goes_on: bool) {
    let world = World::started(vec![
        task("s", &[], json!({"short_circuit": {"condition": condition}})),
        task("a", &["s"], json!({})),
    ]);
    let after = if goes_on { "scheduled" } else { "skipped" };
    assert_eq!(world.states(), ["success", after]);
}

/// `s` ≻ `a` ≻ `b` (`all_done`) ≻ `t` (a teardown of the setup `p`, which is elsewhere).
fn circuit(ignore: bool) -> World {
    World::started(vec![
        task("p", &[], json!({"empty": {}, "setup": true})),
        task(
            "s",
            &[],
            json!({"short_circuit": {"condition": "false", "ignore_downstream_trigger_rules": ignore}}),
        ),
        task("a", &["s"], json!({})),
        task("b", &["a"], json!({"trigger_rule": "all_done"})),
        task(
            "t",
            &["b", "p"],
            json!({"teardown": {}, "trigger_rule": "all_done_setup_success"}),
        ),
    ])
}

#[test]
fn a_short_circuit_skips_all_below_but_teardowns() {
    let mut world = circuit(true);
    assert_eq!(world.states()[2..], ["skipped", "skipped", "scheduled"]);
    let record = world.xcom("s", DECISION_KEY);
    assert_eq!(record, Some(json!({"skipped": ["a", "b"]})));
    world.end("t", Success);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn or_the_direct_ones_only() {
    let world = circuit(false);
    assert_eq!(world.states()[2..], ["skipped", "scheduled", "none"]);
}

fn latest(run_type: RunType, hours_after_end: i64) -> World {
    let spec: DagSpec = serde_json::from_value(json!({
        "dag_id": "d", "schedule": {"cron": "0 * * * *"},
        "tasks": [
            task("l", &[], json!({"latest_only": {}})),
            task("a", &["l"], json!({"trigger_rule": "all_done"})),
        ],
    }))
    .unwrap();
    let mut world = World::of(spec, 1);
    let end: DateTime<Utc> = "2026-01-01T05:00:00Z".parse().unwrap();
    world.now = end + Duration::hours(hours_after_end) + Duration::minutes(1);
    let run = world.runs.get_mut(&RUN).unwrap();
    run.run_type = run_type;
    run.data_interval_start = Some(end - Duration::hours(1));
    run.data_interval_end = Some(end);
    world.start();
    world
}

#[rstest]
#[case(RunType::Scheduled, 0, "scheduled")]
#[case(RunType::Scheduled, 1, "skipped")]
#[case(RunType::Backfill, 300, "skipped")]
#[case(RunType::Manual, 300, "scheduled")]
fn latest_only_lets_the_latest_run_on(
    #[case] run_type: RunType,
    #[case] hours_after_end: i64,
    #[case] after: &str,
) {
    let world = latest(run_type, hours_after_end);
    assert_eq!(world.states(), ["success", after]);
    assert_eq!(world.find("l", UNMAPPED).try_number, 0);
}

#[test]
fn a_failure_and_a_skip_of_one_wave_are_a_failure() {
    // Both upstreams of `j` end by what `start` does, and neither before the other.
    let mut world = World::started(vec![
        task("start", &[], json!({})),
        task("skips", &["start"], json!({"trigger_rule": "none_skipped"})),
        task("a", &["start"], json!({"trigger_rule": "all_failed"})),
        task("b", &["start"], json!({})),
        task("j", &["a", "b"], json!({})),
        task("k", &["a"], json!({"trigger_rule": "all_success"})),
    ]);
    world.end("start", Skipped);
    assert_eq!(
        world.states()[1..],
        ["skipped", "skipped", "skipped", "skipped", "skipped"]
    );
    let mut world = World::started(vec![
        task("start", &[], json!({})),
        task("a", &["start"], json!({"trigger_rule": "none_failed"})),
        task("b", &["start"], json!({"trigger_rule": "all_skipped"})),
        task("j", &["b", "a"], json!({})),
    ]);
    world.end("start", Failed);
    assert_eq!(
        world.states(),
        ["failed", "upstream_failed", "skipped", "upstream_failed"]
    );
}
