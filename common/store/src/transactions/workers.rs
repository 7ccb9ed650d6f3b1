//! Leases granted over the broker, the judgement of lost workers, and what is deleted in time.

use crate::{
    Backend, StoreResult, Tx,
    records::{DeletedRun, Judgement, WorkerState},
};
use chrono::{DateTime, Duration, Utc};
use gristmill_common::message::RenewRequest;

/// By how much schedulers' estimates of the database's clock may differ: added to every lease granted over the broker.
const CLOCK_MARGIN_MS: i64 = 1_000;

pub(crate) async fn grant_lease<B: Backend>(
    store: &B,
    request: &RenewRequest,
) -> StoreResult<bool> {
    let mut tx = store.begin().await?;
    let mut worker = tx.lock_worker(&request.incarnation).await?;
    if worker.state == WorkerState::Lost {
        return Ok(false);
    }
    let until = tx.now() + Duration::milliseconds(request.lease_ms.saturating_add(CLOCK_MARGIN_MS));
    worker.held_until = worker.held_until.max(Some(until));
    tx.update_worker(&worker).await?;
    tx.commit().await?;
    Ok(true)
}

pub(crate) async fn judge_lost<B: Backend>(store: &B, incarnation: &str) -> StoreResult<Judgement> {
    let mut tx = store.begin().await?;
    let mut worker = tx.lock_worker(incarnation).await?;
    let lost = match worker.held_until {
        Some(_) => Judgement::LostAfterGrants,
        None => Judgement::Lost,
    };
    if worker.state == WorkerState::Lost {
        return Ok(lost);
    }
    if worker.held_until.is_some_and(|until| until >= tx.now()) {
        return Ok(Judgement::Holds);
    }
    worker.state = WorkerState::Lost;
    tx.update_worker(&worker).await?;
    tx.commit().await?;
    Ok(lost)
}

pub(crate) async fn delete_old<B: Backend>(
    store: &B,
    ended_before: DateTime<Utc>,
    max: i64,
) -> StoreResult<Vec<DeletedRun>> {
    let mut tx = store.begin().await?;
    let deleted = tx.delete_old(ended_before, max).await?;
    tx.commit().await?;
    Ok(deleted)
}

pub(crate) async fn put_dead_letter<B: Backend>(
    store: &B,
    source: &str,
    reason: &str,
    body: &[u8],
) -> StoreResult<()> {
    let mut tx = store.begin().await?;
    tx.put_dead_letter(source, reason, body).await?;
    tx.commit().await
}
