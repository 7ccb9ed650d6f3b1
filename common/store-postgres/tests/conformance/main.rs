//! The suite that every backend runs, and what only a server with concurrent writers can show, on a real PostgreSQL.

mod concurrency;
mod counts;
mod server_loss;
mod support;

use gristmill_store_postgres::PgStore;
use gristmill_testkit::shared;

gristmill_store::conformance_tests!(crate::support::fresh);

#[tokio::test(flavor = "multi_thread")]
async fn ten_migrate_at_once() {
    let empty = shared::postgres_database().await.unwrap();
    let store = PgStore::connect(empty.url(), support::OPTIONS).unwrap();
    gristmill_store::conformance::schema::ten_migrate_at_once(store).await;
}
