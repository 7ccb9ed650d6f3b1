//! Migrations, embedded from `migrations/postgres`.

use crate::{
    PgStore,
    error::{bounded, db},
    rows::get,
};
use gristmill_store::{StoreError, StoreResult};
use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/postgres");

/// The newest version that this build knows.
fn needed() -> i64 {
    MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0)
}

/// Applies what is pending. The migrator holds an advisory lock of the database, so that of many processes one works and
/// the others find nothing left to do; each migration commits together with its record.
pub(crate) async fn migrate(store: &PgStore) -> StoreResult<()> {
    // Waiting for another process's migration, or building an index, takes longer than a statement may otherwise.
    let patient = store.inner.options.clone().options([
        ("statement_timeout", "30min"),
        ("lock_timeout", "30min"),
        ("idle_in_transaction_session_timeout", "30min"),
    ]);
    let mut connection = bounded(PgConnection::connect_with(&patient)).await?;
    store.inner.meter.transaction();
    // `run` does the same, but its future is not Send behind a trait object (sqlx says so itself).
    let outcome = MIGRATIONS.run_direct(None, &mut connection, false).await;
    // Also gives the advisory lock back after a failure. That it could not say goodbye is no error of the migration.
    let _ = connection.close().await;
    outcome.map_err(|error| match error {
        MigrateError::Execute(error) => db(error),
        MigrateError::ExecuteMigration(error, version) => {
            StoreError::Other(format!("migration {version} failed: {}", db(error)))
        }
        MigrateError::VersionMissing(found) => StoreError::Schema {
            found,
            needed: needed(),
        },
        MigrateError::VersionMismatch(version) => StoreError::Corrupt(format!(
            "migration {version} was applied with a text that is not this build's: was the database made by a development build?"
        )),
        other => StoreError::Other(other.to_string()),
    })
}

pub(crate) async fn check(store: &PgStore) -> StoreResult<()> {
    const SQL: &str =
        "SELECT COALESCE(max(version), 0) AS version FROM _sqlx_migrations WHERE success";
    let found = match store.optional(sqlx::query(SQL)).await {
        Ok(Some(row)) => get(&row, "version")?,
        Ok(None) => 0,
        // Never migrated: there is no such table.
        Err(StoreError::Other(error)) if error.contains("42P01") => 0,
        Err(error) => return Err(error),
    };
    if found == needed() {
        Ok(())
    } else {
        Err(StoreError::Schema {
            found,
            needed: needed(),
        })
    }
}
