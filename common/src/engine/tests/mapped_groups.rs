//! Mapped groups: every member runs once per item, and waits for its own index of the others.

use super::harness::*;
use crate::{
    engine::{Selection, Wish},
    message::{Ending::*, XcomOut},
    row::XcomValue,
    state::{RunState, TaskState},
    trigger_rule::TriggerRule,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A member of the group `g`.
fn member(id: &str, upstreams: &[&str], more: Value) -> Value {
    let mut member = task(&format!("g.{id}"), upstreams, more);
    member["mapped_group"] = json!("g");
    member
}

fn over(list: Value, tasks: Vec<Value>) -> World {
    World::started_with(
        tasks,
        json!({"mapped_groups": {"g": {"expand": {"x": list}}}}),
    )
}

/// What is ready may have been dispatched beside another ending.
fn state(world: &World, id: &str, index: i32) -> TaskState {
    match world.find(id, index).state {
        TaskState::Queued => TaskState::Scheduled,
        state => state,
    }
}

#[test]
fn members_depend_on_each_other_index_by_index() {
    let mut world = over(
        json!(["a", "b", "c"]),
        vec![
            member("one", &[], json!({})),
            member("two", &["g.one"], json!({})),
            task("after", &["g.two"], json!({})),
        ],
    );
    // The second is split with the first: nothing else is to be waited for.
    for i in 0..3 {
        assert_eq!(state(&world, "g.one", i), TaskState::Scheduled);
        assert_eq!(state(&world, "g.two", i), TaskState::None);
        assert_eq!(
            world.find("g.two", i).map_values,
            world.find("g.one", i).map_values
        );
    }
    world.end_at("g.one", 1, Success);
    assert_eq!(state(&world, "g.two", 1), TaskState::Scheduled);
    assert_eq!(state(&world, "g.two", 0), TaskState::None);
    world.end_at("g.two", 1, Success);
    world.end_at("g.one", 0, Failed);
    assert_eq!(state(&world, "g.two", 0), TaskState::UpstreamFailed);
    assert_eq!(world.state("after"), TaskState::UpstreamFailed);
    world.end_at("g.one", 2, Success);
    world.end_at("g.two", 2, Success);
    assert_eq!(world.run().state, RunState::Failed);
}

#[test]
fn who_depends_on_the_group_waits_for_all() {
    let mut world = over(
        json!([1, 2]),
        vec![
            member("one", &[], json!({})),
            member("two", &["g.one"], json!({})),
            task("after", &["g.two"], json!({})),
        ],
    );
    for i in 0..2 {
        world.end_at("g.one", i, Success);
        assert_eq!(world.state("after"), TaskState::None);
        world.end_at("g.two", i, Success);
    }
    world.end("after", Success);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn no_items_skip_all_members() {
    for rule in ["all_success", "all_done", "none_failed"] {
        let world = over(
            json!([]),
            vec![
                member("one", &[], json!({})),
                member("two", &["g.one"], json!({"trigger_rule": rule})),
                task("after", &["g.two"], json!({"trigger_rule": "all_skipped"})),
            ],
        );
        assert_eq!(
            world.states(),
            ["skipped", "skipped", "scheduled"],
            "{rule}"
        );
    }
}

#[test]
fn what_fails_above_the_group_ends_its_members_unsplit() {
    let mut world = over(
        json!([1, 2]),
        vec![
            task("before", &[], json!({})),
            member("one", &["before"], json!({})),
            member("two", &["g.one"], json!({})),
            member("last", &["g.one"], json!({"trigger_rule": "all_done"})),
        ],
    );
    world.end("before", Failed);
    assert_eq!(world.state("g.one"), TaskState::UpstreamFailed);
    assert_eq!(world.state("g.two"), TaskState::UpstreamFailed);
    // It may run whatever happened, so it is split by the list itself.
    assert_eq!(state(&world, "g.last", 1), TaskState::Scheduled);
}

#[test]
fn a_member_with_an_upstream_outside_is_split_when_that_has_ended() {
    let mut world = over(
        json!([1, 2, 3]),
        vec![
            task("other", &[], json!({})),
            member("one", &[], json!({"retries": 0})),
            member(
                "two",
                &["g.one", "other"],
                json!({"trigger_rule": "all_done"}),
            ),
        ],
    );
    world.end_at("g.one", 0, Success);
    world.end_at("g.one", 1, Failed);
    assert_eq!(world.state("g.two"), TaskState::None);
    world.end("other", Failed);
    // What ended before counts; what has not is waited for.
    assert_eq!(state(&world, "g.two", 0), TaskState::Scheduled);
    assert_eq!(state(&world, "g.two", 1), TaskState::Scheduled);
    assert_eq!(state(&world, "g.two", 2), TaskState::None);
    world.end_at("g.one", 2, Success);
    assert_eq!(state(&world, "g.two", 2), TaskState::Scheduled);
}

#[test]
fn a_list_of_an_upstream_is_read_once_for_the_group() {
    let mut world = over(
        json!("{{ ti.xcom_pull('list') }}"),
        vec![
            task("list", &[], json!({})),
            member("one", &["list"], json!({"empty": {}})),
            member("two", &["g.one"], json!({"empty": {}})),
            member("three", &["g.one", "g.two"], json!({})),
        ],
    );
    world.dispatch();
    let row = world.ti("list").clone();
    let xcom = XcomOut {
        key: "return_value".into(),
        value: XcomValue::Inline(json!(["a", "b"])),
    };
    world.apply(&[finished_with(&row, Success, vec![xcom])]);
    for i in 0..2 {
        assert_eq!(state(&world, "g.two", i), TaskState::Success);
        assert_eq!(state(&world, "g.three", i), TaskState::Scheduled);
        world.end_at("g.three", i, Success);
    }
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn what_is_no_list_fails_the_first_members() {
    let world = over(
        json!("{{ 5 }}"),
        vec![
            member("one", &[], json!({})),
            member("two", &["g.one"], json!({})),
        ],
    );
    assert_eq!(world.states(), ["failed", "upstream_failed"]);
    let reason = world.ti("g.one").reason.clone().unwrap();
    assert!(
        reason.contains("g.one: expand.x: expected a list"),
        "{reason}"
    );
}

#[test]
fn a_stop_ends_all_instances() {
    let mut world = over(
        json!([1, 2, 3]),
        vec![
            member("one", &[], json!({})),
            member("two", &["g.one"], json!({})),
            task("after", &["g.two"], json!({})),
        ],
    );
    world.apply(&[stop("enough", true)]);
    assert_eq!(world.states(), ["skipped"; 7]);
    assert_eq!(world.run().state, RunState::Failed);
}

/// One instance of a task, or all of them.
fn pick(world: &World, id: &str, index: Option<i32>) -> Selection {
    Selection {
        tasks: Some(vec![(world.plan(RUN).spec.idx(id).unwrap(), index)]),
        ..Selection::default()
    }
}

fn group_of_two(list: Value) -> World {
    over(
        list,
        vec![
            task("list", &[], json!({})),
            member("one", &["list"], json!({})),
            member("two", &["g.one"], json!({})),
            task("after", &["g.two"], json!({})),
        ],
    )
}

/// Ends everything that runs until nothing runs any more; `list` gives so many items.
fn end_all(world: &mut World, items: usize) {
    world.start();
    loop {
        world.dispatch();
        let out = world.in_state(&[TaskState::Queued, TaskState::Running]);
        let events: Vec<_> = out
            .iter()
            .map(|row| {
                let value = match row.task_id.as_str() {
                    "list" => json!((0..items).collect::<Vec<_>>()),
                    id => json!(id),
                };
                let key = "return_value".to_owned();
                let value = XcomValue::Inline(value);
                finished_with(row, Success, vec![XcomOut { key, value }])
            })
            .collect();
        if events.is_empty() {
            return;
        }
        world.apply(&events);
    }
}

#[test]
fn a_clear_of_one_index_runs_what_is_below_it_of_that_index() {
    let mut world = group_of_two(json!([1, 2, 3]));
    end_all(&mut world, 0);
    assert_eq!(world.run().state, RunState::Success);
    let selection = Selection {
        downstream: true,
        ..pick(&world, "g.one", Some(1))
    };
    let (amended, _) = world.amend(RUN, &selection, Wish::Clear).unwrap();
    assert_eq!(amended.cleared.len(), 3, "one[1], two[1] and after");
    world.start();
    assert_eq!(state(&world, "g.one", 1), TaskState::Scheduled);
    assert_eq!(state(&world, "g.two", 1), TaskState::None);
    assert_eq!(world.state("after"), TaskState::None);
    end_all(&mut world, 0);
    assert_eq!(world.run().state, RunState::Success);
    let tries = |id: &str| [0, 1, 2].map(|i| world.find(id, i).try_number);
    assert_eq!((tries("g.one"), tries("g.two")), ([1, 2, 1], [1, 2, 1]));
}

#[test]
fn a_clear_upstream_of_one_index_goes_up_by_that_index() {
    let mut world = group_of_two(json!([1, 2, 3]));
    end_all(&mut world, 0);
    let selection = Selection {
        upstream: true,
        ..pick(&world, "g.two", Some(2))
    };
    world.amend(RUN, &selection, Wish::Clear).unwrap();
    end_all(&mut world, 0);
    let tries = |id: &str| [0, 1, 2].map(|i| world.find(id, i).try_number);
    assert_eq!((tries("g.one"), tries("g.two")), ([1, 1, 2], [1, 1, 2]));
    assert_eq!(world.ti("list").try_number, 2);
}

#[test]
fn a_mark_runs_what_failed_below_it_of_that_index() {
    let mut world = group_of_two(json!([1, 2]));
    world.end("list", Success);
    world.end_at("g.one", 0, Failed);
    world.end_at("g.one", 1, Failed);
    assert_eq!(world.run().state, RunState::Failed);
    let selection = pick(&world, "g.one", Some(1));
    let wish = Wish::Mark(TaskState::Success);
    world.amend(RUN, &selection, wish).unwrap();
    world.start();
    assert_eq!(state(&world, "g.two", 0), TaskState::UpstreamFailed);
    assert_eq!(state(&world, "g.two", 1), TaskState::Scheduled);
    let wish = Wish::Mark(TaskState::Success);
    let selection = pick(&world, "g.one", Some(0));
    world.amend(RUN, &selection, wish).unwrap();
    assert_eq!(state(&world, "g.two", 0), TaskState::Scheduled);
    end_all(&mut world, 0);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn what_waits_for_a_cleared_member_waits_for_it_anew() {
    let mut world = over(
        json!([1, 2]),
        vec![
            member("one", &[], json!({})),
            member("other", &[], json!({})),
            member("both", &["g.one", "g.other"], json!({})),
        ],
    );
    world.end_at("g.one", 0, Success);
    let selection = pick(&world, "g.one", Some(0));
    world.amend(RUN, &selection, Wish::Clear).unwrap();
    world.end_at("g.one", 0, Success);
    assert_eq!(state(&world, "g.both", 0), TaskState::None);
    world.end_at("g.other", 0, Success);
    assert_eq!(state(&world, "g.both", 0), TaskState::Scheduled);
}

#[test]
fn all_members_follow_a_list_that_has_another_length() {
    for (before, after) in [(3, 1), (1, 3), (2, 0), (2, 2)] {
        let mut world = group_of_two(json!("{{ ti.xcom_pull('list') }}"));
        end_all(&mut world, before);
        assert_eq!(world.run().state, RunState::Success, "{before}");
        let selection = Selection {
            downstream: true,
            ..pick(&world, "list", None)
        };
        for items in [after, before] {
            world.amend(RUN, &selection, Wish::Clear).unwrap();
            end_all(&mut world, items);
            assert!(world.run().state.is_finished());
            for id in ["g.one", "g.two"] {
                for i in 0..before.max(after) {
                    let there = world.tis.values().any(|row| {
                        row.task_id == id
                            && row.map_index == i as i32
                            && row.state == TaskState::Success
                    });
                    assert_eq!(there, i < items, "{id}[{i}] of {before} -> {after}");
                }
            }
        }
    }
}

#[test]
fn a_running_member_is_stopped_first_and_then_its_index_goes_on() {
    let mut world = group_of_two(json!([1, 2]));
    world.end("list", Success);
    world.dispatch();
    let out = world.find("g.one", 1).clone();
    let selection = Selection {
        downstream: true,
        ..pick(&world, "g.one", Some(1))
    };
    world.amend(RUN, &selection, Wish::Clear).unwrap();
    assert_eq!(world.find("g.one", 1).state, TaskState::Restarting);
    world.apply(&[finished(&out, Cancelled)]);
    assert_eq!(state(&world, "g.one", 1), TaskState::Scheduled);
    assert_eq!(state(&world, "g.two", 1), TaskState::None);
    end_all(&mut world, 0);
    assert_eq!(world.run().state, RunState::Success);
    assert_eq!(world.find("g.one", 1).try_number, 2);
}

#[test]
fn a_member_that_needs_no_success_is_not_split_before_the_others() {
    let mut world = over(
        json!("{{ ti.xcom_pull('list') }}"),
        vec![
            task("list", &[], json!({})),
            task("other", &[], json!({})),
            member("one", &["list"], json!({})),
            member(
                "two",
                &["g.one", "other"],
                json!({"trigger_rule": "one_success"}),
            ),
        ],
    );
    world.end("other", Success);
    assert_eq!(
        world.state("g.two"),
        TaskState::None,
        "there is no list yet"
    );
    end_all(&mut world, 2);
    assert_eq!(world.run().state, RunState::Success);
    assert_eq!(world.states(), ["success"; 6]);
}

/// A wide group costs its edges, not its pairs.
#[test]
fn a_wide_group_costs_its_instances() {
    let list: Vec<i32> = (0..20_000).collect();
    let began = crate::cpu_time::cpu_time();
    let mut world = over(
        json!(list),
        vec![
            member("one", &[], json!({"empty": {}})),
            member("two", &["g.one"], json!({"empty": {}})),
            member("three", &["g.two"], json!({})),
        ],
    );
    assert_eq!(state(&world, "g.three", 19_999), TaskState::Scheduled);
    world.apply(&[stop("enough", true)]);
    let cost = crate::cpu_time::cpu_time() - began;
    assert!(cost.as_secs() < 20, "{cost:?}");
}

/// How each member of a random group ends at each index.
fn endings() -> impl Strategy<Value = Vec<Vec<bool>>> {
    proptest::collection::vec(proptest::collection::vec(any::<bool>(), 3), 4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each index of a mapped group goes as the same tasks would, unmapped, in a run of their own.
    #[test]
    fn each_index_is_like_a_run_of_its_own(
        succeeds in endings(),
        rules in proptest::collection::vec(0usize..11, 4),
        edges in proptest::collection::vec(any::<bool>(), 6),
        order in proptest::collection::vec(0usize..12, 12),
    ) {
        let pairs = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)];
        let rule = |i: usize| match TriggerRule::ALL[rules[i]].0 {
            TriggerRule::Always => TriggerRule::AllSuccess,
            rule => rule,
        };
        let tasks = |mapped: bool| -> Vec<Value> {
            (0..4).map(|i| {
                let name = |i: usize| if mapped { format!("g.t{i}") } else { format!("t{i}") };
                let above: Vec<String> = pairs.iter().zip(&edges)
                    .filter(|((_, to), there)| *to == i && **there)
                    .map(|((from, _), _)| name(*from))
                    .collect();
                let above: Vec<&str> = above.iter().map(String::as_str).collect();
                let mut value = task(&name(i), &above, json!({"trigger_rule": rule(i).as_str()}));
                if mapped {
                    value["mapped_group"] = json!("g");
                }
                value
            }).collect()
        };
        let end = |world: &mut World, id: &str, index: i32, ok: bool| {
            world.end_at(id, index, if ok { Success } else { Failed });
        };
        let mut group = over(json!([0, 1, 2]), tasks(true));
        let mut alone: Vec<World> = (0..3).map(|_| World::started(tasks(false))).collect();
        // In any order, as far as they are ready; then what is left.
        for at in order.iter().copied().chain((0..12).cycle().take(48)) {
            let (i, index) = (at % 4, at / 4);
            let (of_group, of_one) = (format!("g.t{i}"), format!("t{i}"));
            if state(&alone[index], &of_one, -1) == TaskState::Scheduled {
                prop_assert_eq!(state(&group, &of_group, index as i32), TaskState::Scheduled);
                end(&mut group, &of_group, index as i32, succeeds[i][index]);
                end(&mut alone[index], &of_one, -1, succeeds[i][index]);
            }
            for (index, alone) in alone.iter().enumerate() {
                for i in 0..4 {
                    prop_assert_eq!(
                        state(&group, &format!("g.t{i}"), index as i32),
                        state(alone, &format!("t{i}"), -1)
                    );
                }
            }
        }
        prop_assert!(group.run().state.is_finished());
    }
}
