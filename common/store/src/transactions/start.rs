//! Starts queued runs.

use super::{
    finish::{Candidates, finish},
    lock_and_load,
};
use crate::{
    Backend, LimitKey, StoreResult, Tx,
    records::NewTi,
    store::{Applied, DispatchContext},
};
use gristmill_common::{
    engine::{self, WorkingSet},
    ids::RunPk,
    row::{RunRow, TiRow},
    state::RunState,
};
use std::collections::HashMap;

/// Runs started by one transaction at most.
const PASS: i64 = 100;

pub(crate) async fn start_runs<B: Backend>(
    store: &B,
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let runs = tx.startable_runs(PASS).await?;
    if runs.is_empty() {
        return Ok(Applied::default());
    }
    let mut ws = lock_and_load(&mut tx, &runs, &[], &context.plans).await?;
    let fitting = fitting(&mut tx, &ws, &runs).await?;
    let mut nodes = Vec::new();
    for run in &fitting {
        nodes.extend(engine::start_run(&mut ws, *run).unwrap_or_default());
    }
    tx.ensure_limits(&task_limits(&ws, &fitting), false).await?;
    let keys = tx
        .insert_tis(&nodes.iter().cloned().map(NewTi).collect::<Vec<_>>())
        .await?;
    for (row, pk) in nodes.into_iter().zip(keys) {
        ws.add_ti(TiRow { pk, ..row });
    }
    for run in &fitting {
        ws.evaluate_roots(*run);
    }
    let mut applied = finish(&mut tx, ws, Candidates::Own, &[], context).await?;
    tx.commit().await?;
    applied.touched = fitting.len();
    Ok(applied)
}

/// The runs that the `max_active_runs` of their DAG or backfill has room for, now that its row is locked; in the order given.
async fn fitting<T: Tx>(
    tx: &mut T,
    ws: &WorkingSet,
    oldest_first: &[RunPk],
) -> StoreResult<Vec<RunPk>> {
    let queued = |run: &RunPk| {
        ws.run(*run)
            .filter(|row| row.state == RunState::Queued && row.stop_reason.is_none())
    };
    let mut keys: Vec<LimitKey> = oldest_first
        .iter()
        .filter_map(queued)
        .map(RunRow::limit)
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let mut free: HashMap<LimitKey, i64> = tx
        .lock_limits(&keys)
        .await?
        .into_iter()
        .map(|limit| (limit.key.clone(), limit.free()))
        .collect();
    let mut fitting = Vec::new();
    for run in oldest_first {
        let Some(row) = queued(run) else { continue };
        if let Some(free) = free.get_mut(&row.limit()).filter(|free| **free > 0) {
            *free -= 1;
            fitting.push(*run);
        }
    }
    Ok(fitting)
}

/// The limits of their own that tasks of these runs have, with their caps.
fn task_limits(ws: &WorkingSet, runs: &[RunPk]) -> Vec<(LimitKey, i64)> {
    let mut limits = Vec::new();
    for run in runs {
        let Some(plan) = ws.plan_of(*run) else {
            continue;
        };
        for task in &plan.spec.tasks {
            if let Some(cap) = task.max_active_tis_per_dag {
                let key = LimitKey::Task {
                    dag_id: plan.spec.dag_id.clone(),
                    task_id: task.task_id.clone(),
                };
                limits.push((key, i64::from(cap)));
            }
            if let Some(cap) = task.max_active_tis_per_dagrun {
                let key = LimitKey::TaskInRun {
                    run: *run,
                    task_id: task.task_id.clone(),
                };
                limits.push((key, i64::from(cap)));
            }
        }
    }
    limits.sort_unstable();
    limits.dedup_by(|a, b| a.0 == b.0);
    limits
}
