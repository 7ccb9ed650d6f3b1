//! Patience with servers that are away.

use gristmill_store::{StoreError, StoreResult};
use std::{future::Future, time::Duration};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(3);

/// Waits between tries: doubling, with jitter, for ever.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0.mul_f64(rand::random_range(0.5..1.0))).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}

/// Repeats a transaction until the database has answered it: an error that is returned is no matter of patience.
pub(crate) async fn until_answered<T, F>(
    what: &str,
    mut transaction: impl FnMut() -> F,
) -> StoreResult<T>
where
    F: Future<Output = StoreResult<T>>,
{
    let mut backoff = Backoff::new();
    let mut waiting = false;
    loop {
        match transaction().await {
            Err(error) if error.is_transient() => {
                if !waiting {
                    tracing::warn!(%error, what, "waiting for the database");
                    waiting = true;
                }
                backoff.wait().await;
            }
            Err(StoreError::Schema { found, needed }) => {
                if !waiting {
                    tracing::warn!(
                        found,
                        needed,
                        "the database schema is not this build's: waiting for `gristmill migrate`"
                    );
                    waiting = true;
                }
                backoff.wait().await;
            }
            other => {
                if waiting {
                    tracing::info!(what, "the database is back");
                }
                return other;
            }
        }
    }
}
