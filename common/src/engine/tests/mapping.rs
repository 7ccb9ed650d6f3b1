//! Dynamic task mapping.

use super::harness::*;
use crate::{
    engine::{MAX_MAP_BYTES, MAX_MAP_LENGTH},
    message::{Ending::*, XcomOut},
    row::XcomValue,
    state::{RunState, TaskState},
};
use serde_json::{Value, json};

fn mapped(id: &str, upstreams: &[&str], list: Value) -> Value {
    task(id, upstreams, json!({"expand": {"x": list}}))
}

#[test]
fn a_list_becomes_instances_that_downstreams_count() {
    let mut world = World::started(vec![
        mapped("m", &[], json!([1, 2, 3])),
        task("after", &["m"], json!({})),
    ]);
    assert_eq!(
        world.states(),
        ["scheduled", "scheduled", "scheduled", "none"]
    );
    for i in 0..3 {
        assert_eq!(
            world.find("m", i).map_values,
            json!({"x": i + 1}).as_object().cloned()
        );
        assert_eq!(world.state("after"), TaskState::None);
        world.end_at("m", i, Success);
    }
    world.end("after", Success);
    assert_eq!(world.run().state, RunState::Success);
    assert_eq!(world.edges_counted, 3);
}

#[test]
fn one_element_and_none() {
    let mut world = World::started(vec![
        mapped("one", &[], json!(["x"])),
        mapped("none", &[], json!([])),
        task(
            "after",
            &["one", "none"],
            json!({"trigger_rule": "none_failed"}),
        ),
    ]);
    assert_eq!(world.state("none"), TaskState::Skipped);
    assert_eq!(world.states(), ["scheduled", "skipped", "none"]);
    world.end_at("one", 0, Success);
    world.end("after", Success);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn what_is_no_list_fails_the_task() {
    for (list, ending) in [
        ("{{ 5 }}", "failed"),
        ("{{ missing.thing }}", "failed"),
        ("{{ none }}", "upstream_failed"),
    ] {
        let world = World::started(vec![
            mapped("m", &[], json!(list)),
            task("b", &["m"], json!({})),
        ]);
        assert_eq!(world.states(), [ending, "upstream_failed"], "{list}");
        assert!(
            world
                .ti("m")
                .reason
                .as_deref()
                .unwrap()
                .contains("expand.x")
        );
        assert_eq!(world.run().state, RunState::Failed);
    }
}

#[test]
fn a_list_may_come_from_an_ending_of_the_same_transaction() {
    let mut world = World::started(vec![
        task("list", &[], json!({})),
        mapped("m", &["list"], json!("{{ ti.xcom_pull('list') }}")),
    ]);
    world.dispatch();
    let row = world.ti("list").clone();
    let xcom = XcomOut {
        key: "return_value".into(),
        value: XcomValue::Inline(json!(["a", "b"])),
    };
    world.apply(&[finished_with(&row, Success, vec![xcom])]);
    assert_eq!(world.states(), ["success", "scheduled", "scheduled"]);
}

#[test]
fn an_upstreams_failure_ends_the_node_itself() {
    let mut world = World::started(vec![
        task("a", &[], json!({})),
        mapped("m", &["a"], json!([1, 2])),
        task("b", &["m"], json!({})),
    ]);
    world.end("a", Failed);
    assert_eq!(
        world.states(),
        ["failed", "upstream_failed", "upstream_failed"]
    );
}

#[test]
fn mapped_after_mapped_counts_edges_not_pairs() {
    let mut world = World::started(vec![
        mapped("a", &[], json!([0, 1, 2, 3, 4])),
        mapped("b", &["a"], json!([0, 1, 2, 3, 4, 5])),
        task("c", &["b"], json!({})),
    ]);
    for i in 0..5 {
        world.end_at("a", i, Success);
    }
    for i in 0..6 {
        world.end_at("b", i, Success);
    }
    world.end("c", Success);
    assert_eq!(world.run().state, RunState::Success);
    assert_eq!(world.edges_counted, 5 + 6);
}

#[test]
fn empty_instances_end_where_they_are() {
    let world = World::started(vec![
        task("m", &[], json!({"empty": {}, "expand": {"x": [1, 2, 3]}})),
        task("after", &["m"], json!({"empty": {}})),
    ]);
    assert_eq!(world.states(), ["success"; 4]);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn a_long_list_is_not_in_the_message_of_every_instance() {
    let list = vec!["x".repeat(100); 1000];
    let mut world = World::started(vec![mapped("m", &[], json!(list))]);
    let sent = world.dispatch();
    assert_eq!((sent.dispatched.len(), sent.undeliverable), (16, vec![]));
}

#[test]
fn variables_multiply_within_bounds() {
    let two = json!({"expand": {"x": [1, 2], "y": ["a", "b", "c"]}});
    let world = World::started(vec![task("m", &[], two)]);
    assert_eq!(world.states().len(), 6);
    let many: Vec<i32> = (0..400).collect();
    let too_many = json!({"expand": {"x": many, "y": many}});
    let world = World::started(vec![task("m", &[], too_many)]);
    let reason = world.ti("m").reason.clone().unwrap();
    assert!(reason.contains(&MAX_MAP_LENGTH.to_string()), "{reason}");
    // One large value beside many small ones is copied into each.
    let large = json!({"expand": {"x": ["v".repeat(MAX_MAP_BYTES / 1000)], "y": (0..2000).collect::<Vec<_>>()}});
    let world = World::started(vec![task("m", &[], large)]);
    let reason = world.ti("m").reason.clone().unwrap();
    assert!(reason.contains(&MAX_MAP_BYTES.to_string()), "{reason}");
}

#[test]
fn lists_side_by_side_and_mappings_make_instances() {
    let zip = json!({"expand_zip": {"x": [1, 2], "y": ["a", "b"]}});
    let items = json!({"expand_kwargs": [{"x": 1}, {"y": 2}, {}]});
    let mut world = World::started(vec![task("z", &[], zip), task("k", &[], items)]);
    assert_eq!(world.states(), ["scheduled"; 5]);
    assert_eq!(
        world.find("z", 1).map_values,
        json!({"x": 2, "y": "b"}).as_object().cloned()
    );
    assert_eq!(
        world.find("k", 1).map_values,
        json!({"y": 2}).as_object().cloned()
    );
    for (id, n) in [("z", 2), ("k", 3)] {
        for i in 0..n {
            world.end_at(id, i, Success);
        }
    }
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn lists_of_different_lengths_fail_the_task() {
    let zip = json!({"expand_zip": {"x": [1], "y": "{{ [1, 2] }}"}});
    let world = World::started(vec![task("z", &[], zip)]);
    assert_eq!(world.states(), ["failed"]);
    let reason = world.ti("z").reason.clone().unwrap();
    assert!(reason.contains("x has 1, y has 2"), "{reason}");
}

#[test]
fn instances_have_names() {
    let named =
        |template: &str| json!({"expand": {"x": ["eu", "us"]}, "map_index_template": template});
    let world = World::started(vec![
        task("n", &[], named("{{ map_index }}: {{ map.x }}")),
        task("broken", &[], named("{{ map.y }}")),
        task("long", &[], named(&"ä".repeat(300))),
        task("plain", &[], json!({})),
    ]);
    let name = |id: &str, i| world.find(id, i).map_name.clone();
    assert_eq!(name("n", 1).as_deref(), Some("1: us"));
    assert_eq!(name("broken", 0).as_deref(), Some("{{ map.y }}"));
    assert_eq!(name("long", 0).map(|name| name.chars().count()), Some(250));
    assert_eq!(name("plain", -1), None);
    assert_eq!(name("n", -1), None);
}

/// A stop ends tens of thousands of instances in one transaction: the work must not grow with their square.
#[test]
fn many_endings_of_one_transaction_cost_their_number() {
    let list: Vec<i32> = (0..20_000).collect();
    let mut world = World::started(vec![
        mapped("m", &[], json!(list)),
        task("a", &["m"], json!({})),
        task("b", &["a"], json!({})),
    ]);
    let began = crate::cpu_time::cpu_time();
    world.apply(&[stop("enough", true)]);
    assert_eq!(world.run().state, RunState::Failed);
    assert_eq!(world.edges_counted, 20_000 + 1);
    assert!(world.loads <= 2, "{} loads", world.loads);
    let cost = crate::cpu_time::cpu_time() - began;
    assert!(cost.as_secs() < 20, "{cost:?}");
}
