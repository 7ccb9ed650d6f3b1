//! Sensors between their pokes, and waits that need no worker.

use super::harness::*;
use crate::{
    engine::{Command, Waiting, returned},
    ids::RunPk,
    limit::LimitKey,
    message::Ending::{self, *},
    state::{RunState, TaskState},
    template::NoXComs,
};
use chrono::Duration;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

fn waiting(id: &str, kind: &str, what: Value, more: Value) -> Value {
    let mut task = json!({"task_id": id, kind: what});
    task.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    task
}

fn poking(sensor: Value, more: Value) -> World {
    let mut sensor = sensor;
    sensor["file"] = json!("/x");
    let mut world = World::started(vec![waiting("s", "sensor", sensor, more)]);
    world.ensure_queue("default.sensors");
    world.dispatch();
    world
}

/// The poke that is out ends; a time later the next is dispatched.
fn poke(world: &mut World, ending: Ending, then: Duration) {
    let row = world.ti("s").clone();
    assert_eq!(row.state, TaskState::Queued);
    world.apply(&[finished(&row, ending)]);
    world.now += then;
    let row = world.ti("s").clone();
    world.apply_and_dispatch(&[retry_due(row.run, row.pk)]);
}

#[test]
fn pokes_are_one_try_and_hold_nothing_in_between() {
    let mut world = poking(json!({"poke_interval": "10s"}), json!({}));
    let mut fences = vec![world.ti("s").fence];
    for _ in 0..3 {
        let row = world.ti("s").clone();
        assert_eq!(world.run().active_tasks, 1);
        world.apply(&[finished(&row, NotYet)]);
        let row = world.ti("s").clone();
        assert_eq!(row.state, TaskState::UpForReschedule);
        assert_eq!(row.next_at, Some(world.now + Duration::seconds(10)));
        assert_eq!((row.occupies, world.run().active_tasks), (false, 0));
        assert_eq!(world.used(&LimitKey::queue("default.sensors")), 0);
        // Too early: nothing happens.
        world.apply(&[retry_due(row.run, row.pk)]);
        assert_eq!(world.state("s"), TaskState::UpForReschedule);
        world.now += Duration::seconds(10);
        world.apply_and_dispatch(&[retry_due(row.run, row.pk)]);
        fences.push(world.ti("s").fence);
        assert_eq!(world.ti("s").try_number, 1);
    }
    fences.dedup();
    assert_eq!(fences.len(), 4, "each poke is a dispatch: {fences:?}");
    let row = world.ti("s").clone();
    world.apply(&[finished(&row, Success)]);
    assert_eq!(world.run().state, RunState::Success);
    assert_eq!(world.attempts.len(), 1, "{:?}", world.attempts);
    assert_eq!(world.attempts[0].try_number, 1);
}

#[test]
fn a_poke_takes_a_named_pools_slots_and_none_of_the_default_pool() {
    let mut world = poking(json!({}), json!({}));
    assert_eq!(world.ti("s").queue, "default.sensors");
    assert_eq!(world.used(&LimitKey::pool("default_pool")), 0);
    poke(&mut world, Success, Duration::zero());
    let mut world = World::new(vec![waiting(
        "s",
        "sensor",
        json!({"file": "/x"}),
        json!({"pool": "api", "pool_slots": 2}),
    )]);
    world.pool("api", 3);
    world.ensure_queue("default.sensors");
    world.start();
    world.dispatch();
    assert_eq!(world.used(&LimitKey::pool("api")), 2);
    poke(&mut world, NotYet, Duration::zero());
    assert_eq!(world.used(&LimitKey::pool("api")), 0);
}

#[test]
fn the_timeout_counts_from_the_first_poke_over_lost_workers() {
    let mut world = poking(
        json!({"poke_interval": "1m", "timeout": "150s"}),
        json!({"retries": 5}),
    );
    poke(&mut world, NotYet, Duration::minutes(1));
    let row = world.ti("s").clone();
    let after = world.apply(&[lost(&row)]);
    assert!(after.dispatched.is_empty());
    let row = world.ti("s").clone();
    assert_eq!((row.state, row.max_tries), (TaskState::Scheduled, 6));
    world.dispatch();
    assert_eq!(world.ti("s").try_number, 2);
    poke(&mut world, NotYet, Duration::minutes(1));
    // The last look comes when the time is over, not an interval later.
    let row = world.ti("s").clone();
    assert_eq!(row.state, TaskState::Queued);
    world.apply(&[finished(&row, NotYet)]);
    let due = world.ti("s").next_at.unwrap();
    assert_eq!(due, world.now + Duration::seconds(30));
    world.now = due;
    let row = world.ti("s").clone();
    world.apply_and_dispatch(&[retry_due(row.run, row.pk)]);
    poke(&mut world, NotYet, Duration::zero());
    let row = world.ti("s");
    assert_eq!((row.state, row.try_number), (TaskState::Failed, 2));
    assert!(row.reason.as_ref().unwrap().contains("timeout of 2m30s"));
    let endings: Vec<_> = world.attempts.iter().map(|a| a.ending.as_str()).collect();
    assert_eq!(endings, ["lost", "failed"]);
}

#[test]
fn backoff_doubles_and_soft_fail_skips() {
    let mut world = poking(
        json!({"poke_interval": "10s", "exponential_backoff": true, "max_wait": "25s", "timeout": "1m", "soft_fail": true}),
        json!({"retries": 2}),
    );
    let mut waits = Vec::new();
    while world.state("s") == TaskState::Queued {
        let row = world.ti("s").clone();
        world.apply(&[finished(&row, NotYet)]);
        let row = world.ti("s").clone();
        if let Some(at) = row.next_at {
            waits.push((at - world.now).num_seconds());
            world.now = at;
            world.apply_and_dispatch(&[retry_due(row.run, row.pk)]);
        }
    }
    assert_eq!(waits, [10, 20, 25, 5]);
    assert_eq!(world.state("s"), TaskState::Skipped);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn a_poke_that_fails_is_tried_again_and_its_looks_go_on() {
    let mut world = poking(
        json!({"poke_interval": "10s", "timeout": "30s"}),
        json!({"retries": 1, "retry_delay": "5s"}),
    );
    poke(&mut world, NotYet, Duration::seconds(10));
    let row = world.ti("s").clone();
    world.apply(&[finished(&row, Failed)]);
    assert_eq!(world.state("s"), TaskState::UpForRetry);
    world.now += Duration::seconds(20);
    let row = world.ti("s").clone();
    world.apply_and_dispatch(&[retry_due(row.run, row.pk)]);
    assert_eq!(world.ti("s").try_number, 2);
    poke(&mut world, NotYet, Duration::zero());
    assert_eq!(world.state("s"), TaskState::Failed, "its time is over");
}

#[test]
fn an_unclaimed_or_given_back_poke_costs_nothing() {
    let mut world = poking(json!({"poke_interval": "10s"}), json!({}));
    poke(&mut world, NotYet, Duration::seconds(10));
    let row = world.ti("s").clone();
    world.apply(&[unclaimed(&row)]);
    assert_eq!((world.ti("s").try_number, world.ti("s").max_tries), (1, 0));
    world.dispatch();
    assert_eq!(world.ti("s").try_number, 1);
    let row = world.ti("s").clone();
    world.apply(&[requeued(&row)]);
    world.dispatch();
    assert_eq!((world.ti("s").try_number, world.ti("s").max_tries), (2, 1));
    poke(&mut world, NotYet, Duration::seconds(10));
    assert_eq!(world.ti("s").wait.as_ref().unwrap().looks, 2);
}

#[test]
fn a_stopped_run_skips_what_waits() {
    let mut world = World::started(vec![
        waiting("s", "sensor", json!({"file": "/x"}), json!({})),
        waiting("d", "sensor", json!({"delta": "1h"}), json!({})),
        waiting("a", "approval", json!({}), json!({})),
    ]);
    world.ensure_queue("default.sensors");
    world.dispatch();
    let row = world.ti("s").clone();
    world.apply(&[finished(&row, NotYet)]);
    assert_eq!(
        world.states(),
        ["up_for_reschedule", "deferred", "deferred"]
    );
    world.apply(&[stop("enough", true)]);
    assert_eq!(world.states(), ["skipped"; 3]);
    assert_eq!(world.run().state, RunState::Failed);
}

/// Looks at a deferred instance as the store does.
fn look(world: &mut World, id: &str, with: impl FnOnce(&mut crate::engine::WorkingSet, Waiting)) {
    let row = world.ti(id).clone();
    world.with_set(RUN, &[row.pk], |ws| {
        ws.begin_wait(row.pk, Uuid::from_u128(1_000_000_000 + row.fence.0 as u128));
        let waiting = ws.waiting(row.pk, Arc::new(NoXComs)).unwrap();
        with(ws, waiting);
    });
}

#[test]
fn a_deferred_wait_is_a_try_without_a_worker() {
    let mut world = World::started(vec![
        waiting(
            "t",
            "trigger_dag",
            json!({"dag_id": "other", "wait": true, "conf": {"a": 1}, "params": {"b": 2}}),
            json!({"retries": 1, "retry_delay": "5s"}),
        ),
        json!({"task_id": "after", "empty": {}, "depends_on": ["t"]}),
    ]);
    assert_eq!(world.state("t"), TaskState::Deferred);
    assert_eq!((world.run().ready_tasks, world.run().active_tasks), (0, 0));
    let pk = world.ti("t").pk;
    look(&mut world, "t", |ws, waiting| {
        let Waiting::Trigger(trigger) = waiting else {
            panic!("{waiting:?}");
        };
        assert_eq!(Value::Object(trigger.conf), json!({"a": 1, "b": 2}));
        ws.wait_for_run(pk, RunPk(77), "waits".into());
    });
    assert_eq!(world.ti("t").try_number, 1);
    look(&mut world, "t", |ws, waiting| {
        assert_eq!(waiting, Waiting::Run(RunPk(77)));
        ws.end_wait(pk, Failed, Some("the run failed".into()), Vec::new());
    });
    assert_eq!(world.state("t"), TaskState::UpForRetry);
    world.now += Duration::seconds(5);
    world.apply(&[Command::RetryDue { run: RUN, ti: pk }]);
    // A try of its own, which triggers anew.
    assert_eq!(world.state("t"), TaskState::Deferred);
    look(&mut world, "t", |ws, waiting| {
        assert!(matches!(waiting, Waiting::Trigger(_)));
        ws.end_wait(pk, Success, None, returned(json!("r")));
    });
    assert_eq!(world.ti("t").try_number, 2);
    assert_eq!(world.states(), ["success", "success"]);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn times_end_by_themselves_or_with_the_timeout() {
    let mut world = World::started(vec![
        waiting("soon", "sensor", json!({"delta": "1m"}), json!({})),
        waiting(
            "late",
            "sensor",
            json!({"time": "{{ dag_run.run_after.add(hours=3) }}", "timeout": "1h"}),
            json!({}),
        ),
    ]);
    for id in ["soon", "late"] {
        let pk = world.ti(id).pk;
        look(&mut world, id, |ws, waiting| {
            let Waiting::Until(at) = waiting else {
                panic!("{waiting:?}");
            };
            ws.wait_for_time(pk, at);
        });
    }
    assert_eq!(
        world.ti("soon").next_at,
        Some(world.now + Duration::minutes(1))
    );
    assert_eq!(
        world.ti("late").next_at,
        Some(world.now + Duration::hours(1))
    );
    world.now += Duration::hours(1);
    for id in ["soon", "late"] {
        let pk = world.ti(id).pk;
        look(&mut world, id, |ws, waiting| {
            let Waiting::Until(at) = waiting else {
                panic!("{waiting:?}");
            };
            ws.wait_for_time(pk, at);
        });
    }
    assert_eq!(world.state("soon"), TaskState::Success);
    assert_eq!(world.state("late"), TaskState::Failed);
}

#[test]
fn the_first_poke_counts_even_if_its_worker_was_lost() {
    let mut world = poking(json!({"poke_interval": "1m", "timeout": "1m"}), json!({}));
    let began = world.now;
    let row = world.ti("s").clone();
    world.now += Duration::seconds(90);
    world.apply(&[lost(&row)]);
    assert_eq!(world.ti("s").wait.as_ref().unwrap().since, began);
    world.dispatch();
    poke(&mut world, NotYet, Duration::zero());
    assert_eq!(world.state("s"), TaskState::Failed, "its time is over");
}
