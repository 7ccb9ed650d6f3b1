//! What failures lead to beside plain retries.

use super::harness::*;
use crate::{message::Ending::*, state::TaskState};
use chrono::Duration;
use serde_json::json;

#[test]
fn a_rule_may_ask_for_another_wait_but_not_for_another_try() {
    let mut world = World::started(vec![task(
        "t",
        &[],
        json!({"retries": 1, "retry_delay": "1h"}),
    )]);
    world.end("t", RetryIn { ms: 5_000 });
    let row = world.ti("t").clone();
    assert_eq!(row.state, TaskState::UpForRetry);
    assert_eq!(row.next_at, Some(world.now + Duration::seconds(5)));
    world.now += Duration::seconds(5);
    world.apply(&[retry_due(RUN, row.pk)]);
    world.end("t", RetryIn { ms: u64::MAX });
    assert_eq!(world.state("t"), TaskState::Failed, "no try is left");
}

#[test]
fn what_no_worker_takes_in_time_fails() {
    let waits = json!({"queued_timeout": "12m", "retries": 1, "retry_delay": "1m"});
    let mut world = World::started(vec![task("t", &[], waits)]);
    let start = world.now;
    // The claim window is 5 minutes: it goes out three times, the last time for the rest.
    for minutes in [5, 10, 12] {
        world.dispatch();
        let row = world.ti("t").clone();
        assert_eq!(row.claim_by, Some(start + Duration::minutes(minutes)));
        world.now = start + Duration::minutes(minutes);
        world.apply(&[unclaimed(&row)]);
    }
    let row = world.ti("t").clone();
    assert_eq!(
        row.state,
        TaskState::UpForRetry,
        "a failed try like any other"
    );
    assert!(
        row.reason
            .unwrap()
            .contains("no worker of queue default took it within 12m")
    );
    world.now += Duration::minutes(1);
    world.apply(&[retry_due(RUN, row.pk)]);
    world.begin("t");
    assert_eq!(world.state("t"), TaskState::Running);
    // Its time starts anew with what comes after a start.
    let row = world.ti("t").clone();
    world.now += Duration::hours(1);
    world.apply(&[lost(&row)]);
    world.dispatch();
    let row = world.ti("t");
    assert_eq!(row.claim_by, Some(world.now + Duration::minutes(5)));
}
