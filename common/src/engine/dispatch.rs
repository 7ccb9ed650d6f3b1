//! Chooses which ready instances go out, within every limit.

use super::WorkingSet;
use crate::{
    ids::TiPk,
    limit::{LimitKey, LimitRow},
    row::TiRow,
    transition::{self, DispatchTerms},
};
use chrono::{DateTime, Utc};
use std::collections::{BTreeSet, HashMap};

/// Every limit that dispatching these instances, or what the set has already given back, touches: to be locked in order.
pub fn dispatch_limits(ws: &WorkingSet, candidates: &[TiPk]) -> Vec<LimitKey> {
    let mut keys: BTreeSet<LimitKey> = ws.spent.keys().cloned().collect();
    for row in candidates.iter().filter_map(|pk| ws.ti(*pk)) {
        keys.extend(ws.slots(row).into_iter().map(|(key, _)| key));
        keys.insert(LimitKey::queue(&row.queue));
        keys.insert(LimitKey::Parallelism);
    }
    keys.into_iter().collect()
}

/// Dispatches candidates, best first, as far as their run's limit and all locked `limits` have room; what does not fit
/// is passed over and never stands in the way of what does. `terms` names each new attempt. Answers what went out.
pub fn dispatch(
    ws: &mut WorkingSet,
    candidates: &[TiPk],
    limits: &[LimitRow],
    mut terms: impl FnMut() -> DispatchTerms,
) -> Vec<TiPk> {
    let mut free: HashMap<LimitKey, i64> = limits
        .iter()
        .map(|limit| {
            let pending = ws.spent.get(&limit.key).copied().unwrap_or(0);
            // From what is used, not from what is free: in a pool whose cap was lowered below its use, what is given back
            // makes no room until the use is below the cap.
            let after = LimitRow {
                used: limit.used + pending,
                ..limit.clone()
            };
            (limit.key.clone(), after.free())
        })
        .collect();
    // Of keys: how many hold them. What that may be, each instance says itself.
    let mut sharing: HashMap<LimitKey, i64> = limits
        .iter()
        .filter(|limit| matches!(limit.key, LimitKey::TaskKey { .. }))
        .map(|limit| {
            let pending = ws.spent.get(&limit.key).copied().unwrap_or(0);
            (limit.key.clone(), limit.used + pending)
        })
        .collect();
    // Only where it is set; what is out is in the runs' own counts.
    let mut parallel = free.remove(&LimitKey::Parallelism).unwrap_or(i64::MAX);
    let mut out = Vec::new();
    for &pk in candidates {
        if parallel <= 0 {
            break;
        }
        let Some(row) = ws.ti(pk) else { continue };
        let Some(run) = ws.run(row.run) else { continue };
        if run.active_tasks >= run.max_active_tasks
            || run.stop_reason.is_some()
            || run.state.is_finished()
        {
            continue;
        }
        let gives_up = gives_up_at(ws, row);
        let (run, queue) = (row.run, row.queue.clone());
        let mut wanted = ws.slots(row);
        wanted.push((LimitKey::queue(&queue), 1));
        // A limit that has no row (a pool that does not exist) has no room.
        let fits = |(key, n): &(LimitKey, i64)| match (key, &row.shared) {
            (LimitKey::TaskKey { .. }, Some(shared)) => sharing
                .get(key)
                .is_some_and(|used| *used < i64::from(shared.limit)),
            _ => free.get(key).is_some_and(|free| free >= n),
        };
        if !wanted.iter().all(fits) {
            continue;
        }
        if ws
            .change(pk, |row| transition::dispatch(row, terms()))
            .is_none()
        {
            continue;
        }
        if let (Some(at), Some(row)) = (gives_up, ws.ti_mut(pk)) {
            row.next_at = Some(at);
            row.claim_by = row.claim_by.map(|by| by.min(at));
        }
        for (key, n) in wanted {
            if let Some(used) = sharing.get_mut(&key) {
                *used += n;
            } else if let Some(free) = free.get_mut(&key) {
                *free -= n;
            }
            ws.spend(key, n);
        }
        if let Some(run) = ws.run_mut(run) {
            run.active_tasks += 1;
            run.ready_tasks -= 1;
        }
        parallel -= 1;
        out.push(pk);
    }
    out
}

/// Until when a worker has to have taken a dispatch of this instance (`queued_timeout`); one that is sent out again because
/// nobody did keeps the time of its first dispatch.
fn gives_up_at(ws: &WorkingSet, row: &TiRow) -> Option<DateTime<Utc>> {
    let task = ws.plan_of(row.run)?.task(row.task_idx)?;
    if task.kind.pokes() {
        // Its own timeout counts over all looks.
        return None;
    }
    let timeout = task.queued_timeout?;
    let set = row.next_at.filter(|_| row.started_at.is_none());
    Some(set.unwrap_or_else(|| ws.now + timeout.chrono()))
}
