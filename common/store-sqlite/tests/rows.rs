//! Rows as they go in and come out; guards; candidates.

mod support;

use chrono::TimeDelta;
use gristmill_common::{ids::Fence, state::TaskState, trigger_rule::Counters};
use gristmill_store::{Backend, LimitKey, Reads, StoreError, TiWrite, Tx};
use serde_json::json;
use support::{ended, insert, queued, ready, running, store};

#[tokio::test]
async fn every_column_of_an_instance_survives() {
    let (store, _folder) = store().await;
    let run = running(&store, "r", 1).await;
    let now = store.now();
    let mut row = ready(run, 7, now);
    row.map_index = 3;
    row.counters = Counters {
        total: 9,
        success: 1,
        failed: 2,
        upstream_failed: 3,
        skipped: 4,
        removed: 5,
        setups: 6,
        setup_success: 7,
        setup_skipped: 8,
    };
    row.map_values = json!({"z": 1, "a": ["ü", null, 1.5, "\u{0}"], "m": {}})
        .as_object()
        .cloned();
    row.reason = Some("\"quoted\"\n🙂".to_owned());
    row.priority_weight = -5;
    let inserted = insert(&store, vec![row]).await.remove(0);
    let read = store.task_instance(run, "task_7", 3).await.unwrap();
    assert_eq!(read.as_ref(), Some(&inserted));

    let mut changed = ended(queued(inserted, now), now + TimeDelta::microseconds(1));
    changed.expanded_len = Some(2);
    changed.next_at = Some(now);
    changed.infra_losses = 2;
    changed.user_failures = 3;
    changed.epoch = i64::MAX;
    changed.counters.total = 10;
    let mut tx = store.begin().await.unwrap();
    let written = tx
        .update_tis(&[TiWrite {
            row: changed.clone(),
            expected_state: TaskState::Scheduled,
            expected_fence: Fence(0),
        }])
        .await
        .unwrap();
    assert_eq!(written, [changed.pk]);
    assert_eq!(tx.load_tis(&[changed.pk]).await.unwrap(), [changed]);
}

#[tokio::test]
async fn a_write_with_a_stale_state_or_fence_is_fenced() {
    let (store, _folder) = store().await;
    let run = running(&store, "r", 3).await;
    let now = store.now();
    let rows = insert(&store, (0..3).map(|n| ready(run, n, now)).collect()).await;
    let mut tx = store.begin().await.unwrap();
    let write = |n: usize, expected_state, fence| TiWrite {
        row: queued(rows[n].clone(), now),
        expected_state,
        expected_fence: Fence(fence),
    };
    let written = tx
        .update_tis(&[
            write(0, TaskState::Scheduled, 1),
            write(1, TaskState::Running, 0),
            write(2, TaskState::Scheduled, 0),
        ])
        .await
        .unwrap();
    assert_eq!(written, [rows[2].pk]);
}

#[tokio::test]
async fn candidates_fit_together_and_nothing_hides_behind_what_does_not() {
    let (store, _folder) = store().await;
    store.put_pool("small", 3, None).await.unwrap();
    let run = running(&store, "r", 6).await;
    let now = store.now();
    let of = |n, pool: &str, slots, priority| {
        let mut row = ready(run, n, now);
        row.pool = pool.to_owned();
        row.pool_slots = slots;
        row.priority_weight = priority;
        row
    };
    let rows = insert(
        &store,
        vec![
            of(0, "small", 2, 9),
            of(1, "small", 2, 8),
            of(2, "small", 1, 7),
            of(3, "small", 1, 6),
            of(4, "default_pool", 1, 5),
            of(5, "no such pool", 1, 99),
        ],
    )
    .await;
    let mut tx = store.begin().await.unwrap();
    let chosen = tx.ready_candidates(100).await.unwrap();
    let expected: Vec<_> = [0, 2, 4].map(|n: usize| (rows[n].pk, run)).to_vec();
    assert_eq!(chosen, expected);
    assert_eq!(tx.ready_candidates(2).await.unwrap(), expected[..2]);
    // The transaction goes on after a search that stopped early.
    let mut row = tx.lock_runs(&[run]).await.unwrap().remove(0);
    row.max_active_tasks = 2;
    tx.update_runs(&[row]).await.unwrap();
    assert_eq!(tx.ready_candidates(100).await.unwrap(), expected[..2]);
    let task = LimitKey::TaskInRun {
        run,
        task_id: "task_0".to_owned(),
    };
    tx.ensure_limits(&[(task, 0)], true).await.unwrap();
    assert_eq!(
        tx.ready_candidates(100).await.unwrap(),
        [1, 2].map(|n: usize| (rows[n].pk, run))
    );
}

#[tokio::test]
async fn a_limit_refuses_by_name_what_it_cannot_bear() {
    let (store, _folder) = store().await;
    let pool = LimitKey::pool("p");
    let queue = LimitKey::queue("q");
    let mut tx = store.begin().await.unwrap();
    let limits = [(pool.clone(), 2), (queue.clone(), -1)];
    tx.ensure_limits(&limits, false).await.unwrap();
    tx.spend_limits(&[(pool.clone(), 1), (queue.clone(), 900), (pool.clone(), 1)])
        .await
        .unwrap();
    let error = tx
        .spend_limits(&[(pool.clone(), 1), (queue.clone(), 1)])
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert!(error.to_string().contains("pool \"p\" by +1"), "{error}");
    tx.spend_limits(&[(pool, -3)]).await.unwrap_err();
}

#[tokio::test]
async fn an_attempt_ends_once() {
    let (store, _folder) = store().await;
    let run = running(&store, "r", 1).await;
    let now = store.now();
    let row = insert(&store, vec![queued(ready(run, 0, now), now)])
        .await
        .remove(0);
    let attempt = gristmill_common::row::AttemptRow {
        ti: row.pk,
        try_number: 1,
        attempt: row.attempt.unwrap(),
        fence: row.fence,
        ending: "success".to_owned(),
        started_at: Some(now),
        ended_at: now,
        worker: Some("w".to_owned()),
        hostname: None,
        pid: Some(1),
        exit_code: Some(0),
        reason: None,
    };
    let mut tx = store.begin().await.unwrap();
    tx.insert_attempts(std::slice::from_ref(&attempt))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.begin().await.unwrap();
    let error = tx
        .insert_attempts(std::slice::from_ref(&attempt))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    drop(tx);
    assert_eq!(store.attempts(row.pk).await.unwrap(), [attempt]);
}

#[tokio::test]
async fn a_deleted_run_takes_all_with_it_and_its_keys_are_not_used_again() {
    let (store, _folder) = store().await;
    let run = running(&store, "r", 1).await;
    let now = store.now();
    let row = insert(&store, vec![ready(run, 0, now)]).await.remove(0);
    assert!(matches!(
        store.delete_run(run).await,
        Err(StoreError::Refused(_))
    ));
    let mut tx = store.begin().await.unwrap();
    let limit = LimitKey::TaskInRun {
        run,
        task_id: "task_0".to_owned(),
    };
    tx.ensure_limits(&[(limit.clone(), 4)], true).await.unwrap();
    let mut ended = tx.lock_runs(&[run]).await.unwrap().remove(0);
    ended.state = gristmill_common::state::RunState::Success;
    ended.ended_at = Some(now);
    tx.update_runs(&[ended]).await.unwrap();
    tx.commit().await.unwrap();
    store.delete_run(run).await.unwrap();
    assert!(store.limits(&[limit]).await.unwrap().is_empty());
    let mut tx = store.begin().await.unwrap();
    assert!(tx.load_tis(&[row.pk]).await.unwrap().is_empty());
    drop(tx);
    let next = running(&store, "r", 1).await;
    assert!(next > run);
    let again = insert(&store, vec![ready(next, 0, now)]).await.remove(0);
    assert!(again.pk > row.pk);
}
