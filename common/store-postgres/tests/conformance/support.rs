//! Databases for tests: each test has its own, a copy of one that was migrated once per process.

use gristmill_store::Reads;
use gristmill_store_postgres::{PgOptions, PgStore};
use gristmill_testkit::{Database, shared};
use tokio::sync::OnceCell;

pub(crate) const OPTIONS: PgOptions = PgOptions {
    max_connections: 12,
};

/// A store on a migrated database of its own.
pub(crate) async fn fresh() -> (PgStore, Database) {
    static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
    let template = TEMPLATE
        .get_or_init(|| async {
            let template = shared::postgres_database().await.unwrap();
            let store = PgStore::connect(template.url(), OPTIONS).unwrap();
            store.migrate().await.unwrap();
            // A template may have no sessions: also not those of the background tasks.
            store.close().await;
            drop(store);
            wait_for_no_sessions(&template).await;
            template
        })
        .await;
    let database = shared::postgres_database_like(template).await.unwrap();
    (PgStore::connect(database.url(), OPTIONS).unwrap(), database)
}

async fn wait_for_no_sessions(database: &Database) {
    const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    gristmill_testkit::wait::until(
        "sessions end",
        std::time::Duration::from_secs(10),
        async || (database.sql(OTHERS).await.ok()?.trim() == "0").then_some(()),
    )
    .await
    .unwrap();
}
