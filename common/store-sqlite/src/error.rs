//! SQLite's errors as the store's.

use gristmill_store::StoreError;
use sqlx::error::DatabaseError;

/// Primary result codes (the low byte of an extended code), from SQLite's `sqlite3.h`.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NOMEM: i32 = 7;
    pub(super) const READONLY: i32 = 8;
    pub(super) const INTERRUPT: i32 = 9;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const NOTADB: i32 = 26;
}

pub(crate) fn store_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) => database_error(database.as_ref()),
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_) => StoreError::Unavailable(error.to_string()),
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_) => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Other(error.to_string()),
    }
}

fn database_error(error: &dyn DatabaseError) -> StoreError {
    let message = error.message().to_owned();
    match primary_code(error) {
        Some(code::BUSY | code::LOCKED) => StoreError::Conflict(message),
        Some(
            code::NOMEM
            | code::READONLY
            | code::INTERRUPT
            | code::IOERR
            | code::FULL
            | code::CANTOPEN,
        ) => StoreError::Unavailable(message),
        // Unique keys that a caller may meet are asked for by name ([`is_unique_violation`]); any other is an invariant.
        Some(code::CORRUPT | code::NOTADB | code::CONSTRAINT) => StoreError::Corrupt(message),
        _ => StoreError::Other(message),
    }
}

fn primary_code(error: &dyn DatabaseError) -> Option<i32> {
    let extended: i32 = error.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Whether a unique index refused the statement. The statement alone was undone; its transaction goes on.
pub(crate) fn is_unique_violation(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(DatabaseError::is_unique_violation)
}

/// Whether SQLite may have rolled back the whole transaction, and not the statement alone.
/// <https://www.sqlite.org/lang_transaction.html>, section 3.
pub(crate) fn ends_transaction(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(database) => matches!(
            primary_code(database),
            Some(
                code::BUSY
                    | code::NOMEM
                    | code::INTERRUPT
                    | code::IOERR
                    | code::CORRUPT
                    | code::FULL
            )
        ),
        None => true,
    }
}
