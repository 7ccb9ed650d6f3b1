//! What the conformance suite leaves open: candidates as one set, and what a deleted run takes with it.

mod support;

use gristmill_common::{row::OutboxRow, state::RunState};
use gristmill_store::{Backend, LimitKey, Reads, StoreError, Tx};
use support::{insert, queued, ready, running, store};

#[tokio::test]
async fn candidates_fit_together_and_nothing_hides_behind_what_does_not() {
    let (store, _folder) = store().await;
    store.put_pool("small", 3, None, false).await.unwrap();
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
    let sent = queued(row.clone(), now);
    tx.insert_outbox(&[OutboxRow {
        run,
        dispatch: sent.dispatch(),
        queue: sent.queue.clone(),
        body: "{}".to_owned(),
        epoch: 0,
        claim_by: now,
        priority: 0,
    }])
    .await
    .unwrap();
    let limit = LimitKey::TaskInRun {
        run,
        task_id: "task_0".to_owned(),
    };
    tx.ensure_limits(&[(limit.clone(), 4)], true).await.unwrap();
    let mut ended = tx.lock_runs(&[run]).await.unwrap().remove(0);
    ended.state = RunState::Success;
    ended.ended_at = Some(now);
    tx.update_runs(&[ended]).await.unwrap();
    tx.commit().await.unwrap();
    store.delete_run(run).await.unwrap();
    assert!(store.limits(&[limit]).await.unwrap().is_empty());
    assert_eq!(store.outbox_oldest_age().await.unwrap(), None);
    let mut tx = store.begin().await.unwrap();
    assert!(tx.load_tis(&[row.pk]).await.unwrap().is_empty());
    drop(tx);
    let next = running(&store, "r", 1).await;
    assert!(next > run);
    let again = insert(&store, vec![ready(next, 0, now)]).await.remove(0);
    assert!(again.pk > row.pk);
}
