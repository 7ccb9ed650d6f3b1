//! Commands about task instances, and the dispatch of what is ready.

use super::{
    finish::{Candidates, finish},
    lock_and_load,
};
use crate::{
    Backend, StoreResult, Tx,
    store::{Applied, DispatchContext},
};
use gristmill_common::{
    engine::Command,
    fault,
    ids::{Dispatch, RunPk, TiPk},
    message::Started,
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
    if barriers.is_empty()
        // For the checker's sake the engine may misbehave at a start: then it has to see each.
        && !fault::is_asked_for(&["free-at-start", "give-up-the-living"])
        && let Some(starts) = only_starts(commands)
    {
        return record_starts(store, &starts).await;
    }
    let published = context.published.take();
    let outcome = apply_all(store, commands, barriers, &published, context).await;
    if outcome.is_err() {
        context.published.add(published);
    }
    outcome
}

async fn apply_all<B: Backend>(
    store: &B,
    commands: &[Command],
    barriers: &[(Uuid, u16)],
    published: &[Dispatch],
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let applied = apply_in(&mut tx, commands, published, context).await?;
    for (barrier, shard) in barriers {
        tx.apply_barrier(*barrier, *shard).await?;
    }
    tx.commit().await?;
    Ok(applied)
}

fn only_starts(commands: &[Command]) -> Option<Vec<&Started>> {
    commands
        .iter()
        .map(|command| match command {
            Command::Started(event) => Some(event),
            _ => None,
        })
        .collect()
}

/// Starts alone decide nothing: no instance becomes ready, no slot free. All that they give back is room in a queue, and
/// only for one that was full somebody can wait.
async fn record_starts<B: Backend>(store: &B, starts: &[&Started]) -> StoreResult<Applied> {
    if starts.is_empty() {
        return Ok(Applied::default());
    }
    let recorded = store.record_starts(starts).await?;
    Ok(Applied {
        more_ready: recorded.made_room,
        stale: starts.len().saturating_sub(recorded.written),
        touched: starts.len(),
        ..Applied::default()
    })
}

async fn apply_in<T: Tx>(
    tx: &mut T,
    commands: &[Command],
    published: &[Dispatch],
    context: &DispatchContext,
) -> StoreResult<Applied> {
    if commands.is_empty() {
        if !published.is_empty() {
            tx.delete_outbox(published).await?;
        }
        return Ok(Applied::default());
    }
    let mut runs: Vec<RunPk> = commands.iter().map(Command::run).collect();
    runs.sort_unstable();
    runs.dedup();
    let mut tis: Vec<TiPk> = commands.iter().filter_map(Command::ti).collect();
    tis.sort_unstable();
    tis.dedup();
    let mut ws = lock_and_load(tx, &runs, &tis, &context.plans).await?;
    for command in commands {
        if let Command::StopRun { run, .. } = command {
            for row in tx.load_unfinished(*run).await? {
                ws.add_ti(row);
            }
        }
        ws.apply(command);
    }
    let mut applied = finish(tx, ws, Candidates::Own, published, context).await?;
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
    let published = context.published.take();
    match dispatch_all(store, &published, context).await {
        Ok(Some(applied)) => Ok(applied),
        Ok(None) => {
            context.published.add(published);
            Ok(Applied::default())
        }
        Err(error) => {
            context.published.add(published);
            Err(error)
        }
    }
}

/// `None`: there was nothing to dispatch, and nothing was written.
async fn dispatch_all<B: Backend>(
    store: &B,
    published: &[Dispatch],
    context: &DispatchContext,
) -> StoreResult<Option<Applied>> {
    let mut tx = store.begin().await?;
    let candidates = tx.ready_candidates(context.batch).await?;
    if candidates.is_empty() {
        return Ok(None);
    }
    let mut runs: Vec<RunPk> = candidates.iter().map(|(_, run)| *run).collect();
    runs.sort_unstable();
    runs.dedup();
    let order: Vec<TiPk> = candidates.iter().map(|(ti, _)| *ti).collect();
    let ws = lock_and_load(&mut tx, &runs, &order, &context.plans).await?;
    let mut applied = finish(&mut tx, ws, Candidates::Given(order), published, context).await?;
    tx.commit().await?;
    applied.touched = applied.outbox.len();
    // What was passed over now waits for a limit; it is tried again when one gives room.
    applied.more_ready |= !applied.outbox.is_empty();
    Ok(Some(applied))
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
    let applied = apply_in(&mut tx, &commands, &[], context).await?;
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
    let applied = apply_in(&mut tx, &commands, &[], context).await?;
    tx.commit().await?;
    Ok(applied)
}

pub(crate) async fn stop_overlapped_runs<B: Backend>(
    store: &B,
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let commands: Vec<Command> = tx
        .overlapped_runs(PASS)
        .await?
        .into_iter()
        .map(|run| Command::StopRun {
            run,
            cancelled: true,
            reason: "a newer run took its place (overlap: cancel)".to_owned(),
        })
        .collect();
    let applied = apply_in(&mut tx, &commands, &[], context).await?;
    tx.commit().await?;
    Ok(applied)
}
