//! What limits have room for beyond their rows: what is counted when it is asked for, and what is made when it is first needed.

use crate::{LimitKey, LimitRow, StoreResult, Tx};
use gristmill_common::{engine::WorkingSet, fault, ids::TiPk};
use std::collections::BTreeMap;

/// Publish cap of a queue that no worker has announced yet.
const QUEUE_CAP: i64 = 1000;

/// The cap of limits whose rows are made when they are first needed.
pub(super) fn first_cap(key: &LimitKey) -> Option<i64> {
    match key {
        LimitKey::Queue { .. } => Some(QUEUE_CAP),
        LimitKey::TaskKey { .. } => Some(-1),
        _ => None,
    }
}

/// Where the deployment's parallelism is limited: what is used of it. Its row is locked, so nobody dispatches meanwhile.
pub(super) async fn count_active<T: Tx>(
    tx: &mut T,
    ws: &WorkingSet,
    limits: &mut [LimitRow],
) -> StoreResult<()> {
    let is_it = |limit: &&mut LimitRow| limit.key == LimitKey::Parallelism;
    let Some(limit) = limits.iter_mut().find(is_it) else {
        return Ok(());
    };
    let runs = ws.run_keys();
    let elsewhere = tx.active_tasks(&runs).await?;
    let here: i64 = runs
        .iter()
        .filter_map(|run| ws.run(*run))
        .map(|run| i64::from(run.active_tasks))
        .sum();
    limit.used = elsewhere + here;
    Ok(())
}

/// Of pools in which also counts what waits without a worker: adds that to what is used of them. Of the set's own instances only
/// `waiting` count, as they are in it. The pools' rows are locked, so nobody begins to wait in them meanwhile.
pub(super) async fn count_waiting<T: Tx>(
    tx: &mut T,
    ws: &WorkingSet,
    limits: &mut [LimitRow],
    waiting: &[(String, i64)],
) -> StoreResult<()> {
    let pools: Vec<String> = limits
        .iter()
        .filter(|limit| limit.include_deferred)
        .filter_map(|limit| match &limit.key {
            LimitKey::Pool { name } => Some(name.clone()),
            _ => None,
        })
        .collect();
    if pools.is_empty() || fault::misbehaves("forget-waits") {
        return Ok(());
    }
    let elsewhere = tx.waiting_slots(&pools, &ws.ti_keys()).await?;
    for (pool, slots) in elsewhere.iter().chain(waiting) {
        let key = LimitKey::pool(pool);
        if let Some(limit) = limits
            .iter_mut()
            .find(|limit| limit.key == key && limit.include_deferred)
        {
            limit.used += slots;
        }
    }
    Ok(())
}

/// Each dispatch takes a token of its queue, where that has a rate.
pub(super) async fn take_tokens<T: Tx>(
    tx: &mut T,
    ws: &WorkingSet,
    out: &[TiPk],
    limits: &[LimitRow],
) -> StoreResult<()> {
    let mut taken: BTreeMap<&str, i64> = limits
        .iter()
        .filter(|limit| limit.rate.is_some())
        .filter_map(|limit| match &limit.key {
            LimitKey::Queue { name } => Some((name.as_str(), 0)),
            _ => None,
        })
        .collect();
    if taken.is_empty() || fault::misbehaves("ignore-rate") {
        return Ok(());
    }
    for row in out.iter().filter_map(|ti| ws.ti(*ti)) {
        if let Some(taken) = taken.get_mut(row.queue.as_str()) {
            *taken += 1;
        }
    }
    let taken: Vec<(String, i64)> = taken
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(queue, n)| (queue.to_owned(), n))
        .collect();
    match taken.is_empty() {
        true => Ok(()),
        false => tx.take_tokens(&taken).await,
    }
}
