//! The suite that every backend runs, on a file of its own per test.

use gristmill_store_sqlite::SqliteStore;
use tempfile::TempDir;

async fn fresh() -> (SqliteStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("gristmill.db"))
        .await
        .unwrap();
    (store, folder)
}

gristmill_store::conformance_tests!(crate::fresh);

#[tokio::test(flavor = "multi_thread")]
async fn ten_migrate_at_once() {
    let (store, _folder) = fresh().await;
    gristmill_store::conformance::schema::ten_migrate_at_once(store).await;
}
