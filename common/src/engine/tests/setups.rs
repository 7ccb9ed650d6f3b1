//! Setups and teardowns.

use super::harness::*;
use crate::{
    message::Ending::{self, *},
    state::{RunState, TaskState},
};
use rstest::rstest;
use serde_json::{Value, json};

fn setup(id: &str, upstreams: &[&str]) -> Value {
    task(id, upstreams, json!({"setup": true}))
}

fn teardown(id: &str, upstreams: &[&str], fails_run: bool) -> Value {
    let more = json!({
        "teardown": {"on_failure_fail_dagrun": fails_run},
        "trigger_rule": "all_done_setup_success",
    });
    task(id, upstreams, more)
}

/// `s` ≻ `a` ≻ `b` ≻ `t`, and `t` cleans up after `s`; `c` follows `b`, outside of the scope.
fn world(fails_run: bool) -> World {
    World::started(vec![
        setup("s", &[]),
        task("a", &["s"], json!({})),
        task("b", &["a"], json!({"trigger_rule": "all_done"})),
        task("c", &["b"], json!({"trigger_rule": "all_done"})),
        teardown("t", &["b", "s"], fails_run),
    ])
}

#[rstest]
#[case(Failed, ["failed", "upstream_failed", "upstream_failed", "scheduled", "upstream_failed"])]
#[case(Skipped, ["skipped", "skipped", "skipped", "scheduled", "skipped"])]
fn what_a_setup_comes_to_decides_all_that_it_was_made_for(
    #[case] ending: Ending,
    #[case] expected: [&str; 5],
) {
    let mut world = world(false);
    world.end("s", ending);
    assert_eq!(world.states(), expected);
    let why = world.ti("b").reason.clone().unwrap();
    assert!(why.contains("setup"), "{why}");
}

/// How a task fails between setup and teardown, and how the teardown ends, and the run.
#[rstest]
#[case::cleans_up(Success, Success, false, RunState::Success)]
#[case::a_teardown_decides_nothing(Success, Failed, false, RunState::Success)]
#[case::unless_it_is_meant_to(Success, Failed, true, RunState::Failed)]
#[case::work_that_failed(Failed, Success, false, RunState::Failed)]
fn a_teardown_cleans_up_whatever_happened(
    #[case] work: Ending,
    #[case] cleaning: Ending,
    #[case] fails_run: bool,
    #[case] run: RunState,
) {
    let mut world = World::started(vec![
        setup("s", &[]),
        task("a", &["s"], json!({})),
        teardown("t", &["a", "s"], fails_run),
    ]);
    world.end("s", Success);
    assert_eq!(world.state("t"), TaskState::None);
    world.end("a", work);
    world.end("t", cleaning);
    // Whose failure counts although it is no leaf: with the teardown deciding, the work above it does not.
    let run = if fails_run {
        if cleaning == Failed {
            RunState::Failed
        } else {
            run
        }
    } else {
        run
    };
    assert_eq!(world.run().state, run);
}

#[test]
fn a_teardown_waits_for_all_between_it_and_its_setup() {
    let mut world = World::started(vec![
        setup("s", &[]),
        task("quick", &["s"], json!({})),
        task("slow", &["s"], json!({})),
        task(
            "first",
            &["quick", "slow"],
            json!({"trigger_rule": "one_success"}),
        ),
        teardown("t", &["first", "s"], false),
    ]);
    world.end("s", Success);
    world.end("quick", Success);
    world.end("first", Success);
    assert_eq!(
        world.states(),
        ["success", "success", "queued", "success", "none"]
    );
    world.end("slow", Success);
    assert_eq!(world.state("t"), TaskState::Scheduled);
}

#[test]
fn a_task_needs_every_setup_above_it_though_its_rule_asks_for_less() {
    let mut world = World::started(vec![
        setup("s1", &[]),
        setup("s2", &[]),
        task("a", &["s1"], json!({})),
        task("b", &["s2"], json!({})),
        task("c", &["a", "b"], json!({"trigger_rule": "one_success"})),
        teardown("t", &["c", "s1", "s2"], false),
    ]);
    world.end("s1", Success);
    world.end("a", Success);
    assert_eq!(world.state("c"), TaskState::None, "s2 has not ended");
    world.end("s2", Success);
    assert_eq!(world.state("c"), TaskState::Scheduled);
}

#[test]
fn one_setup_that_succeeded_is_enough_to_clean_up() {
    let mut world = World::started(vec![
        setup("s1", &[]),
        setup("s2", &[]),
        teardown("t", &["s1", "s2"], false),
    ]);
    world.end("s1", Failed);
    world.end("s2", Success);
    assert_eq!(world.state("t"), TaskState::Scheduled);
}

#[test]
fn setups_and_work_between_may_be_mapped() {
    let mut world = World::started(vec![
        task("s", &[], json!({"setup": true, "expand": {"x": [1, 2]}})),
        task("a", &["s"], json!({"expand": {"x": [1, 2, 3]}})),
        task("b", &["a"], json!({"trigger_rule": "one_success"})),
        teardown("t", &["b", "s"], false),
    ]);
    for i in 0..2 {
        world.end_at("s", i, Success);
    }
    world.end_at("a", 0, Success);
    world.end("b", Success);
    assert_eq!(world.state("t"), TaskState::None, "two of `a` still run");
    world.end_at("a", 1, Failed);
    world.end_at("a", 2, Success);
    assert_eq!(world.state("t"), TaskState::Scheduled);
}
