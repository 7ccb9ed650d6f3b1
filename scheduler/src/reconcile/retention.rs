//! Deletes runs and records whose time is over.

use crate::SchedulerHandle;
use gristmill_common::message::data_prefix;
use gristmill_objects::{ObjectStore, artifacts, logs, xcom};
use gristmill_store::DeletedRun;
use std::{sync::Arc, time::Duration};

const EVERY: Duration = Duration::from_secs(600);
const PASS: i64 = 100;
/// Entries of the audit log that one statement deletes.
const AUDITS: i64 = 5_000;

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
                Ok(runs) if runs.is_empty() => break,
                Ok(runs) => {
                    tracing::info!(runs = runs.len(), "deleted old runs");
                    for run in &runs {
                        delete_objects(&handle.objects, run).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot delete old runs now");
                    break;
                }
            }
        }
    }
}

/// Deletes what is too old in the audit log, a part at a time.
pub(super) async fn audits(handle: Arc<SchedulerHandle>) {
    let Some(retention) = handle
        .config
        .audit_retention
        .and_then(|age| chrono::Duration::from_std(age).ok())
    else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(EVERY).await;
        loop {
            let before = handle.store.now() - retention;
            match handle.store.delete_audits(before, AUDITS).await {
                Ok(0) => break,
                Ok(entries) => tracing::info!(entries, "deleted old entries of the audit log"),
                Err(error) => {
                    tracing::warn!(%error, "cannot delete old entries of the audit log now");
                    break;
                }
            }
        }
    }
}

/// Deletes a run's logs, artifacts, large XComs and data folders. A crash in the middle leaves some of them behind.
async fn delete_objects(objects: &ObjectStore, run: &DeletedRun) {
    let prefixes = [
        logs::run_prefix(&run.dag_id, &run.run_id),
        artifacts::run_prefix(run.run.0),
        xcom::run_prefix(run.run.0),
        data_prefix(run.run),
    ];
    for prefix in prefixes {
        if let Err(error) = objects.delete_prefix(&prefix).await {
            tracing::warn!(prefix, %error, "cannot delete the objects of an old run");
        }
    }
}
