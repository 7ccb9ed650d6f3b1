//! Clear and mark.

use super::harness::*;
use crate::{
    engine::{Selection, Wish},
    ids::RunPk,
    message::{Ending::*, XcomOut},
    row::{RETURN_VALUE, XcomValue},
    state::{RunState, TaskState},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn chain() -> World {
    World::started(vec![
        task("a", &[], json!({"retries": 2, "retry_delay": "1h"})),
        task("b", &["a"], json!({})),
        task("c", &["b"], json!({})),
    ])
}

#[test]
fn a_cleared_chain_of_an_ended_run_runs_anew() {
    let mut world = chain();
    for id in ["a", "b"] {
        world.end(id, Success);
    }
    world.end("c", Failed);
    assert_eq!(world.run().state, RunState::Failed);
    let amended = world.clear(&["b"], true);
    assert_eq!(amended.cleared.len(), 2);
    assert_eq!(world.states(), ["success", "none", "none"]);
    assert_eq!(world.run().state, RunState::Queued);
    world.start();
    assert_eq!(world.states(), ["success", "scheduled", "none"]);
    world.end("b", Success);
    world.end("c", Success);
    assert_eq!(world.run().state, RunState::Success);
    let row = world.ti("b");
    assert_eq!(
        (row.try_number, row.fence.0),
        (2, 2),
        "tries and fences go on"
    );
    assert_eq!(world.attempts.len(), 5, "and the history is kept");
}

#[test]
fn a_cleared_task_has_all_its_retries_again() {
    let mut world = chain();
    for _ in 0..3 {
        world.now += chrono::Duration::hours(2);
        let row = world.ti("a").clone();
        world.apply(&[retry_due(RUN, row.pk)]);
        world.end("a", Failed);
    }
    assert_eq!(
        world.states(),
        ["failed", "upstream_failed", "upstream_failed"]
    );
    world.clear(&["a"], true);
    let row = world.ti("a");
    assert_eq!(
        (row.try_number, row.max_tries, row.user_failures),
        (3, 5, 0)
    );
    world.start();
    world.end("a", Failed);
    assert_eq!(world.state("a"), TaskState::UpForRetry);
    // Clearing it while it waits makes it run now.
    world.clear(&["a"], false);
    assert_eq!(world.state("a"), TaskState::Scheduled);
}

#[test]
fn a_running_task_is_stopped_first_and_its_late_ending_changes_nothing() {
    let mut world = chain();
    world.begin("a");
    let out = world.ti("a").clone();
    let amended = world.clear(&["a"], true);
    assert_eq!(amended.halted, [out.pk]);
    assert_eq!(world.state("a"), TaskState::Restarting);
    assert!(world.ti("a").occupies, "until it is dead");
    // It succeeds before it could be killed: that counts for nothing.
    world.apply(&[finished(&out, Success)]);
    assert_eq!(world.states(), ["scheduled", "none", "none"]);
    world.dispatch();
    assert_eq!(world.apply(&[finished(&out, Failed)]).stale, 1, "fenced");
    assert_eq!(world.ti("a").try_number, 2);
    let kept: Vec<&str> = world.attempts.iter().map(|a| a.ending.as_str()).collect();
    assert_eq!(kept, ["success"]);
}

#[test]
fn every_way_in_which_a_halted_dispatch_can_end() {
    for how in 0..5 {
        for then in [None, Some(TaskState::Success), Some(TaskState::Skipped)] {
            let mut world = chain();
            world.dispatch();
            if how < 2 {
                world.begin("a");
            }
            let out = world.ti("a").clone();
            match then {
                None => world.clear(&["a"], false),
                Some(state) => world.mark(&["a"], state),
            };
            assert_eq!(world.state("a"), TaskState::Restarting);
            world.apply(&[match how {
                0 => finished(&out, Cancelled),
                1 => lost(&out),
                2 => requeued(&out),
                3 => forgotten(&out),
                _ => cancelled_unclaimed(RUN, out.dispatch()),
            }]);
            let is = world.state("a");
            assert_eq!(is, then.unwrap_or(TaskState::Scheduled), "{how} {then:?}");
        }
    }
}

#[test]
fn a_mark_counts_downstream_and_heals_an_ended_run() {
    let mut world = chain();
    world.end("a", FailedForGood);
    assert_eq!(world.run().state, RunState::Failed);
    world.mark(&["a"], TaskState::Success);
    assert_eq!(world.states(), ["success", "none", "none"]);
    world.start();
    world.end("b", Success);
    world.end("c", Failed);
    assert_eq!(world.run().state, RunState::Failed);
    world.mark(&["c"], TaskState::Success);
    assert_eq!(
        world.run().state,
        RunState::Success,
        "nothing is left to do"
    );
    world.mark(&["b"], TaskState::Failed);
    assert_eq!(world.states(), ["success", "failed", "success"]);
    assert_eq!(world.run().state, RunState::Success, "only leaves decide");
}

#[test]
fn what_has_not_started_can_be_marked() {
    let mut world = chain();
    world.mark(&["b"], TaskState::Skipped);
    assert_eq!(world.states(), ["scheduled", "skipped", "skipped"]);
    world.end("a", Success);
    assert_eq!(world.run().state, RunState::Success);
}

fn list(n: usize) -> Vec<XcomOut> {
    vec![XcomOut {
        key: RETURN_VALUE.into(),
        value: XcomValue::Inline((0..n).map(Value::from).collect()),
    }]
}

fn mapped(n: usize) -> World {
    let expand = json!({"expand": {"x": "{{ ti.xcom_pull('list') }}"}});
    let mut world = World::started(vec![
        task("list", &[], json!({})),
        task("each", &["list"], expand),
        task("after", &["each"], json!({})),
    ]);
    give(&mut world, n);
    world
}

/// The list comes.
fn give(world: &mut World, n: usize) {
    world.dispatch();
    let row = world.ti("list").clone();
    world.apply(&[finished_with(&row, Success, list(n))]);
}

fn end_all(world: &mut World) {
    while world.run().state != RunState::Success {
        world.start();
        world.dispatch();
        let out: Vec<_> = world
            .in_state(&[TaskState::Queued, TaskState::Running])
            .iter()
            .map(|row| finished(row, Success))
            .collect();
        assert!(!out.is_empty(), "{:?}", world.states());
        world.apply(&out);
    }
}

#[test]
fn a_mapped_task_expands_anew_to_any_length() {
    for before in [1, 3, 5] {
        for after in [0, 1, 3, 7] {
            let mut world = mapped(before);
            end_all(&mut world);
            world.clear(&["list"], true);
            world.start();
            give(&mut world, after);
            end_all(&mut world);
            let state = |i| world.find("each", i).state;
            for i in 0..before.max(after) as i32 {
                let want = match (i as usize) < after {
                    true => TaskState::Success,
                    false => TaskState::Removed,
                };
                assert_eq!(state(i), want, "{before} -> {after}");
            }
            // And back: what had been removed comes in again, under its fence.
            world.clear(&["list"], true);
            world.start();
            give(&mut world, before);
            end_all(&mut world);
            let tries = if after > 0 { 3 } else { 2 };
            assert_eq!(
                world.find("each", 0).try_number,
                tries,
                "{before} -> {after}"
            );
        }
    }
}

#[test]
fn one_instance_runs_anew_alone_and_waits_for_its_upstream() {
    let mut world = mapped(3);
    end_all(&mut world);
    let one = |world: &World, also: &[&str]| {
        let spec = &world.plan(RUN).spec;
        let mut tasks = vec![(spec.idx("each").unwrap(), Some(1))];
        tasks.extend(also.iter().map(|id| (spec.idx(id).unwrap(), None)));
        Selection {
            tasks: Some(tasks),
            ..Selection::default()
        }
    };
    let selection = one(&world, &[]);
    world.amend(RUN, &selection, Wish::Clear).unwrap();
    world.start();
    let expected = ["success", "success", "scheduled", "success", "success"];
    assert_eq!(world.states(), expected);
    end_all(&mut world);
    let selection = one(&world, &["list"]);
    world.amend(RUN, &selection, Wish::Clear).unwrap();
    world.start();
    let expected = ["scheduled", "success", "none", "success", "success"];
    assert_eq!(world.states(), expected);
    world.end("list", Failed);
    let expected = ["failed", "success", "upstream_failed", "success", "success"];
    assert_eq!(world.states(), expected);
    assert_eq!(
        world.run().state,
        RunState::Success,
        "its only leaf succeeded"
    );
}

#[test]
fn running_instances_of_a_list_that_has_become_empty_leave_the_run() {
    let mut world = mapped(2);
    world.dispatch();
    let out: Vec<_> = (0..2).map(|i| world.find("each", i).clone()).collect();
    world.clear(&["list"], true);
    assert_eq!(world.find("each", 0).state, TaskState::Restarting);
    give(&mut world, 0);
    for row in &out {
        world.apply(&[finished(row, Cancelled)]);
    }
    assert_eq!(world.states(), ["success", "skipped", "skipped"]);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn a_stopped_run_that_was_queued_anew_ends_and_one_that_is_being_stopped_cannot_be_changed() {
    let mut world = chain();
    world.begin("a");
    world.apply(&[stop("enough", true)]);
    let all = Selection::default();
    assert!(world.amend(RUN, &all, Wish::Clear).is_err());
    let row = world.ti("a").clone();
    world.apply(&[finished(&row, Cancelled)]);
    world.amend(RUN, &all, Wish::Clear).unwrap();
    assert_eq!(world.run().state, RunState::Queued);
    assert_eq!(world.states(), ["none", "none", "none"]);
    world.apply(&[stop("no", true)]);
    assert_eq!(world.run().state, RunState::Failed);
    assert_eq!(world.states(), ["skipped", "skipped", "skipped"]);
}

/// What may happen to a run.
#[derive(Debug, Clone)]
enum Step {
    Start,
    Dispatch,
    Event(usize, u8),
    Clear(Vec<usize>, bool, bool, bool),
    Mark(usize, u8),
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Start),
        3 => Just(Step::Dispatch),
        8 => (any::<usize>(), 0..8u8).prop_map(|(at, how)| Step::Event(at, how)),
        2 => (proptest::collection::vec(any::<usize>(), 1..3), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(tasks, up, down, failed)| Step::Clear(tasks, up, down, failed)),
        1 => (any::<usize>(), 0..3u8).prop_map(|(at, to)| Step::Mark(at, to)),
        1 => Just(Step::Stop),
    ]
}

/// With `group` 1 or 2, some of its tasks are members of a mapped group; its list is then given, or the first task's value.
fn random_world(edges: &[bool], rules: &[usize], lists: &[usize], group: usize) -> World {
    let n = rules.len();
    let id = |i: usize| format!("t{i}");
    let tasks = (0..n)
        .map(|i| {
            let ups: Vec<String> = (0..i)
                .filter(|up| edges[(i * n + up) % edges.len()])
                .map(id)
                .collect();
            let ups: Vec<&str> = ups.iter().map(String::as_str).collect();
            let (rule, _) = crate::trigger_rule::TriggerRule::ALL[rules[i] % 12];
            let mut more =
                json!({"trigger_rule": rule, "retries": rules[i] % 2, "retry_delay": "1s"});
            if group > 0 && i > 0 && lists[i] % 2 == 1 {
                more["mapped_group"] = json!("g");
            } else if lists[i] > 0 && i > 0 {
                more["expand"] = match lists[i] % 2 {
                    0 => json!({"x": format!("{{{{ ti.xcom_pull('t{}') }}}}", i - 1)}),
                    _ => json!({"x": (0..lists[i] % 4).collect::<Vec<_>>()}),
                };
            }
            task(&id(i), &ups, more)
        })
        .collect();
    let lists = match group {
        0 => return World::new(tasks),
        1 => json!([1, 2, 3]),
        _ => json!("{{ ti.xcom_pull('t0') }}"),
    };
    World::new_with(
        tasks,
        json!({"mapped_groups": {"g": {"expand": {"y": lists}}}}),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(384) })]

    /// The harness recounts everything after each transaction; here it is seen that every run still ends.
    #[test]
    fn counters_stay_right_and_every_run_ends_whatever_is_cleared_and_marked(
        edges in proptest::collection::vec(any::<bool>(), 1..36),
        rules in proptest::collection::vec(any::<usize>(), 1..6),
        lists in proptest::collection::vec(0..5usize, 6),
        group in 0..3usize,
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut world = random_world(&edges, &rules, &lists, group);
        for (at, step) in steps.iter().enumerate() {
            walk(&mut world, step, at);
        }
        for round in 0.. {
            prop_assert!(round < 60, "no end: {:?} {:?}", world.run(), world.states());
            if world.run().state.is_finished() {
                break;
            }
            world.start();
            world.dispatch();
            world.now += chrono::Duration::seconds(2);
            let due: Vec<_> = world.in_state(&[TaskState::UpForRetry]).iter().map(|r| retry_due(r.run, r.pk)).collect();
            world.apply(&due);
            let out: Vec<_> = world.tis.values().filter(|r| r.state.is_dispatched()).cloned().collect();
            for row in out {
                world.apply(&[finished_with(&row, Success, list(2))]);
            }
        }
    }
}

fn walk(world: &mut World, step: &Step, at: usize) {
    match step {
        Step::Start => drop(world.start()),
        Step::Dispatch => drop(world.dispatch()),
        Step::Event(which, how) => {
            let out: Vec<_> = world
                .tis
                .values()
                .filter(|r| r.state.is_dispatched())
                .cloned()
                .collect();
            if out.is_empty() {
                return;
            }
            let row = &out[which % out.len()];
            let command = match how {
                0 => started(row),
                1 => lost(row),
                2 => requeued(row),
                3 => forgotten(row),
                4 => cancelled_unclaimed(row.run, row.dispatch()),
                5 => finished(row, Failed),
                6 => finished(row, Skipped),
                _ => finished_with(row, Success, list(at % 4)),
            };
            world.apply(&[command]);
        }
        Step::Clear(tasks, upstream, downstream, only_failed) => {
            let n = world.plan(RUN).spec.tasks.len();
            let states = match only_failed {
                true => vec![TaskState::Failed, TaskState::UpstreamFailed],
                false => Vec::new(),
            };
            let selection = Selection {
                tasks: Some(
                    tasks
                        .iter()
                        .map(|t| ((t % n) as i32, (t % 5 == 0).then_some(1)))
                        .collect(),
                ),
                upstream: *upstream,
                downstream: *downstream,
                scope: *upstream,
                states,
            };
            // Refused while the run is being stopped.
            let _ = world.amend(RunPk(1), &selection, Wish::Clear);
        }
        Step::Mark(which, to) => {
            let n = world.plan(RUN).spec.tasks.len();
            let to = [TaskState::Success, TaskState::Failed, TaskState::Skipped][usize::from(*to)];
            let selection = Selection {
                tasks: Some(vec![((which % n) as i32, None)]),
                ..Selection::default()
            };
            let _ = world.amend(RunPk(1), &selection, Wish::Mark(to));
        }
        Step::Stop if at.is_multiple_of(7) => drop(world.apply(&[stop("enough", true)])),
        Step::Stop => {}
    }
}
