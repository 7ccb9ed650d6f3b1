//! The transactions, written once for every backend: load, decide (in `gristmill_common::engine`), write.
//!
//! Lock order everywhere: runs by key, then limits by kind and name, then DAGs by id. A run's lock covers its task instances.

mod admit;
mod amend;
mod apply;
mod assets;
mod backfill;
mod deadlines;
mod deploy;
mod endings;
mod finish;
mod past;
mod push;
mod room;
mod schedule;
mod shared;
mod start;
mod trigger;
mod waits;
mod workers;

pub(crate) use amend::amend;
pub(crate) use apply::{apply, dispatch_ready, retry_due, stop_due_runs, stop_overlapped_runs};
pub(crate) use assets::{create_asset_event, create_asset_runs};
pub(crate) use backfill::{cancel_backfill, create_backfill, pause_backfill};
pub(crate) use deadlines::look_at_deadlines;
pub(crate) use deploy::deploy;
pub(crate) use past::wake_runs_after;
pub(crate) use push::push;
pub(crate) use schedule::create_due_runs;
pub(crate) use start::start_runs;
pub(crate) use trigger::trigger;
pub(crate) use waits::{answer, look_at_waits};
pub(crate) use workers::{delete_old, grant_lease, judge_lost, put_dead_letter};

use crate::{StoreError, StoreResult, TiWrite, Tx, plans::PlanCache};
use gristmill_common::{
    engine::{Plan, WorkingSet},
    ids::{RunPk, TiPk, VersionPk},
};
use std::sync::Arc;

/// Locks runs, loads instances of theirs, and puts both into a new working set with the runs' plans.
async fn lock_and_load<T: Tx>(
    tx: &mut T,
    runs: &[RunPk],
    tis: &[TiPk],
    plans: &PlanCache,
) -> StoreResult<WorkingSet> {
    let mut ws = WorkingSet::new(tx.now());
    let (runs, tis) = tx.lock_and_load(runs, tis).await?;
    for run in runs {
        let plan = plan(tx, run.version, plans).await?;
        ws.add_run(run, plan);
    }
    for ti in tis {
        ws.add_ti(ti);
    }
    Ok(ws)
}

async fn plan<T: Tx>(tx: &mut T, version: VersionPk, plans: &PlanCache) -> StoreResult<Arc<Plan>> {
    if let Some(plan) = plans.get(version) {
        return Ok(plan);
    }
    let row = tx
        .version(version)
        .await?
        .ok_or_else(|| StoreError::Corrupt(format!("DAG version {version} is missing")))?;
    let plan = Arc::new(Plan::new(version, row.spec, row.bundle));
    plans.put(plan.clone());
    Ok(plan)
}

/// The instances that the set has changed.
fn writes(ws: &WorkingSet) -> Vec<TiWrite> {
    ws.changes()
        .into_iter()
        .map(|change| TiWrite {
            row: change.row,
            expected_state: change.expected_state,
            expected_fence: change.expected_fence,
        })
        .collect()
}
