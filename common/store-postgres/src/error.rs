//! The only place where errors of the driver become the store's.

use gristmill_store::{StoreError, StoreResult};
use std::time::Duration;

/// Bounds a wait on the network, where the server's own timeouts (15 s) do not reach: a frozen server or a lost route.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(20);

/// Awaits a statement for a bounded time and translates its error.
pub(crate) async fn bounded<T>(
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> StoreResult<T> {
    match tokio::time::timeout(STATEMENT_DEADLINE, statement).await {
        Ok(result) => result.map_err(db),
        Err(_) => Err(StoreError::Unavailable(format!(
            "no answer within {} s",
            STATEMENT_DEADLINE.as_secs()
        ))),
    }
}

/// Translates an error of the driver.
pub(crate) fn db(error: sqlx::Error) -> StoreError {
    use sqlx::Error as E;
    match &error {
        E::Database(refusal) => {
            let code = refusal.code().unwrap_or_default();
            let text = format!("{refusal} (SQLSTATE {code})");
            match &*code {
                // Serialisation failure, deadlock, lock timeout.
                "40001" | "40P01" | "55P03" => StoreError::Conflict(text),
                // Statement timeout or cancel, shutdown, starting up, read-only standby, too many connections.
                "57014" | "25006" | "53300" => StoreError::Unavailable(text),
                _ if code.starts_with("57P") || code.starts_with("08") => {
                    StoreError::Unavailable(text)
                }
                // The server ended the session (idle in transaction too long).
                "25P03" => StoreError::Unavailable(text),
                // Out of disk or memory: an operator mends it, and then the same statement succeeds.
                _ if code.starts_with("53") => StoreError::Unavailable(text),
                // Undefined table or column: not migrated.
                "42P01" | "42703" => StoreError::Other(format!("{text}: run `gristmill migrate`")),
                // A CHECK, NOT NULL or key says that what was to be written breaks an invariant.
                _ if code.starts_with("23") => StoreError::Corrupt(text),
                _ => StoreError::Other(text),
            }
        }
        E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
            StoreError::Unavailable(error.to_string())
        }
        // What a connection says whose server went away in the middle of a message.
        E::Protocol(_) | E::BeginFailed => StoreError::Unavailable(error.to_string()),
        E::ColumnDecode { .. } | E::Decode(_) => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Other(error.to_string()),
    }
}
