//! Takes in the dead queue: messages that expired, and messages that nobody could read.

use crate::{SchedulerHandle, effects, repeat};
use gristmill_broker::{ConsumerEvent, Delivery, Source};
use gristmill_common::{
    engine::Command,
    ids::{Dispatch, Fence, RunPk, TiPk},
    message::{Ending, Finished, header},
};
use gristmill_store::StoreResult;
use std::sync::Arc;

/// The broker's word for a message whose time was over.
const EXPIRED: &str = "expired";

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    let mut consumer = match handle.broker.consume(Source::Dead, 32).await {
        Ok(consumer) => consumer,
        Err(error) => {
            tracing::error!(%error, "cannot consume the dead queue");
            return;
        }
    };
    loop {
        let ConsumerEvent::Delivery(delivery) = consumer.next().await else {
            continue;
        };
        match take(&handle, &delivery).await {
            Ok(()) => consumer.ack(&[delivery.tag]),
            Err(error) => {
                tracing::error!(%error, "cannot take in a dead message");
                consumer.give_back(&[delivery.tag]);
                tokio::time::sleep(handle.config.reconcile_every).await;
            }
        }
    }
}

async fn take(handle: &Arc<SchedulerHandle>, delivery: &Delivery) -> StoreResult<()> {
    let (reason, source) = delivery.death.as_ref().map_or_else(
        || ("unknown".to_owned(), "unknown".to_owned()),
        |death| {
            let source = death
                .source
                .as_ref()
                .map_or_else(|| "unknown".to_owned(), ToString::to_string);
            (death.reason.clone(), source)
        },
    );
    let dispatch = dispatch_of(delivery);
    if reason == EXPIRED {
        // Its dispatch is looked for in the record of claims, and goes out again if nobody holds it.
        if let Some((_, dispatch)) = dispatch {
            let expired = [dispatch];
            repeat::until_answered("taking an expired message", || {
                handle.store.expire_claim(&expired)
            })
            .await?;
            handle.wake_unclaimed.notify_one();
        }
        return Ok(());
    }
    repeat::until_answered("keeping a dead message", || {
        handle
            .store
            .put_dead_letter(&source, &reason, &delivery.body)
    })
    .await?;
    match dispatch {
        Some((run, dispatch)) => {
            let epoch = delivery
                .headers
                .get(header::EPOCH)
                .and_then(|value| value.as_int());
            fail_unread(handle, run, dispatch, epoch, &reason).await
        }
        None => Ok(()),
    }
}

fn dispatch_of(delivery: &Delivery) -> Option<(RunPk, Dispatch)> {
    let int = |name: &str| delivery.headers.get(name).and_then(|value| value.as_int());
    let dispatch = Dispatch {
        ti: TiPk(int(header::TI)?),
        fence: Fence(int(header::FENCE)?),
    };
    Some((RunPk(int(header::RUN)?), dispatch))
}

/// A work message that could not be read: its instance fails, unless somebody holds it after all.
async fn fail_unread(
    handle: &Arc<SchedulerHandle>,
    run: RunPk,
    dispatch: Dispatch,
    epoch: Option<i64>,
    reason: &str,
) -> StoreResult<()> {
    // Another copy of it may have been read after all, or may still be: only what nobody holds, and nobody can claim any
    // more, fails.
    let sealed = handle
        .presence
        .seal(&[(dispatch.ti.0, dispatch.fence.0)])
        .await;
    match sealed {
        Ok(sealed) if sealed.holders != [None] => return Ok(()),
        Ok(sealed) if Some(sealed.epoch) == epoch => {}
        // Cannot be told now: it is looked for like one that nobody claimed.
        _ => {
            let unread = [dispatch];
            repeat::until_answered("taking an unreadable dispatch", || {
                handle.store.expire_claim(&unread)
            })
            .await?;
            handle.wake_unclaimed.notify_one();
            return Ok(());
        }
    }
    let now = handle.store.now();
    let event = Finished {
        run,
        dispatch,
        worker: String::new(),
        hostname: String::new(),
        started_at: now,
        ended_at: now,
        ending: Ending::FailedForGood,
        exit_code: None,
        pid: None,
        reason: Some(format!(
            "its message could not be read by a worker: {reason}"
        )),
        xcoms: Vec::new(),
    };
    let command = [Command::Finished(Box::new(event))];
    let context = handle.context();
    let applied = repeat::until_answered("failing an unreadable dispatch", || {
        handle.store.apply(&command, &[], &context)
    })
    .await?;
    effects::carry_out(handle, applied);
    Ok(())
}
