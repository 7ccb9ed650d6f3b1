//! Chains, diamonds, trigger rules, retries, losses, what is stale.

use super::harness::*;
use crate::{
    message::Ending::{self, *},
    state::{RunState, TaskState},
};
use rstest::rstest;
use serde_json::json;

#[test]
fn a_chain_runs_in_order() {
    let mut world = World::started(vec![
        task("a", &[], json!({})),
        task("b", &["a"], json!({})),
        task("c", &["b"], json!({})),
    ]);
    for id in ["a", "b", "c"] {
        assert_eq!(world.state(id), TaskState::Scheduled);
        assert_eq!(world.dispatch().dispatched, [world.ti(id).pk]);
        world.begin(id);
        assert_eq!(world.state(id), TaskState::Running);
        world.end(id, Success);
    }
    assert_eq!(world.states(), ["success"; 3]);
    assert_eq!(world.run().state, RunState::Success);
    assert_eq!(world.edges_counted, 2);
}

#[test]
fn a_diamond_joins_once() {
    let mut world = World::started(vec![
        task("a", &[], json!({})),
        task("b", &["a"], json!({})),
        task("c", &["a"], json!({})),
        task("d", &["b", "c"], json!({})),
    ]);
    world.end("a", Success);
    world.dispatch();
    let (b, c) = (world.ti("b").clone(), world.ti("c").clone());
    // Both in one transaction, and again.
    world.apply(&[finished(&b, Success), finished(&c, Success)]);
    assert_eq!(
        world
            .apply(&[finished(&b, Failed), finished(&c, Failed)])
            .stale,
        2
    );
    assert_eq!(world.state("d"), TaskState::Scheduled);
    world.end("d", Success);
    assert_eq!(world.run().state, RunState::Success);
    assert_eq!(world.edges_counted, 4);
}

#[test]
fn an_empty_run_ends_at_once() {
    let world = World::started(vec![]);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn empty_tasks_end_without_a_worker_through_any_depth() {
    let ids: Vec<String> = (0..500).map(|i| format!("t{i}")).collect();
    let tasks = ids.iter().enumerate().map(|(i, id)| {
        let upstreams = if i == 0 {
            vec![]
        } else {
            vec![ids[i - 1].as_str()]
        };
        task(id, &upstreams, json!({"empty": {}}))
    });
    let world = World::started(tasks.collect());
    assert_eq!(world.run().state, RunState::Success);
    assert_eq!(world.edges_counted, 499);
}

/// Two upstreams end in this order; what becomes of the task, and whether before the second ended.
#[rstest]
#[case("all_success", [Success, Success], "scheduled")]
#[case("all_success", [Failed, Success], "upstream_failed")]
#[case("all_success", [Skipped, Success], "skipped")]
#[case("all_failed", [Failed, FailedForGood], "scheduled")]
#[case("all_failed", [Failed, Success], "skipped")]
#[case("all_done", [Failed, Skipped], "scheduled")]
#[case("one_success", [Failed, Success], "scheduled")]
#[case("one_success", [Failed, Skipped], "upstream_failed")]
#[case("one_success", [Skipped, Skipped], "skipped")]
#[case("one_failed", [Success, Failed], "scheduled")]
#[case("one_failed", [Success, Skipped], "skipped")]
#[case("one_done", [Skipped, Failed], "scheduled")]
#[case("one_done", [Skipped, Skipped], "skipped")]
#[case("none_failed", [Skipped, Success], "scheduled")]
#[case("none_failed", [Skipped, Failed], "upstream_failed")]
#[case("none_failed_min_one_success", [Skipped, Success], "scheduled")]
#[case("none_failed_min_one_success", [Skipped, Skipped], "skipped")]
#[case("none_skipped", [Failed, Success], "scheduled")]
#[case("none_skipped", [Failed, Skipped], "skipped")]
#[case("all_skipped", [Skipped, Skipped], "scheduled")]
#[case("all_skipped", [Skipped, Failed], "skipped")]
#[case("all_done_min_one_success", [Failed, Success], "scheduled")]
#[case("all_done_min_one_success", [Failed, Failed], "upstream_failed")]
#[case("always", [Failed, Failed], "scheduled")]
fn trigger_rules_act(#[case] rule: &str, #[case] endings: [Ending; 2], #[case] becomes: &str) {
    let mut world = World::started(vec![
        task("a", &[], json!({})),
        task("b", &[], json!({})),
        task("c", &["a", "b"], json!({"trigger_rule": rule})),
    ]);
    for (id, ending) in ["a", "b"].into_iter().zip(endings) {
        world.end(id, ending);
    }
    // `always` was dispatched with the others.
    let state = world.state("c");
    let expected = if rule == "always" { "queued" } else { becomes };
    assert_eq!(state.as_str(), expected);
    if !state.is_finished() {
        world.end("c", Success);
    }
    assert!(world.run().state.is_finished());
}

#[test]
fn skips_and_failures_cascade() {
    for (ending, becomes, run) in [
        (Skipped, "skipped", RunState::Success),
        (Failed, "upstream_failed", RunState::Failed),
    ] {
        let mut world = World::started(vec![
            task("a", &[], json!({})),
            task("b", &["a"], json!({})),
            task("c", &["b"], json!({})),
        ]);
        world.end("a", ending);
        assert_eq!(world.states()[1..], [becomes; 2]);
        assert_eq!(world.run().state, run);
    }
}

#[test]
fn a_failure_that_a_later_task_mends_is_none_of_the_run() {
    let mut world = World::started(vec![
        task("a", &[], json!({})),
        task("mend", &["a"], json!({"trigger_rule": "one_failed"})),
    ]);
    world.end("a", Failed);
    world.end("mend", Success);
    assert_eq!(world.run().state, RunState::Success);
}

#[test]
fn retries_wait_and_count() {
    let mut world = World::started(vec![task(
        "a",
        &[],
        json!({"retries": 2, "retry_delay": "10s"}),
    )]);
    for n in 1..=2 {
        world.end("a", Failed);
        assert_eq!(world.state("a"), TaskState::UpForRetry);
        let ti = world.ti("a").clone();
        let due = crate::engine::Command::RetryDue {
            run: ti.run,
            ti: ti.pk,
        };
        assert_eq!(
            world.apply(std::slice::from_ref(&due)).stale,
            1,
            "too early"
        );
        world.now += chrono::Duration::seconds(10);
        assert_eq!(world.apply(&[due.clone(), due]).stale, 1, "once");
        assert_eq!((world.state("a"), ti.try_number), (TaskState::Scheduled, n));
    }
    world.end("a", Failed);
    assert_eq!(world.state("a"), TaskState::Failed);
    assert_eq!(world.attempts.len(), 3);
    assert_eq!(world.ti("a").fence.0, 3);
}

#[test]
fn a_retry_without_delay_is_ready_at_once_and_failing_for_good_is_not_retried() {
    let spec = json!({"retries": 5, "retry_delay": "0s"});
    let mut world = World::started(vec![task("a", &[], spec)]);
    world.end("a", Failed);
    assert_eq!(world.state("a"), TaskState::Scheduled);
    world.end("a", FailedForGood);
    assert_eq!(world.state("a"), TaskState::Failed);
}

#[test]
fn losses_cost_no_try_until_the_third_in_a_row() {
    let mut world = World::started(vec![
        task("a", &[], json!({"retries": 1, "retry_delay": "0s"})),
        task("b", &["a"], json!({})),
    ]);
    let lose = |world: &mut World| {
        world.dispatch();
        let row = world.ti("a").clone();
        assert_eq!(world.apply(&[lost(&row), lost(&row)]).stale, 1);
    };
    lose(&mut world);
    world.begin("a");
    lose(&mut world);
    // An ending of its own starts the count anew, and its retry is still there.
    world.end("a", Failed);
    for _ in 0..2 {
        lose(&mut world);
        assert_eq!(world.state("a"), TaskState::Scheduled);
    }
    lose(&mut world);
    assert_eq!(world.states(), ["failed", "upstream_failed"]);
    assert_eq!(world.attempts.len(), 6);
    assert!(
        world
            .ti("a")
            .reason
            .as_deref()
            .unwrap()
            .contains("given up")
    );
}

#[test]
fn a_requeue_costs_no_try() {
    let mut world = World::started(vec![task("a", &[], json!({}))]);
    for _ in 0..5 {
        world.begin("a");
        let row = world.ti("a").clone();
        world.apply(&[requeued(&row)]);
        world.dispatch();
        let row = world.ti("a").clone();
        world.apply(&[unclaimed(&row)]);
    }
    assert_eq!(
        world.attempts.len(),
        5,
        "an unclaimed dispatch is no attempt"
    );
    assert_eq!(world.ti("a").try_number, 5);
    world.end("a", Success);
    assert_eq!((world.ti("a").try_number, world.ti("a").fence.0), (6, 11));
}

#[test]
fn what_runs_is_not_unclaimed() {
    let mut world = World::started(vec![task("a", &[], json!({}))]);
    world.begin("a");
    let row = world.ti("a").clone();
    assert_eq!(world.apply(&[unclaimed(&row)]).stale, 1);
    assert_eq!(world.apply(&[forgotten(&row)]).stale, 1);
    assert_eq!(world.state("a"), TaskState::Running);
}

#[test]
fn what_was_forgotten_counts_as_a_try_and_costs_none() {
    let mut world = World::started(vec![task("a", &[], json!({}))]);
    world.dispatch();
    let row = world.ti("a").clone();
    world.apply(&[forgotten(&row)]);
    world.dispatch();
    assert_eq!(world.attempts.len(), 1);
    let again = world.ti("a");
    assert_eq!((again.try_number, again.infra_losses), (2, 0));
    assert_eq!(again.max_tries, row.max_tries + 1);
}

#[test]
fn stale_fences_change_nothing() {
    let mut world = World::started(vec![
        task("a", &[], json!({"retries": 3, "retry_delay": "0s"})),
        task("b", &["a"], json!({})),
    ]);
    world.end("a", Failed);
    world.dispatch();
    let stale = older(world.ti("a"));
    let before = world.ti("a").clone();
    let commands = [
        started(&stale),
        finished(&stale, Success),
        finished(&stale, Failed),
        requeued(&stale),
        unclaimed(&stale),
        lost(&stale),
        cancelled_unclaimed(RUN, stale.dispatch()),
    ];
    assert_eq!(world.apply(&commands).stale, commands.len());
    assert_eq!(*world.ti("a"), before);
}

#[test]
fn an_ending_may_overtake_its_start() {
    let mut world = World::started(vec![task("a", &[], json!({}))]);
    world.dispatch();
    let row = world.ti("a").clone();
    world.apply(&[finished(&row, Success)]);
    assert_eq!(world.apply(&[started(&row)]).stale, 1);
    assert_eq!(world.state("a"), TaskState::Success);
}

#[test]
fn commands_of_runs_and_tasks_that_are_gone_are_stale() {
    let mut world = World::started(vec![task("a", &[], json!({}))]);
    world.dispatch();
    let row = world.ti("a").clone();
    let (run, ti) = (crate::ids::RunPk(99), crate::ids::TiPk(99));
    let mut gone = row.clone();
    (gone.run, gone.pk) = (run, ti);
    assert_eq!(world.apply(&[finished(&gone, Success)]).stale, 1);
}
