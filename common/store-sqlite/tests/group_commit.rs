//! Group commit: many transactions share an fsync, each fails alone, and readers see only what is durable.

mod support;

use gristmill_store::{Backend, NewTi, Reads, StoreError, Tx};
use gristmill_store_sqlite::SqliteStore;
use std::time::Duration;
use support::{deploy, new_run, store};
use tokio::task::JoinSet;

async fn letters(store: &SqliteStore) -> usize {
    store.dead_letters(10_000).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_transactions_share_commits() {
    let (store, _folder) = store().await;
    let before = store.commits();
    let mut tasks = JoinSet::new();
    for n in 0..200 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut tx = store.begin().await.unwrap();
            tx.put_dead_letter("test", &n.to_string(), b"")
                .await
                .unwrap();
            tx.commit().await.unwrap();
            // Committed means visible to everybody.
            assert!(
                store
                    .dead_letters(10_000)
                    .await
                    .unwrap()
                    .iter()
                    .any(|letter| letter.reason == n.to_string())
            );
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let commits = store.commits() - before;
    assert_eq!(letters(&store).await, 200);
    assert!(
        commits <= 50,
        "{commits} physical commits for 200 transactions"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_that_fails_or_is_dropped_leaves_its_neighbours_alone() {
    let (store, _folder) = store().await;
    let version = deploy(&store).await;
    let mut tasks = JoinSet::new();
    for n in 0..90 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut tx = store.begin().await.unwrap();
            tx.put_dead_letter("test", &n.to_string(), b"")
                .await
                .unwrap();
            match n % 3 {
                0 => tx.commit().await.unwrap(),
                1 => drop(tx),
                _ => {
                    // The same run again and again: a unique key refuses all but one.
                    let run = new_run("same", version, tx.now());
                    match tx.insert_run(&run).await {
                        Ok(_) => tx.commit().await.unwrap(),
                        Err(StoreError::Exists { what: "run", .. }) => drop(tx),
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(letters(&store).await, 30 + 1);
    assert!(store.run(support::DAG, "same").await.unwrap().is_some());
}

#[tokio::test]
async fn a_transaction_in_which_a_statement_failed_is_not_committed() {
    let (store, _folder) = store().await;
    let mut tx = store.begin().await.unwrap();
    tx.put_dead_letter("test", "half", b"").await.unwrap();
    let orphan = support::ready(gristmill_common::ids::RunPk(404), 0, tx.now());
    let error = tx.insert_tis(&[NewTi(orphan)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    tx.commit().await.unwrap_err();
    assert_eq!(letters(&store).await, 0);
}

#[tokio::test]
async fn nothing_is_visible_before_the_commit() {
    let (store, _folder) = store().await;
    let mut tx = store.begin().await.unwrap();
    tx.put_dead_letter("test", "open", b"").await.unwrap();
    assert_eq!(letters(&store).await, 0);
    tx.commit().await.unwrap();
    assert_eq!(letters(&store).await, 1);
}

#[tokio::test]
async fn a_transaction_that_was_abandoned_in_the_middle_of_a_statement_is_undone() {
    let (store, _folder) = store().await;
    let mut tx = store.begin().await.unwrap();
    {
        // Polled once: the statement is on its way, and nobody waits for its answer any more.
        let statement = tx.put_dead_letter("test", "abandoned", b"");
        let mut statement = std::pin::pin!(statement);
        let _ = futures::poll!(statement.as_mut());
    }
    drop(tx);
    let mut tx = store.begin().await.unwrap();
    tx.put_dead_letter("test", "next", b"").await.unwrap();
    tx.commit().await.unwrap();
    let letters = store.dead_letters(10).await.unwrap();
    assert_eq!(
        letters
            .iter()
            .map(|l| l.reason.as_str())
            .collect::<Vec<_>>(),
        ["next"]
    );
}

#[tokio::test]
async fn an_asker_that_gives_up_does_not_stand_in_the_way_of_the_next() {
    let (store, _folder) = store().await;
    let held = store.begin().await.unwrap();
    {
        let mut asker = std::pin::pin!(store.begin());
        assert!(futures::poll!(asker.as_mut()).is_pending());
    }
    let mut next = std::pin::pin!(store.begin());
    assert!(futures::poll!(next.as_mut()).is_pending());
    drop(held);
    next.await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn a_run_accepted_wakes_those_who_wait_after_the_commit() {
    let (store, _folder) = store().await;
    let version = deploy(&store).await;
    let mut tx = store.begin().await.unwrap();
    let now = tx.now();
    tx.insert_run(&new_run("r", version, now)).await.unwrap();
    let waiter = store.clone();
    let seen = store.run_changes();
    let waiting = tokio::spawn(async move {
        waiter.run_changed(seen, Duration::from_secs(3600)).await;
        waiter.run(support::DAG, "r").await.unwrap().is_some()
    });
    tx.commit().await.unwrap();
    assert!(waiting.await.unwrap(), "woken before the run was visible");
    // Told to one who was not waiting then; and not twice.
    store.run_changed(seen, Duration::from_secs(3600)).await;
    tokio::time::timeout(
        Duration::from_millis(10),
        store.run_changed(store.run_changes(), Duration::from_secs(3600)),
    )
    .await
    .unwrap_err();
}
