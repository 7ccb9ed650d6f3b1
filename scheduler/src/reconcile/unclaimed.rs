//! Dispatches whose time to be claimed is over: finds out whether anybody holds them, and sends out again those that
//! nobody does.

use crate::{SchedulerHandle, barrier, effects, repeat};
use chrono::Duration as Span;
use gristmill_common::{engine::Command, state::TaskState};
use gristmill_store::OutDispatch;
use std::{sync::Arc, time::Duration};

const PASS: i64 = 500;
/// By how much the database's clock and presence's may differ.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        let _ = tokio::time::timeout(
            handle.config.reconcile_every,
            handle.wake_unclaimed.notified(),
        )
        .await;
        match repeat::until_answered("looking for unclaimed dispatches", || {
            handle.store.unclaimed(Duration::ZERO, PASS)
        })
        .await
        {
            Ok(late) if late.is_empty() => {}
            Ok(late) => look(&handle, late).await,
            Err(error) => tracing::error!(%error, "cannot look for unclaimed dispatches"),
        }
    }
}

async fn look(handle: &Arc<SchedulerHandle>, late: Vec<OutDispatch>) {
    let Some(epoch) = handle.epoch.borrow().epoch() else {
        return;
    };
    let (same_epoch, older): (Vec<_>, Vec<_>) =
        late.into_iter().partition(|out| out.epoch == epoch);
    let now = handle.store.now();
    let margin = Span::from_std(CLOCK_MARGIN).unwrap_or(Span::seconds(2));
    let over: Vec<OutDispatch> = same_epoch
        .into_iter()
        .filter(|out| out.claim_by.is_none_or(|by| by + margin < now))
        .collect();
    redispatch(handle, over, epoch, "nobody claimed it in time").await;
    // Presence has lost its memory since these went out: a worker may hold one and not have said so yet. Once every worker
    // has had a lease's time to restore its claims, and all that was sent before has been applied, the record is complete.
    let settled = handle
        .epoch
        .borrow()
        .seen_for(handle.config.lease + handle.config.judge_margin);
    if older.is_empty() || !settled || !barrier::pass(handle).await {
        return;
    }
    redispatch(
        handle,
        older,
        epoch,
        "Redis was restarted before it was claimed",
    )
    .await;
}

/// Sends out again what nobody holds. The record of claims has to be that of `epoch`, before and after.
async fn redispatch(
    handle: &Arc<SchedulerHandle>,
    late: Vec<OutDispatch>,
    epoch: i64,
    reason: &str,
) {
    if late.is_empty() {
        return;
    }
    let ids: Vec<(i64, i64)> = late
        .iter()
        .map(|out| (out.dispatch.ti.0, out.dispatch.fence.0))
        .collect();
    let holders = match handle.presence.holders(&ids).await {
        Ok(holders) if holders.epoch == epoch => holders,
        Ok(_) => return,
        Err(error) => {
            tracing::debug!(%error, "cannot look for holders now");
            return;
        }
    };
    let commands: Vec<Command> = late
        .into_iter()
        .zip(holders.holders)
        .filter(|(out, holder)| holder.is_none() && out.state == TaskState::Queued)
        .map(|(out, _)| Command::Unclaimed {
            run: out.run,
            dispatch: out.dispatch,
            reason: reason.to_owned(),
        })
        .collect();
    if commands.is_empty() {
        return;
    }
    tracing::info!(dispatches = commands.len(), reason, "sending out again");
    let context = handle.context();
    match repeat::until_answered("sending out again", || {
        handle.store.apply(&commands, &[], &context)
    })
    .await
    {
        Ok(applied) => effects::carry_out(handle, applied),
        Err(error) => tracing::error!(%error, "cannot send out again"),
    }
}
