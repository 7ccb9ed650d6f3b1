//! Limits at every instant.

use super::harness::*;
use crate::{limit::LimitKey, message::Ending::*, state::TaskState};
use serde_json::{Value, json};

fn wide(n: usize, more: &Value) -> Vec<Value> {
    (0..n)
        .map(|i| task(&format!("t{i}"), &[], more.clone()))
        .collect()
}

fn queued(world: &World) -> usize {
    world
        .tis
        .values()
        .filter(|row| row.state == TaskState::Queued)
        .count()
}

#[test]
fn a_pool_bounds_slots_and_does_not_stand_in_the_way() {
    let mut tasks = wide(
        3,
        &json!({"pool": "p", "pool_slots": 2, "priority_weight": 9}),
    );
    tasks.push(task("free", &[], json!({})));
    let mut world = World::new(tasks);
    world.pool("p", 5);
    world.start();
    assert_eq!(
        world.dispatch().dispatched.len(),
        3,
        "two of the pool, and the free one"
    );
    assert_eq!(world.used(&LimitKey::pool("p")), 4);
    world.end("t0", Success);
    assert_eq!(world.dispatch().dispatched, [world.ti("t2").pk]);
}

#[test]
fn a_pool_whose_cap_was_lowered_drains_before_it_fills() {
    let mut tasks = wide(4, &json!({"pool": "p"}));
    tasks.extend((0..4).map(|i| {
        task(
            &format!("after{i}"),
            &[&format!("t{i}")],
            json!({"pool": "p"}),
        )
    }));
    let mut world = World::new(tasks);
    world.pool("p", 4);
    world.start();
    world.dispatch();
    world.limits.get_mut(&LimitKey::pool("p")).unwrap().cap = 2;
    for (id, goes_out) in [("t0", 0), ("t1", 0), ("t2", 1)] {
        // What is given back is to be had in the very transaction, but not before the pool fits its cap.
        let row = world.ti(id).clone();
        let applied = world.apply_and_dispatch(&[finished(&row, Success)]);
        assert_eq!(applied.dispatched.len(), goes_out);
    }
    assert_eq!(world.used(&LimitKey::pool("p")), 2);
}

#[test]
fn a_pool_that_does_not_exist_and_a_paused_queue_take_nothing() {
    let mut world = World::started(vec![
        task("nowhere", &[], json!({"pool": "nowhere"})),
        task("paused", &[], json!({"queue": "q"})),
    ]);
    world.limits.get_mut(&LimitKey::queue("q")).unwrap().paused = true;
    assert!(world.dispatch().dispatched.is_empty());
    world.limits.get_mut(&LimitKey::queue("q")).unwrap().paused = false;
    assert_eq!(world.dispatch().dispatched, [world.ti("paused").pk]);
}

#[test]
fn a_runs_own_limit_and_its_tasks_limits() {
    let mut spec = json!({"dag_id": "d", "max_active_tasks": 3, "tasks": wide(5, &json!({}))});
    let mut world = World::of(serde_json::from_value(spec.clone()).unwrap(), 1);
    world.start();
    world.dispatch();
    assert_eq!(queued(&world), 3);
    let limited = json!({"expand": {"x": [1, 2, 3, 4]}, "max_active_tis_per_dag": 3, "max_active_tis_per_dagrun": 2});
    spec["max_active_tasks"] = json!(16);
    spec["tasks"] = json!([task("m", &[], limited)]);
    let mut world = World::of(serde_json::from_value(spec).unwrap(), 2);
    world.start();
    world.dispatch();
    assert_eq!(queued(&world), 3, "two of one run, one of the other");
}

#[test]
fn a_queues_cap_bounds_what_waits_there_not_what_runs() {
    let mut world = World::started(wide(3, &json!({"queue": "q"})));
    let key = LimitKey::queue("q");
    world.limits.get_mut(&key).unwrap().cap = 1;
    for n in 1..=3 {
        assert_eq!(world.dispatch().dispatched.len(), 1);
        let row = world
            .tis
            .values()
            .find(|row| row.state == TaskState::Queued)
            .unwrap()
            .clone();
        world.apply(&[started(&row)]);
        assert_eq!((world.used(&key), world.run().active_tasks), (0, n));
    }
}

#[test]
fn runs_start_as_max_active_runs_has_room() {
    let spec = json!({"dag_id": "d", "max_active_runs": 1, "tasks": [task("a", &[], json!({}))]});
    let mut world = World::of(serde_json::from_value(spec).unwrap(), 3);
    for _ in 0..3 {
        world.start();
        world.start();
        world.dispatch();
        let out: Vec<_> = world
            .tis
            .values()
            .filter(|row| row.state == TaskState::Queued)
            .cloned()
            .collect();
        assert_eq!(out.len(), 1);
        world.apply(&[finished(&out[0], Success)]);
    }
    assert!(world.runs.values().all(|run| run.state.is_finished()));
}
