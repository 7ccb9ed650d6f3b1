//! Starts queued runs.

use super::{
    deadlines,
    finish::{Candidates, finish},
    lock_and_load,
    shared::{self, Held},
};
use crate::{
    Backend, LimitKey, LimitRow, StoreResult, Tx,
    records::NewTi,
    store::{Applied, DispatchContext},
};
use gristmill_common::{
    engine::{self, WorkingSet},
    ids::{RunPk, TaskIdx},
    row::TiRow,
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
    let new_keys = shared::note_keys(&mut tx, &mut ws, &runs).await?;
    let Fitting { fitting, held } = fitting(&mut tx, &ws, &runs).await?;
    shared::write_keys(&mut tx, &new_keys, &held).await?;
    let replaced = shared::make_way(&mut tx, &mut ws, &held).await?;
    let mut nodes = Vec::new();
    let anew = started_before(&ws, &fitting);
    for row in tx.load_nodes(&anew).await? {
        ws.add_ti(row);
    }
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
        if anew.iter().any(|(again, _)| again == run) {
            // Whatever was cleared or marked while it waited.
            let tally = tx.tally(*run).await?;
            ws.recount(*run, &tally);
        } else {
            ws.evaluate_roots(*run);
        }
    }
    deadlines::arm(&mut tx, &ws, &fitting).await?;
    let mut applied = finish(&mut tx, ws, Candidates::Own, &[], context).await?;
    tx.commit().await?;
    applied.touched = fitting.len();
    shared::stop(store, &replaced, &mut applied, context).await;
    Ok(applied)
}

/// The nodes of runs that were cleared, and start again.
fn started_before(ws: &WorkingSet, runs: &[RunPk]) -> Vec<(RunPk, TaskIdx)> {
    let is_anew = |run: &&RunPk| ws.run(**run).is_some_and(|row| row.started_at.is_some());
    let tasks = |run: RunPk| ws.plan_of(run).map_or(0, |plan| plan.spec.tasks.len());
    runs.iter()
        .filter(is_anew)
        .flat_map(|run| (0..tasks(*run) as TaskIdx).map(|idx| (*run, idx)))
        .collect()
}

/// What limits say of queued runs.
struct Fitting {
    fitting: Vec<RunPk>,
    /// Runs that their DAG has room for, but not the limit that they share.
    held: Vec<Held>,
}

/// The runs that the `max_active_runs` of their DAG or backfill has room for, now that its row is locked, and the limit that
/// they share; in the order given.
async fn fitting<T: Tx>(
    tx: &mut T,
    ws: &WorkingSet,
    oldest_first: &[RunPk],
) -> StoreResult<Fitting> {
    let queued = |run: &RunPk| {
        ws.run(*run)
            .filter(|row| row.state == RunState::Queued && row.stop_reason.is_none())
    };
    let mut keys: Vec<LimitKey> = oldest_first
        .iter()
        .filter_map(queued)
        .flat_map(|row| [Some(row.limit()), engine::shared_limit(row)])
        .flatten()
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let mut limits: HashMap<LimitKey, LimitRow> = tx
        .lock_limits(&keys)
        .await?
        .into_iter()
        .map(|limit| (limit.key.clone(), limit))
        .collect();
    let (mut fitting, mut held) = (Vec::new(), Vec::new());
    for run in oldest_first {
        let Some(row) = queued(run) else { continue };
        let of_dag = row.limit();
        if limits.get(&of_dag).is_none_or(|limit| limit.free() == 0) {
            continue;
        }
        let shared = engine::shared_limit(row);
        if let Some(key) = &shared {
            // Made above, and deleted since because nobody used it: the next look makes it anew.
            let Some(limit) = limits.get(key) else {
                continue;
            };
            let own = ws
                .plan_of(*run)
                .and_then(|plan| plan.spec.concurrency.as_ref());
            // Its own version's limit counts too: that of the row is the newest version's.
            if limit.free() == 0 || own.is_some_and(|own| limit.used >= i64::from(own.limit)) {
                held.extend(own.and_then(|own| Held::new(row, own)));
                continue;
            }
        }
        for key in shared.into_iter().chain([of_dag]) {
            if let Some(limit) = limits.get_mut(&key) {
                limit.used += 1;
            }
        }
        fitting.push(*run);
    }
    Ok(Fitting { fitting, held })
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
