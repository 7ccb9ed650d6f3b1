//! How connections are opened.

use crate::error::store_error;
use gristmill_store::StoreResult;
use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};

/// Longest wait for the writer or for a reader.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections for queries; each is a thread with a small cache, opened when first needed.
const READERS: u32 = 4;
/// Statements kept prepared per connection: more than there are in this crate.
const STATEMENTS: usize = 256;

/// Opens the connection that writes, and creates the file if there is none.
pub(crate) async fn writer(path: &Path) -> StoreResult<SqliteConnection> {
    base(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Every commit is on disk when it is acknowledged.
        .synchronous(SqliteSynchronous::Full)
        // 2000 pages of 4 KiB: checkpoints are rare, the log stays small.
        .pragma("wal_autocheckpoint", "2000")
        .pragma("journal_size_limit", "16777216")
        .pragma("cache_size", "-4096")
        .connect()
        .await
        .map_err(store_error)
}

/// Prepares connections that only read; none is opened yet.
pub(crate) fn readers(path: &Path) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Without these there is nothing to maintain, and the pool has no timer.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(base(path).read_only(true).pragma("cache_size", "-1024"))
}

fn base(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(ACQUIRE_TIMEOUT)
        .statement_cache_capacity(STATEMENTS)
        .pragma("mmap_size", "67108864")
        // Savepoints and sorts spill to memory, not to files: they are small.
        .pragma("temp_store", "memory")
        .disable_statement_logging()
}
