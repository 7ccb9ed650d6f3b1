//! Commands about task instances, and the dispatch of what is ready.

use super::{
    finish::{Candidates, finish},
    lock_runs,
};
use crate::{
    Backend, StoreResult, Tx,
    store::{Applied, DispatchContext},
};
use gristmill_common::{
    engine::Command,
    ids::{RunPk, TiPk},
};
use uuid::Uuid;

/// Rows that one pass of a reconciler takes.
const PASS: i64 = 500;

pub(crate) async fn apply<B: Backend>(
    store: &B,
    commands: &[Command],
    barriers: &[(Uuid, u16)],
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let applied = apply_in(&mut tx, commands, context).await?;
    for (barrier, shard) in barriers {
        tx.apply_barrier(*barrier, *shard).await?;
    }
    tx.commit().await?;
    Ok(applied)
}

async fn apply_in<T: Tx>(
    tx: &mut T,
    commands: &[Command],
    context: &DispatchContext,
) -> StoreResult<Applied> {
    if commands.is_empty() {
        return Ok(Applied::default());
    }
    let mut runs: Vec<RunPk> = commands.iter().map(Command::run).collect();
    runs.sort_unstable();
    runs.dedup();
    let mut ws = lock_runs(tx, &runs, &context.plans).await?;
    let mut tis: Vec<TiPk> = commands.iter().filter_map(Command::ti).collect();
    tis.sort_unstable();
    tis.dedup();
    for row in tx.load_tis(&tis).await? {
        ws.add_ti(row);
    }
    for command in commands {
        if let Command::StopRun { run, .. } = command {
            for row in tx.load_unfinished(*run).await? {
                ws.add_ti(row);
            }
        }
        ws.apply(command);
    }
    let mut applied = finish(tx, ws, Candidates::Own, context).await?;
    applied.touched = commands.len();
    Ok(applied)
}

pub(crate) async fn dispatch_ready<B: Backend>(
    store: &B,
    context: &DispatchContext,
) -> StoreResult<Applied> {
    if context.epoch.is_none() {
        return Ok(Applied::default());
    }
    let mut tx = store.begin().await?;
    let candidates = tx.ready_candidates(context.batch).await?;
    if candidates.is_empty() {
        return Ok(Applied::default());
    }
    let mut runs: Vec<RunPk> = candidates.iter().map(|(_, run)| *run).collect();
    runs.sort_unstable();
    runs.dedup();
    let mut ws = lock_runs(&mut tx, &runs, &context.plans).await?;
    let order: Vec<TiPk> = candidates.iter().map(|(ti, _)| *ti).collect();
    for row in tx.load_tis(&order).await? {
        ws.add_ti(row);
    }
    let mut applied = finish(&mut tx, ws, Candidates::Given(order), context).await?;
    tx.commit().await?;
    applied.touched = applied.outbox.len();
    // What was passed over now waits for a limit; it is tried again when one gives room.
    applied.more_ready |= !applied.outbox.is_empty();
    Ok(applied)
}

pub(crate) async fn retry_due<B: Backend>(
    store: &B,
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let due = tx.due_retries(PASS).await?;
    let commands: Vec<Command> = due
        .into_iter()
        .map(|(ti, run)| Command::RetryDue { run, ti })
        .collect();
    let applied = apply_in(&mut tx, &commands, context).await?;
    tx.commit().await?;
    Ok(applied)
}

pub(crate) async fn stop_due_runs<B: Backend>(
    store: &B,
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let commands: Vec<Command> = tx
        .runs_to_stop(PASS)
        .await?
        .into_iter()
        .map(|run| Command::StopRun {
            run,
            cancelled: false,
            reason: "the run's time is over (dagrun_timeout)".to_owned(),
        })
        .collect();
    let applied = apply_in(&mut tx, &commands, context).await?;
    tx.commit().await?;
    Ok(applied)
}
