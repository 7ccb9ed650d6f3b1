//! Tasks that wait for the run before (`depends_on_past`): what is there, and who has to look again.

use super::{
    finish::{Candidates, finish},
    lock_and_load, plan,
};
use crate::{
    Backend, EarlierRun, StoreError, StoreResult, Tx, WaitTx,
    plans::PlanCache,
    store::{Applied, DispatchContext},
};
use gristmill_common::{
    engine::{Past, RunBefore, WorkingSet},
    ids::{RunPk, TaskIdx, TiPk},
    row::TiRow,
    state::RunState,
};
use std::collections::BTreeMap;

/// Tells the nodes of a set that look back what is there.
pub(super) async fn look_back<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    plans: &PlanCache,
) -> StoreResult<()> {
    let nodes: Vec<(TiPk, RunPk, TaskIdx)> = ws
        .take_to_look_back()
        .into_iter()
        .filter_map(|node| ws.ti(node).map(|row| (node, row.run, row.task_idx)))
        .collect();
    let mut runs: Vec<RunPk> = nodes.iter().map(|(_, run, _)| *run).collect();
    runs.sort_unstable();
    runs.dedup();
    if runs.is_empty() {
        return Ok(());
    }
    let wanted: Vec<(RunPk, bool)> = runs
        .iter()
        .map(|run| (*run, catches_up(ws, *run)))
        .collect();
    let found = tx.runs_before(&wanted).await?;
    let before: BTreeMap<RunPk, EarlierRun> = runs
        .into_iter()
        .zip(found)
        .filter_map(|(run, before)| Some((run, before?)))
        .collect();
    for (node, run, task_idx) in nodes {
        let past = match before.get(&run).filter(|before| counts(ws, run, before)) {
            Some(before) => past_of(tx, ws, run, task_idx, before, plans).await?,
            None => Past::Good,
        };
        ws.looked_back(node, past);
    }
    Ok(())
}

/// As in Airflow, a DAG that catches up does not look at manual runs.
pub(super) fn catches_up(ws: &WorkingSet, run: RunPk) -> bool {
    ws.plan_of(run).is_some_and(|plan| plan.spec.catchup)
}

/// A DAG that catches up asks nothing of runs before its `start_date`.
fn counts(ws: &WorkingSet, run: RunPk, before: &EarlierRun) -> bool {
    let start = ws
        .plan_of(run)
        .filter(|plan| plan.spec.catchup)
        .and_then(|plan| plan.spec.start_date);
    start.is_none_or(|start| before.logical_date >= start)
}

async fn past_of<T: Tx>(
    tx: &mut T,
    ws: &WorkingSet,
    run: RunPk,
    task_idx: TaskIdx,
    before: &EarlierRun,
    plans: &PlanCache,
) -> StoreResult<Past> {
    let own = ws
        .plan_of(run)
        .ok_or_else(|| StoreError::Corrupt(format!("run {run} is not loaded")))?;
    let there = plan(tx, before.version, plans).await?;
    let tasks: Vec<(&str, TaskIdx)> = own
        .past_of(task_idx)
        .iter()
        .filter_map(|idx| own.task(*idx))
        .filter_map(|task| Some((task.task_id.as_str(), there.spec.idx(&task.task_id)?)))
        .collect();
    let wanted: Vec<(RunPk, TaskIdx)> = tasks.iter().map(|(_, idx)| (before.run, *idx)).collect();
    let states = tx.task_states(&wanted).await?;
    let tasks: Vec<_> = tasks.iter().map(|(id, _)| *id).zip(states).collect();
    // It may be of this very transaction, which writes runs at its end.
    let here = ws.run(before.run);
    let before = RunBefore {
        run_id: before.run_id.clone(),
        has_started: here.map_or(before.has_started, |run| run.started_at.is_some()),
        has_ended: here.map_or(before.state, |run| run.state).is_finished(),
    };
    Ok(Past::of(&before, &tasks))
}

/// Has the runs looked at that wait for what a committed transaction has ended, each such look in a transaction of its own:
/// under its own lock a run cannot begin to wait unseen, and locks of runs are taken in the order of their keys. Should it
/// fail, whoever waits looks again by itself within half a minute.
pub(crate) async fn wake_runs_after<B: Backend>(
    store: &B,
    applied: &mut Applied,
    context: &DispatchContext,
) {
    while !applied.followed.is_empty() {
        let ended = std::mem::take(&mut applied.followed);
        match look_again(store, &ended, context).await {
            Ok(woken) => applied.extend(woken),
            Err(error) => {
                tracing::warn!(%error, "cannot tell the runs after of what they wait for yet");
            }
        }
    }
}

async fn look_again<B: Backend>(
    store: &B,
    ended: &[(RunPk, bool)],
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let after = tx.runs_after(ended).await?;
    if after.is_empty() {
        return Ok(Applied::default());
    }
    let mut ws = lock_and_load(&mut tx, &after, &[], &context.plans).await?;
    let nodes: Vec<(RunPk, TaskIdx)> = after
        .iter()
        .filter(|run| {
            ws.run(**run)
                .is_some_and(|row| row.state == RunState::Running)
        })
        .filter_map(|run| Some((*run, ws.plan_of(*run)?)))
        .flat_map(|(run, plan)| plan.looking_back().map(move |idx| (run, idx)))
        .collect();
    let waiting: Vec<TiRow> = tx
        .load_nodes(&nodes)
        .await?
        .into_iter()
        .filter(TiRow::waits_for_past)
        .collect();
    if waiting.is_empty() {
        return Ok(Applied::default());
    }
    for row in waiting {
        let node = row.pk;
        ws.add_ti(row);
        ws.look_back_again(node);
    }
    let applied = finish(&mut tx, ws, Candidates::Own, &[], context).await?;
    tx.commit().await?;
    Ok(applied)
}
