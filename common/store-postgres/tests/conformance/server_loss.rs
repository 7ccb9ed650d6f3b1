//! The server dies and comes back under one and the same store.

use crate::support;
use gristmill_store::{Backend, Reads, StoreError, Tx};
use gristmill_store_postgres::PgStore;
use gristmill_testkit::{Database, Postgres, wait};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn operations_fail_while_the_server_is_dead_and_work_when_it_is_back() {
    let server = Postgres::start().await.unwrap();
    let database = Database::create(&server.url(), None).await.unwrap();
    let store = PgStore::connect(database.url(), support::OPTIONS).unwrap();
    store.migrate().await.unwrap();
    let mut open = store.begin().await.unwrap();
    // Several connections in the pool, all of which die.
    let (a, b, c) = tokio::join!(store.pools(), store.queues(), store.components());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());

    server.kill().await.unwrap();
    let broken = open.lock_runs(&[gristmill_common::ids::RunPk(1)]).await;
    assert!(
        matches!(broken, Err(StoreError::Unavailable(_))),
        "{broken:?}"
    );
    assert!(
        open.commit().await.is_err(),
        "nothing of it can be committed any more"
    );
    let asked = Instant::now();
    let (pools, begun) = tokio::join!(store.pools(), store.begin());
    assert!(
        matches!(pools, Err(StoreError::Unavailable(_))),
        "{pools:?}"
    );
    assert!(
        matches!(begun, Err(StoreError::Unavailable(_))),
        "{begun:?}"
    );
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "every wait is bounded"
    );

    server.restart().await.unwrap();
    wait::until(
        "the store works again",
        Duration::from_secs(20),
        async || store.pools().await.ok(),
    )
    .await
    .unwrap();
    for _ in 0..20 {
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tx.ready_candidates(5).await.unwrap(), []);
        tx.commit().await.unwrap();
    }
    // The listener is back too: a change made through another store wakes this one.
    let other = PgStore::connect(database.url(), support::OPTIONS).unwrap();
    wait::until("a change is heard", Duration::from_secs(20), async || {
        let asked = Instant::now();
        let (_, told) = tokio::join!(
            store.run_changed(store.run_changes(), Duration::from_secs(2)),
            database.sql("NOTIFY gm_runs")
        );
        told.unwrap();
        (asked.elapsed() < Duration::from_secs(2)).then_some(())
    })
    .await
    .unwrap();
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_connects_to_a_server_that_is_not_there_yet() {
    let server = Postgres::start().await.unwrap();
    let database = Database::create(&server.url(), None).await.unwrap();
    server.stop().await.unwrap();
    let store = PgStore::connect(database.url(), support::OPTIONS).unwrap();
    let absent = store.migrate().await;
    assert!(
        matches!(absent, Err(StoreError::Unavailable(_))),
        "{absent:?}"
    );
    assert!(matches!(
        store.check_schema().await,
        Err(StoreError::Unavailable(_))
    ));
    server.restart().await.unwrap();
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    let not_a_url = PgStore::connect("postgres://[", support::OPTIONS);
    assert!(
        matches!(not_a_url, Err(StoreError::Refused(_))),
        "{not_a_url:?}"
    );
}
