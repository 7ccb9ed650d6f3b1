//! Dispatches whose time to be claimed is over: finds out whether anybody holds them, and sends out again those that
//! nobody does.

use crate::{SchedulerHandle, barrier, cancel, effects, epoch, repeat};
use chrono::Duration as Span;
use gristmill_common::{
    engine::Command,
    ids::{Dispatch, RunPk},
    message::Control,
    state::TaskState,
};
use gristmill_store::OutDispatch;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

const PASS: i64 = 500;
/// By how much the database's clock and presence's may differ.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    let mut swept = None;
    loop {
        // With every look: whether an epoch has to be swept is no matter of the database.
        let rang = handle.wait_for(&handle.wake_unclaimed, |_| true).await;
        sweep(&handle, &mut swept).await;
        // The bell rings for what was written after the last look.
        if !rang && !handle.to_do.borrow().unclaimed {
            suspect(&handle, BTreeSet::new());
            continue;
        }
        match repeat::until_answered("looking for unclaimed dispatches", || {
            handle.store.unclaimed(Duration::ZERO, PASS)
        })
        .await
        {
            Ok(late) if late.is_empty() => suspect(&handle, BTreeSet::new()),
            Ok(late) => look(&handle, late).await,
            Err(error) => tracing::error!(%error, "cannot look for unclaimed dispatches"),
        }
    }
}

/// Looks once in every epoch at all that went out before it, as soon as the record of claims is complete: none of it can be
/// claimed any more, and a dispatch whose worker has died with the old record is bounced by nobody.
async fn sweep(handle: &Arc<SchedulerHandle>, swept: &mut Option<i64>) {
    let Some(epoch) = handle.epoch.borrow().epoch() else {
        return;
    };
    if *swept == Some(epoch) || !epoch::record_is_complete(handle, epoch).await {
        return;
    }
    match handle.store.out_dispatches(None).await {
        Ok(out) => {
            let older: Vec<OutDispatch> = out
                .into_iter()
                .filter(|out| out.state == TaskState::Queued && out.epoch != epoch)
                .collect();
            for chunk in older.chunks(PASS as usize) {
                if !redispatch(handle, chunk.to_vec(), epoch).await {
                    // They are sealed perhaps, and then nobody but this loop can bring them on.
                    return;
                }
            }
            *swept = Some(epoch);
        }
        Err(error) => tracing::debug!(%error, "cannot look for dispatches of earlier epochs now"),
    }
}

async fn look(handle: &Arc<SchedulerHandle>, late: Vec<OutDispatch>) {
    let Some(epoch) = handle.epoch.borrow().epoch() else {
        return;
    };
    let now = handle.store.now();
    let margin = Span::from_std(CLOCK_MARGIN).unwrap_or(Span::seconds(2));
    // Presence has lost its memory since the older ones went out: a worker may hold one and not have said so yet.
    let complete =
        late.iter().any(|out| out.epoch != epoch) && epoch::record_is_complete(handle, epoch).await;
    let late: Vec<OutDispatch> = late
        .into_iter()
        .filter(|out| match out.epoch == epoch {
            true => out.claim_by.is_none_or(|by| by + margin < now),
            false => complete,
        })
        .collect();
    redispatch(handle, late, epoch).await;
}

/// Sends out again what nobody holds. What somebody holds is asked about, and its holder watched: it may have died, or have
/// missed the answer to its claim. `false`: a server was away, and it has to be tried again.
async fn redispatch(handle: &Arc<SchedulerHandle>, late: Vec<OutDispatch>, epoch: i64) -> bool {
    if late.is_empty() {
        return true;
    }
    let ids: Vec<(i64, i64)> = late
        .iter()
        .map(|out| (out.dispatch.ti.0, out.dispatch.fence.0))
        .collect();
    // Sealed, since a second copy of a message may still be on its way, and clocks differ.
    let sealed = match handle.presence.seal(&ids).await {
        Ok(sealed) if sealed.epoch == epoch => sealed,
        Ok(_) => return false,
        Err(error) => {
            tracing::debug!(%error, "cannot look for holders now");
            return false;
        }
    };
    let mut commands = Vec::new();
    let mut held: BTreeMap<String, Vec<(RunPk, Dispatch)>> = BTreeMap::new();
    for (out, holder) in late.into_iter().zip(sealed.holders) {
        match holder {
            None if out.epoch == epoch => commands.push(Command::Unclaimed {
                run: out.run,
                dispatch: out.dispatch,
                reason: "nobody claimed it in time".to_owned(),
            }),
            None => commands.push(Command::Forgotten {
                run: out.run,
                dispatch: out.dispatch,
                reason: "Redis was restarted before its start was heard of".to_owned(),
            }),
            Some(holder) if !holder.released => held
                .entry(holder.incarnation)
                .or_default()
                .push((out.run, out.dispatch)),
            // Its ending is on its way.
            Some(_) => {}
        }
    }
    suspect(handle, held.keys().cloned().collect());
    cancel::tell_workers(handle, held, |dispatches| Control::Check { dispatches }).await;
    // A record goes some time after its dispatch has ended: what was reported until now has to be applied first.
    if commands.is_empty() {
        return true;
    }
    if !barrier::pass(handle).await {
        return false;
    }
    tracing::info!(dispatches = commands.len(), "sending out again");
    let context = handle.context();
    match repeat::until_answered("sending out again", || {
        handle.store.apply(&commands, &[], &context)
    })
    .await
    {
        Ok(applied) => {
            effects::carry_out(handle, applied);
            true
        }
        Err(error) => {
            tracing::error!(%error, "cannot send out again");
            false
        }
    }
}

fn suspect(handle: &SchedulerHandle, holders: BTreeSet<String>) {
    *handle
        .suspects
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = holders;
}
