//! Limits that task instances share whose key is the same (`concurrency` of a task): what becomes of one that is ready, finds its
//! limit full, and does not just wait.

use super::{
    finish::{Candidates, finish},
    lock_and_load,
};
use crate::{
    Backend, KeyHolder, Pushing, SharedLimitTx, StoreResult, Tx,
    store::{Applied, DispatchContext},
};
use gristmill_common::{
    engine::WorkingSet,
    ids::{RunPk, TiPk},
    row::TiRow,
    spec::Strategy,
    state::TaskState,
};
use std::collections::{BTreeMap, BTreeSet};

/// Instances that one pass looks at.
const PASS: i64 = 500;

/// Skips the new ones, or stops who holds the key, as their strategy says. An instance of another DAG is never stopped: its
/// owner may be somebody else. The limit is read without its lock: who pushed while it was full may be answered a moment after.
pub(crate) async fn push<B: Backend>(store: &B, context: &DispatchContext) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let pushing = tx.pushing(PASS).await?;
    if pushing.is_empty() {
        return Ok(Applied::default());
    }
    let keys: BTreeSet<String> = pushing
        .iter()
        .filter(|one| one.shared.strategy == Strategy::CancelRunning)
        .map(|one| one.shared.key.clone())
        .collect();
    let keys: Vec<String> = keys.into_iter().collect();
    let holders = tx.key_holders(&keys).await?;
    let stops = stops(&pushing, &holders);
    let skips = pushing
        .iter()
        .filter(|one| one.shared.strategy == Strategy::CancelNew);
    let (mut runs, mut tis) = (BTreeSet::<RunPk>::new(), BTreeSet::<TiPk>::new());
    let named = skips.clone().map(|one| (one.ti, one.run)).chain(
        stops
            .iter()
            .flat_map(|(holder, by)| [(holder.ti, holder.run), (by.ti, by.run)]),
    );
    for (ti, run) in named {
        tis.insert(ti);
        runs.insert(run);
    }
    if runs.is_empty() {
        return Ok(Applied::default());
    }
    let (runs, tis): (Vec<_>, Vec<_>) = (runs.into_iter().collect(), tis.into_iter().collect());
    let mut ws = lock_and_load(&mut tx, &runs, &tis, &context.plans).await?;
    for one in skips {
        ws.skip_for_key(
            one.ti,
            format!(
                "{} of at most {} task instances with the key {:?} were active (concurrency: cancel_new)",
                one.shared.limit, one.shared.limit, one.shared.key
            ),
        );
    }
    for (holder, by) in &stops {
        if still_pushes(&ws, by.ti) {
            let reason = format!(
                "{} took its place: its key is {:?} too (concurrency: cancel_running)",
                name(&ws, by.ti),
                holder.key
            );
            ws.stop_for_key(holder.ti, reason);
        }
    }
    let mut applied = finish(&mut tx, ws, Candidates::Own, &[], context).await?;
    tx.commit().await?;
    applied.touched = pushing.len();
    Ok(applied)
}

/// Which holders have to go, and for whom: of each key and DAG the oldest for the oldest that pushes, unless one is going already.
fn stops<'a>(
    pushing: &'a [Pushing],
    holders: &'a [KeyHolder],
) -> Vec<(&'a KeyHolder, &'a Pushing)> {
    let mut waiting: BTreeMap<(&str, &str), Vec<&Pushing>> = BTreeMap::new();
    for one in pushing {
        if one.shared.strategy == Strategy::CancelRunning {
            waiting
                .entry((&one.dag_id, &one.shared.key))
                .or_default()
                .push(one);
        }
    }
    let mut stops = Vec::new();
    for ((dag_id, key), newer) in waiting {
        let going = holders
            .iter()
            .filter(|holder| holder.key == key && holder.stopping)
            .count();
        let oldest = holders
            .iter()
            .filter(|holder| holder.key == key && holder.dag_id == dag_id && !holder.stopping);
        stops.extend(oldest.zip(newer.into_iter().skip(going)));
    }
    stops
}

fn still_pushes(ws: &WorkingSet, ti: TiPk) -> bool {
    ws.ti(ti)
        .is_some_and(|row| row.state == TaskState::Scheduled)
}

fn name(ws: &WorkingSet, ti: TiPk) -> String {
    let of = |row: &TiRow| {
        let run = ws.run(row.run).map_or("", |run| run.run_id.as_str());
        match row.map_index {
            index if index < 0 => format!("{} of the run {run}", row.task_id),
            index => format!("{}[{index}] of the run {run}", row.task_id),
        }
    };
    ws.ti(ti).map_or_else(String::new, of)
}
