//! Callbacks and deadlines.

use super::{
    bed::{Bed, after, manual_run},
    schedules::{context, deployed, ended},
};
use crate::{Backend, CallFilter, CallRow, CallState, CallTx, Claim, Delivery, NewRun, Store, Tx};
use gristmill_common::{
    callback::{CallOn, NewCall, Webhook},
    ids::RunPk,
    message::Ending,
};
use serde_json::json;
use std::time::Duration;

fn call(run: RunPk, target: &str, position: i32) -> NewCall {
    let webhook: Webhook = serde_json::from_value(json!({
        "url": format!("http://{target}/"), "method": "POST", "timeout_ms": 1000,
        "headers": {"x": "y"}, "connection": "c",
    }))
    .unwrap();
    NewCall {
        run,
        ti: None,
        task_id: Some("t".to_owned()),
        map_index: -1,
        try_number: 2,
        event: CallOn::OnRetry,
        position,
        target: target.to_owned(),
        webhook: Ok(webhook),
        body: json!({"b": [1, "ü", null]}),
        at: after(0),
    }
}

async fn claimed<B: Backend>(bed: &Bed<B>, max: i64, busy: &[String], lease: u64) -> Vec<CallRow> {
    let claim = Claim {
        max,
        of_one_target: 2,
        busy,
        lease: Duration::from_secs(lease),
    };
    let mut rows = bed.claim_calls(&claim).await.unwrap();
    rows.sort_by_key(|row| row.id);
    rows
}

fn places(rows: &[CallRow]) -> Vec<(&str, i32)> {
    rows.iter()
        .map(|row| (row.target.as_str(), row.position))
        .collect()
}

async fn all<B: Backend>(bed: &Bed<B>, filter: CallFilter) -> Vec<CallRow> {
    let page = bed
        .calls(&CallFilter {
            limit: 100,
            ..filter
        })
        .await
        .unwrap();
    assert_eq!(page.total, page.rows.len() as i64);
    page.rows
}

pub async fn calls_are_taken_by_target_and_until_a_time<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let run = bed.insert_run(&manual_run(&dag, "r")).await;
    let mut calls: Vec<NewCall> = (0..3).map(|n| call(run, "a", n)).collect();
    calls.push(call(run, "b", 0));
    calls.push(NewCall {
        webhook: Err("message: `x` is undefined".to_owned()),
        ..call(run, "a", 9)
    });
    assert!(!bed.to_do(Duration::ZERO).await.unwrap().callbacks);
    let mut tx = bed.tx().await;
    tx.put_calls(&calls).await.unwrap();
    tx.commit().await.unwrap();
    assert!(bed.to_do(Duration::ZERO).await.unwrap().callbacks);
    let failed = all(
        &bed,
        CallFilter {
            state: Some(CallState::Failed),
            ..CallFilter::default()
        },
    )
    .await;
    assert_eq!(places(&failed), [("a", 9)]);
    assert_eq!(
        failed[0].error.as_deref(),
        Some("message: `x` is undefined")
    );
    assert!(
        !bed.retry_call(failed[0].id).await.unwrap(),
        "it was never made"
    );
    // Two of a target; what is taken is not taken again.
    let first = claimed(&bed, 10, &[], 60).await;
    assert_eq!(places(&first), [("a", 0), ("a", 1), ("b", 0)]);
    let row = &first[0];
    assert_eq!(
        (
            row.dag_id.as_str(),
            row.run_id.as_str(),
            row.attempts,
            row.event
        ),
        ("d", "r", 1, CallOn::OnRetry)
    );
    assert_eq!(row.webhook, calls[0].webhook.clone().ok());
    assert_eq!((&row.body, row.try_number), (&calls[0].body, 2));
    assert_eq!(claimed(&bed, 10, &["a".to_owned()], 60).await, []);
    let second = claimed(&bed, 10, &[], 0).await;
    assert_eq!(places(&second), [("a", 2)]);
    // Its time is over at once: the next has it, and what the first says of it then is of no account.
    let again = claimed(&bed, 10, &[], 60).await;
    assert_eq!((places(&again), again[0].attempts), (vec![("a", 2)], 2));
    let said = |row: &CallRow, state: CallState, seconds: Option<i64>| Delivery {
        id: row.id,
        attempts: row.attempts,
        state,
        next_at: seconds.map(after),
        error: seconds.map(|_| "503".to_owned()),
        status: Some(503),
    };
    let deliveries = [
        said(&second[0], CallState::Failed, None),
        said(&first[0], CallState::Delivered, None),
        said(&first[1], CallState::Pending, Some(-1)),
        said(&first[2], CallState::Pending, Some(60)),
    ];
    bed.delivered(&deliveries).await.unwrap();
    let waiting = claimed(&bed, 10, &[], 60).await;
    assert_eq!((places(&waiting), waiting[0].attempts), (vec![("a", 1)], 2));
    assert_eq!(waiting[0].error.as_deref(), Some("503"));
    let delivered = all(
        &bed,
        CallFilter {
            state: Some(CallState::Delivered),
            dag_id: Some("d".to_owned()),
            run: Some(run),
            ..CallFilter::default()
        },
    )
    .await;
    assert_eq!(places(&delivered), [("a", 0)]);
    assert!(delivered[0].ended_at.is_some() && delivered[0].next_at.is_none());
    assert!(bed.retry_call(delivered[0].id).await.unwrap());
    assert_eq!(places(&claimed(&bed, 10, &[], 60).await), [("a", 0)]);
    assert_eq!(all(&bed, CallFilter::default()).await.len(), 5);
}

pub async fn an_event_and_its_calls_are_written_together<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let file = "
dag_id: d
on_failure: {webhook: 'http://h/run'}
tasks:
  load: {noop: {}, retries: 1, retry_delay: 0s, on_retry: {webhook: 'http://h/retry'}, on_failure: {webhook: 'http://h/task'}}
";
    let dag = deployed(&bed, file).await;
    let run = bed.insert_run(&manual_run(&dag, "r")).await;
    let out = bed.start_runs(&context).await.unwrap();
    let out = bed
        .apply(&[ended(&out.outbox[0], Ending::Failed)], &[], &context)
        .await
        .unwrap();
    assert!(out.calls);
    let last = bed
        .apply(&[ended(&out.outbox[0], Ending::Failed)], &[], &context)
        .await
        .unwrap();
    assert!(last.calls);
    let told = all(
        &bed,
        CallFilter {
            run: Some(run),
            ..CallFilter::default()
        },
    )
    .await;
    let events: Vec<(CallOn, bool)> = told
        .iter()
        .map(|call| (call.event, call.task_id.is_some()))
        .collect();
    assert_eq!(
        events,
        [
            (CallOn::OnFailure, false),
            (CallOn::OnFailure, true),
            (CallOn::OnRetry, true)
        ]
    );
    assert_eq!(told[2].body["state"], "up_for_retry");
}

pub async fn deadlines_are_missed_once<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let file = "
dag_id: d
deadlines:
  - {reference: queued, after: 1h, call: {webhook: 'http://h/'}}
  - {reference: average_runtime, call: {webhook: 'http://h/'}}
tasks:
  load: {noop: {}, deadlines: [{reference: start, call: {webhook: 'http://h/'}}]}
";
    let dag = deployed(&bed, file).await;
    let before = bed.insert_run(&manual_run(&dag, "before")).await;
    bed.edit_run(before, |row| row.started_at = Some(after(-30)))
        .await;
    bed.end_run(before, after(-20)).await;
    let due = |run_id: &str, at: Option<i64>| NewRun {
        next_deadline: at.map(after),
        ..manual_run(&dag, run_id)
    };
    bed.insert_run(&due("later", Some(3600))).await;
    let run = bed.insert_run(&due("late", Some(-1))).await;
    let mut tx = bed.tx().await;
    assert_eq!(tx.due_deadlines(10).await.unwrap(), [run]);
    let average = tx.average_runtime("d").await.unwrap().unwrap();
    assert_eq!(average.num_seconds(), 10);
    assert_eq!(tx.average_runtime("e").await.unwrap(), None);
    drop(tx);
    assert!(bed.to_do(Duration::ZERO).await.unwrap().deadlines);
    // None of those that are known has come: only the time of the next is put right.
    bed.look_at_deadlines(&context).await.unwrap();
    assert!(!bed.to_do(Duration::ZERO).await.unwrap().deadlines);
    assert_eq!(bed.missed_deadlines(run).await.unwrap(), []);
    bed.start_runs(&context).await.unwrap();
    // The task's came with the start.
    assert!(bed.to_do(Duration::ZERO).await.unwrap().deadlines);
    let looked = bed.look_at_deadlines(&context).await.unwrap();
    assert!(looked.calls);
    let missed = bed.missed_deadlines(run).await.unwrap();
    assert_eq!(missed.len(), 1);
    assert_eq!(missed[0].task_id.as_deref(), Some("load"));
    assert!(!bed.to_do(Duration::ZERO).await.unwrap().deadlines);
    let mut tx = bed.tx().await;
    assert!(!tx.put_missed(&missed[0]).await.unwrap(), "once");
    let back = [(run, Some(after(-1)))];
    tx.set_next_deadlines(&back).await.unwrap();
    tx.commit().await.unwrap();
    bed.look_at_deadlines(&context).await.unwrap();
    let told = all(
        &bed,
        CallFilter {
            run: Some(run),
            ..CallFilter::default()
        },
    )
    .await;
    assert_eq!(told.len(), 1, "it is called once");
    assert_eq!(
        (told[0].event, told[0].task_id.as_deref()),
        (CallOn::Deadline, Some("load"))
    );
}
