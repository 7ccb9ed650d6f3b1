//! Publishes the outbox: messages go out as they are committed, many at a time; what the broker
//! confirmed is deleted with a later transaction.

use crate::SchedulerHandle;
use gristmill_broker::{Publication, PublishOutcome, Target};
use gristmill_common::{
    fault,
    ids::Dispatch,
    message::{self, header},
    row::OutboxRow,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Messages published at once at most.
const BATCH: usize = 1_000;
/// Published messages that wait for a transaction to take them out of the outbox, at most.
const MAX_PUBLISHED: usize = 2_000;

pub(crate) async fn run(handle: Arc<SchedulerHandle>) {
    let queue = handle
        .publish_queue
        .lock()
        .ok()
        .and_then(|mut queue| queue.take());
    let Some(mut queue) = queue else { return };
    while let Some(mut rows) = queue.recv().await {
        while rows.len() < BATCH {
            let Ok(more) = queue.try_recv() else { break };
            rows.extend(more);
        }
        let confirmed = publish(&handle, rows).await;
        // The next transaction that applies or dispatches takes them along, or the next look deletes them.
        if handle.published.add(confirmed) >= MAX_PUBLISHED {
            delete_published(&handle).await;
        }
    }
}

/// Deletes what is published from the outbox by itself. A failure costs nothing: it is tried again, and what is published
/// once more meanwhile is refused by its fence.
pub(crate) async fn delete_published(handle: &SchedulerHandle) {
    let published = handle.published.take();
    if published.is_empty() {
        return;
    }
    if let Err(error) = handle.store.confirm_published(&published).await {
        tracing::debug!(%error, "cannot delete published messages now");
        handle.published.add(published);
    }
}

/// Publishes rows and answers which the broker has confirmed. The others stay in the outbox for the reconciler.
pub(crate) async fn publish(handle: &SchedulerHandle, rows: Vec<OutboxRow>) -> Vec<Dispatch> {
    gristmill_common::fault_point!("after-commit-before-publish");
    let now = handle.store.now();
    let batch = rows.iter().map(|row| publication(row, now)).collect();
    let started = std::time::Instant::now();
    let outcomes = handle.broker.publish(batch).await;
    metrics::histogram!("gristmill_publish_confirm_seconds").record(started.elapsed());
    gristmill_common::fault_point!("after-publish-before-confirm");
    let mut confirmed = Vec::with_capacity(rows.len());
    let mut missing_queues = BTreeSet::new();
    for (row, outcome) in rows.iter().zip(outcomes) {
        match outcome {
            PublishOutcome::Confirmed => confirmed.push(row.dispatch),
            PublishOutcome::Returned { .. } => {
                missing_queues.insert(row.queue.clone());
            }
            PublishOutcome::Failed { reason, .. } => {
                tracing::warn!(dispatch = %row.dispatch, queue = row.queue, %reason, "not published; will be tried again");
            }
        }
    }
    for queue in missing_queues {
        if let Err(error) = handle.broker.declare_work_queue(&queue).await {
            tracing::warn!(queue, %error, "cannot declare the queue");
            continue;
        }
        let returned: Vec<OutboxRow> = rows
            .iter()
            .filter(|row| row.queue == queue && !confirmed.contains(&row.dispatch))
            .cloned()
            .collect();
        let again = returned.iter().map(|row| publication(row, now)).collect();
        let outcomes = handle.broker.publish(again).await;
        confirmed.extend(
            returned
                .iter()
                .zip(outcomes)
                .filter(|(_, outcome)| outcome.is_confirmed())
                .map(|(row, _)| row.dispatch),
        );
    }
    if fault::misbehaves("keep-published") {
        confirmed.clear();
    }
    confirmed
}

fn publication(row: &OutboxRow, now: chrono::DateTime<chrono::Utc>) -> Publication {
    // Beyond its claim_by the message is of no use to anybody.
    let expires = (row.claim_by - now)
        .to_std()
        .unwrap_or_default()
        .max(Duration::from_secs(1));
    Publication::new(Target::Work(row.queue.clone()), row.body.clone())
        .with_header(header::VERSION, i64::from(message::VERSION))
        .with_header(header::TI, row.dispatch.ti.0)
        .with_header(header::FENCE, row.dispatch.fence.0)
        .with_header(header::RUN, row.run.0)
        .with_header(header::EPOCH, row.epoch)
        .with_header(header::CLAIM_BY, row.claim_by.timestamp_millis())
        .with_expiration(expires)
}
