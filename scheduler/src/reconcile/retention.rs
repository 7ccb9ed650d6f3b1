//! Deletes runs and records whose time is over.

use crate::SchedulerHandle;
use std::{sync::Arc, time::Duration};

const EVERY: Duration = Duration::from_secs(600);
const PASS: i64 = 100;

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    let Some(retention) = handle
        .config
        .retention
        .and_then(|age| chrono::Duration::from_std(age).ok())
    else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(EVERY).await;
        loop {
            match handle
                .store
                .delete_old(handle.store.now() - retention, PASS)
                .await
            {
                Ok(0) => break,
                Ok(runs) => tracing::info!(runs, "deleted old runs"),
                Err(error) => {
                    tracing::warn!(%error, "cannot delete old runs now");
                    break;
                }
            }
        }
    }
}
