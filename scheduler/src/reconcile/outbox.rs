//! Publishes messages that the scheduler which wrote them did not.

use crate::{SchedulerHandle, relay, repeat};
use std::sync::Arc;
use tokio::sync::Notify;

const PASS: i64 = 500;

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    let age = handle.config.outbox_age;
    let never = Notify::new();
    loop {
        handle.wait_for(&never, |to_do| to_do.unpublished).await;
        let rows = match repeat::until_answered("reading the outbox", || {
            handle.store.unpublished(age, PASS)
        })
        .await
        {
            Ok(rows) if rows.is_empty() => continue,
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "cannot read the outbox");
                continue;
            }
        };
        tracing::info!(
            messages = rows.len(),
            "publishing messages left in the outbox"
        );
        let confirmed = relay::publish(&handle, rows).await;
        if confirmed.is_empty() {
            continue;
        }
        if let Err(error) = handle.store.confirm_published(&confirmed).await {
            tracing::warn!(%error, "cannot delete published messages yet");
        }
    }
}
