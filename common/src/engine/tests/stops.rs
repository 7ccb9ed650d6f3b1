//! Runs that are stopped.

use super::harness::*;
use crate::{
    limit::LimitKey,
    message::Ending::*,
    state::{RunState, TaskState},
};
use serde_json::json;

fn tasks() -> Vec<serde_json::Value> {
    let retried = json!({"retries": 3, "retry_delay": "1h"});
    vec![
        task("waits", &["runs"], json!({})),
        task("runs", &[], json!({})),
        task("queued", &[], json!({})),
        task("retries", &[], retried),
        task("blocked", &[], json!({"pool": "nowhere"})),
    ]
}

#[test]
fn what_has_not_started_is_skipped_and_what_runs_is_failed() {
    let mut world = World::started(tasks());
    world.begin("runs");
    world.end("retries", Failed);
    let stopped = world.apply(&[stop("enough", true)]);
    let (runs, queued) = (world.ti("runs").clone(), world.ti("queued").clone());
    assert_eq!(stopped.to_cancel, [runs.pk, queued.pk]);
    assert_eq!(
        world.states(),
        ["skipped", "running", "queued", "skipped", "skipped"]
    );
    world.apply(&[cancelled_unclaimed(RUN, queued.dispatch())]);
    assert_eq!(world.run().state, RunState::Running);
    let ended = world.apply(&[finished(&runs, Cancelled)]);
    assert_eq!(ended.ended_runs, [RUN]);
    assert_eq!(
        world.states(),
        ["skipped", "failed", "skipped", "skipped", "skipped"]
    );
    assert_eq!(world.ti("runs").reason.as_deref(), Some("enough"));
    assert_eq!(world.run().state, RunState::Failed);
    assert!(world.run().cancelled);
}

#[test]
fn asking_again_writes_nothing_and_keeps_the_first_reason() {
    let mut world = World::started(tasks());
    world.begin("runs");
    assert!(world.apply(&[stop("timeout", false)]).wrote_runs);
    for _ in 0..3 {
        let again = world.apply(&[stop("timeout again", false)]);
        assert!(!again.wrote_runs);
        assert_eq!(again.to_cancel.len(), 3);
    }
    // A user's wish is news, even then.
    assert!(world.apply(&[stop("by a user", true)]).wrote_runs);
    assert!(!world.apply(&[stop("by a user", true)]).wrote_runs);
    let run = world.run();
    assert_eq!(
        (run.cancelled, run.stop_reason.as_deref()),
        (true, Some("timeout"))
    );
}

#[test]
fn a_queued_run_ends_at_once_and_an_ended_one_stays() {
    let mut world = World::new(tasks());
    assert_eq!(world.apply(&[stop("no", true)]).ended_runs, [RUN]);
    assert_eq!(world.run().state, RunState::Failed);
    assert_eq!(world.apply(&[stop("no", true)]).stale, 1);
    let key = LimitKey::DagRuns { dag_id: "d".into() };
    assert_eq!(world.used(&key), 0);
}

#[test]
fn what_comes_back_in_a_stopped_run_is_not_sent_out_again() {
    let mut world = World::started(tasks());
    world.begin("runs");
    world.dispatch();
    world.apply(&[stop("enough", true)]);
    let rows = ["runs", "queued", "retries"].map(|id| world.ti(id).clone());
    world.apply(&[
        lost(&rows[0]),
        requeued(&rows[1]),
        finished(&rows[2], Failed),
    ]);
    assert_eq!(world.state("runs"), TaskState::Failed, "it had started");
    assert_eq!(world.state("queued"), TaskState::Skipped);
    assert_eq!(world.state("retries"), TaskState::Failed, "no retry");
    assert_eq!(world.run().state, RunState::Failed);
}

#[test]
fn an_ending_and_the_stop_may_meet_in_one_transaction() {
    for stop_first in [true, false] {
        let mut world = World::started(vec![
            task("a", &[], json!({})),
            task("b", &["a"], json!({})),
        ]);
        world.begin("a");
        let row = world.ti("a").clone();
        let mut commands = [finished(&row, Success), stop("enough", true)];
        if stop_first {
            commands.reverse();
        }
        world.apply(&commands);
        assert_eq!(world.states(), ["success", "skipped"]);
        assert_eq!(world.run().state, RunState::Failed);
    }
}

#[test]
fn cancelling_an_unclaimed_dispatch_needs_a_stopped_run_that_has_not_started_it() {
    let mut world = World::started(tasks());
    world.dispatch();
    let row = world.ti("queued").clone();
    let command = cancelled_unclaimed(RUN, row.dispatch());
    assert_eq!(world.apply(std::slice::from_ref(&command)).stale, 1);
    world.begin("queued");
    world.apply(&[stop("enough", true)]);
    assert_eq!(world.apply(&[command]).stale, 1, "it runs");
}
