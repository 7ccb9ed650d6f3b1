//! The file: its lock, its folder, its schema.

mod support;

use gristmill_store::{Reads, StoreError};
use gristmill_store_sqlite::SqliteStore;
use support::store;

#[tokio::test]
async fn a_second_owner_is_told_who_the_first_is() {
    let (store, folder) = store().await;
    let path = folder.path().join("home/gristmill.db");
    let error = SqliteStore::open(&path).await.unwrap_err();
    let StoreError::Unavailable(message) = &error else {
        panic!("{error}");
    };
    assert!(
        message.contains(&format!("process {}", std::process::id())),
        "{message}"
    );
    assert!(message.contains(&path.display().to_string()), "{message}");
    store.close().await;
    let again = SqliteStore::open(&path).await.unwrap();
    again.check_schema().await.unwrap();
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (store, _folder) = store().await;
    store.close().await;
    assert!(matches!(
        store.heartbeat("scheduler", "a", "h").await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(
        store.ping().await,
        Err(StoreError::Unavailable(_))
    ));
}

#[tokio::test]
async fn migration_is_safe_to_repeat_and_needed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("db")).await.unwrap();
    assert!(matches!(
        store.check_schema().await,
        Err(StoreError::Schema { found: 0, .. })
    ));
    let (one, two, three) = tokio::join!(store.migrate(), store.migrate(), store.migrate());
    one.unwrap();
    two.unwrap();
    three.unwrap();
    store.check_schema().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    std::fs::write(
        &path,
        "not a database, but long enough to be looked at".repeat(50),
    )
    .unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
}
