//! The database itself.

use super::bed::Bed;
use crate::{Backend, StoreError};
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use std::sync::Arc;

pub async fn migrating_again_changes_nothing<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    bed.dag("kept").await;
    bed.migrate().await.unwrap();
    bed.check_schema().await.unwrap();
    assert!(bed.dag("kept").await.version_number == 1);
}

/// For an empty database only, hence not in the macro: ten at once, all succeed, one schema.
pub async fn ten_migrate_at_once<B: Backend>(store: B) {
    let store = Arc::new(store);
    assert!(matches!(
        store.check_schema().await,
        Err(StoreError::Schema { found: 0, .. })
    ));
    let tasks = (0..10).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.migrate().await })
    });
    for outcome in join_all(tasks).await {
        outcome.unwrap().unwrap();
    }
    store.check_schema().await.unwrap();
    let pools = store.pools().await.unwrap();
    assert_eq!(pools.len(), 1, "{pools:?}");
    assert_eq!(
        (pools[0].name.as_str(), pools[0].slots),
        ("default_pool", 128)
    );
}

pub async fn the_clock_is_the_databases<B: Backend>(store: B) {
    use crate::Tx;
    let bed = Bed::new(store).await;
    let asked = bed.ping().await.unwrap();
    let estimated = bed.now();
    let mut tx = bed.tx().await;
    let begun = tx.now();
    assert!((asked - Utc::now()).abs() < TimeDelta::seconds(5));
    assert!((estimated - asked).abs() < TimeDelta::seconds(5));
    assert!((begun - asked).abs() < TimeDelta::seconds(5));
    // It stands still inside a transaction.
    tx.lock_runs(&[]).await.unwrap();
    assert_eq!(tx.now(), begun);
}
