//! Waits that count in their pools (`include_deferred`) begin when these have room.

use super::{lock_and_load, room::count_waiting, waits::is_due, writes};
use crate::{DueWait, LimitKey, StoreError, StoreResult, Tx, store::DispatchContext};
use gristmill_common::{fault, ids::RunPk};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Begins waits that count in their pools, as far as these have room now that they are locked. From then on they are looked at
/// like all others. Answers whether any began.
pub(super) async fn admit<T: Tx>(
    mut tx: T,
    due: &[DueWait],
    context: &DispatchContext,
) -> StoreResult<bool> {
    let runs: BTreeSet<RunPk> = due.iter().map(|due| due.run).collect();
    let (runs, tis): (Vec<_>, Vec<_>) = (
        runs.into_iter().collect(),
        due.iter().map(|due| due.ti).collect(),
    );
    let mut ws = lock_and_load(&mut tx, &runs, &tis, &context.plans).await?;
    let pools: BTreeSet<LimitKey> = tis
        .iter()
        .filter_map(|ti| ws.ti(*ti))
        .map(|row| LimitKey::pool(&row.pool))
        .collect();
    let mut limits = tx
        .lock_limits(&pools.into_iter().collect::<Vec<_>>())
        .await?;
    count_waiting(&mut tx, &ws, &mut limits, &[]).await?;
    let mut admitted = false;
    for ti in tis {
        let now = ws.now;
        let Some(row) = ws.ti(ti).filter(|row| is_due(row, now)) else {
            continue;
        };
        let (pool, slots) = (LimitKey::pool(&row.pool), i64::from(row.pool_slots));
        let goes_on = ws.run(row.run).is_some_and(|run| run.stop_reason.is_none());
        let Some(limit) = limits.iter_mut().find(|limit| limit.key == pool) else {
            continue;
        };
        if goes_on && limit.free() >= slots && ws.begin_wait(ti, Uuid::now_v7()).is_some() {
            if !fault::misbehaves("forget-waits") {
                limit.used += slots;
            }
            admitted = true;
        }
    }
    let written = tx.update_tis(&writes(&ws)).await?;
    if written.len() != ws.changes().len() {
        return Err(StoreError::Conflict(
            "waits that were to begin had changed".to_owned(),
        ));
    }
    tx.commit().await?;
    Ok(admitted)
}
