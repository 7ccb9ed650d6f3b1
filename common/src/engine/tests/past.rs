//! `depends_on_past` and `wait_for_downstream`.

use super::harness::*;
use crate::{
    engine::{Past, RunBefore, Selection, Wish},
    ids::RunPk,
    message::Ending::*,
    row::TiRow,
    state::{RunState, TaskState},
};
use chrono::{DateTime, Duration};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FIRST: RunPk = RunPk(1);
const SECOND: RunPk = RunPk(2);

/// Two runs, a day apart, that have both been started.
fn two_runs(tasks: Vec<Value>) -> World {
    let spec = serde_json::from_value(json!({"dag_id": "d", "tasks": tasks})).unwrap();
    let mut world = World::of(spec, 2);
    for (run, day) in [(FIRST, 1), (SECOND, 2)] {
        let date = DateTime::UNIX_EPOCH + Duration::days(day);
        world.runs.get_mut(&run).unwrap().logical_date = Some(date);
    }
    world.start();
    world
}

fn of(world: &World, run: RunPk, task: &str) -> TiRow {
    let mut rows = world.tis.values();
    let row = rows.find(|row| row.run == run && row.task_id == task);
    row.unwrap().clone()
}

/// The task ends in the run, and the second run looks back again.
fn ends(world: &mut World, run: RunPk, task: &str, ending: crate::message::Ending) {
    world.dispatch();
    let row = of(world, run, task);
    world.apply(&[finished(&row, ending)]);
    world.look_again(SECOND);
}

#[test]
fn a_task_waits_for_itself_in_the_run_before() {
    let mut world = two_runs(vec![
        task("a", &[], json!({"depends_on_past": true})),
        task("b", &["a"], json!({})),
    ]);
    assert_eq!(of(&world, FIRST, "a").state, TaskState::Scheduled);
    let waiting = of(&world, SECOND, "a");
    assert!(waiting.waits_for_past());
    assert_eq!(
        waiting.reason.as_deref(),
        Some("in the run before, r1, has to succeed or be skipped: a (not started)")
    );
    ends(&mut world, FIRST, "a", Success);
    let goes_on = of(&world, SECOND, "a");
    assert_eq!(goes_on.state, TaskState::Scheduled);
    assert_eq!((goes_on.next_at, goes_on.reason), (None, None));
    // What does not depend on its past asks for nothing.
    ends(&mut world, SECOND, "a", Success);
    assert_eq!(of(&world, SECOND, "b").state, TaskState::Scheduled);
}

#[test]
fn a_failure_holds_the_next_run_until_it_is_mended() {
    for mended in [TaskState::Success, TaskState::Skipped] {
        let mut world = two_runs(vec![task("a", &[], json!({"depends_on_past": true}))]);
        ends(&mut world, FIRST, "a", FailedForGood);
        let reason = of(&world, SECOND, "a").reason.unwrap();
        assert!(
            reason.ends_with("a (failed); clear it there, or mark it success or skipped"),
            "{reason}"
        );
        let all = Selection::default();
        world.amend(FIRST, &all, Wish::Mark(mended)).unwrap();
        world.look_again(SECOND);
        assert_eq!(of(&world, SECOND, "a").state, TaskState::Scheduled);
    }
}

#[test]
fn wait_for_downstream_asks_for_the_direct_ones_too() {
    let mut world = two_runs(vec![
        task("a", &[], json!({"wait_for_downstream": true})),
        task("b", &["a"], json!({})),
        task("c", &["b"], json!({})),
    ]);
    ends(&mut world, FIRST, "a", Success);
    let reason = of(&world, SECOND, "a").reason.unwrap();
    assert!(reason.ends_with(": b (scheduled)"), "{reason}");
    ends(&mut world, FIRST, "b", Success);
    assert_eq!(of(&world, SECOND, "a").state, TaskState::Scheduled);
    assert_eq!(of(&world, FIRST, "c").state, TaskState::Scheduled);
}

#[test]
fn mapped_tasks_wait_for_all_instances_before_they_expand() {
    let mut world = two_runs(vec![task(
        "a",
        &[],
        json!({"depends_on_past": true, "expand": {"x": [1, 2]}}),
    )]);
    assert!(of(&world, SECOND, "a").waits_for_past());
    for index in 0..2 {
        assert!(of(&world, SECOND, "a").waits_for_past(), "{index}");
        world.dispatch();
        let mut rows = world.tis.values();
        let row = rows.find(|row| row.run == FIRST && row.map_index == index);
        let row = row.unwrap().clone();
        world.apply(&[finished(&row, Success)]);
        world.look_again(SECOND);
    }
    assert_eq!(of(&world, SECOND, "a").expanded_len, Some(2));
}

#[test]
fn who_waits_is_still_skipped_and_stopped() {
    let mut world = two_runs(vec![
        task("up", &[], json!({})),
        task(
            "a",
            &["up"],
            json!({"depends_on_past": true, "trigger_rule": "one_success"}),
        ),
    ]);
    ends(&mut world, SECOND, "up", Success);
    assert!(of(&world, SECOND, "a").waits_for_past());
    world.apply(&[stop_run(SECOND, "enough", true)]);
    let row = of(&world, SECOND, "a");
    assert_eq!((row.state, row.next_at), (TaskState::Skipped, None));
    assert_eq!(world.runs[&SECOND].state, RunState::Failed);
}

#[test]
fn what_the_run_before_says() {
    let before = |has_started, has_ended| RunBefore {
        run_id: "r".to_owned(),
        has_started,
        has_ended,
    };
    let states = |states: &[(TaskState, i64)]| vec![("t", BTreeMap::from_iter(states.to_vec()))];
    let waits = |before: &RunBefore, found: &[(TaskState, i64)]| {
        matches!(Past::of(before, &states(found)), Past::Waits(_))
    };
    let running = before(true, false);
    for &state in TaskState::ALL {
        use TaskState::*;
        let good = matches!(state, Success | Skipped | Removed);
        assert_eq!(waits(&running, &[(state, 1)]), !good, "{state}");
        assert_eq!(waits(&running, &[(Success, 3), (state, 1)]), !good);
    }
    assert!(waits(&before(false, false), &[]), "it has not started");
    assert!(!waits(&before(false, true), &[]), "it never will");
    assert!(!waits(&running, &[]), "the task was not there");
}
