//! Takes dispatches from one queue: claims them, and acknowledges at once.

use crate::{
    run,
    worker::{Incarnation, Lane},
};
use gristmill_broker::{Consumer, ConsumerEvent, Delivery, Source};
use gristmill_common::{
    ids::{Dispatch, Fence, RunPk, TiPk},
    message::{self, Event, WorkMessage, header},
};
use gristmill_presence::{Claim, ClaimRequest};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long deliveries are kept while every slot is taken, before they are given back to the broker.
const HOLD: Duration = Duration::from_millis(100);

/// How often a claim is asked for before its messages are given back.
const CLAIM_TRIES: u32 = 3;

/// The headers of a work message.
#[derive(Debug, Clone, Copy)]
struct Headers {
    run: RunPk,
    dispatch: Dispatch,
    epoch: i64,
    claim_by_ms: i64,
}

impl Headers {
    fn of(delivery: &Delivery) -> Option<Self> {
        let int = |name: &str| delivery.headers.get(name).and_then(|value| value.as_int());
        Some(Self {
            run: RunPk(int(header::RUN)?),
            dispatch: Dispatch {
                ti: TiPk(int(header::TI)?),
                fence: Fence(int(header::FENCE)?),
            },
            epoch: int(header::EPOCH)?,
            claim_by_ms: int(header::CLAIM_BY)?,
        })
    }
}

/// A message that can be claimed.
struct Readable {
    delivery: Delivery,
    headers: Headers,
    message: WorkMessage,
}

/// Consumes a queue until the incarnation stops taking work.
pub(crate) async fn consume(worker: Arc<Incarnation>, queue: String) {
    let lane = Lane::of(&queue);
    let prefetch = u16::try_from(worker.places(lane))
        .unwrap_or(u16::MAX)
        .max(1);
    let mut consumer = match worker
        .broker
        .consume(Source::Work(queue.clone()), prefetch)
        .await
    {
        Ok(consumer) => consumer,
        Err(error) => {
            tracing::error!(queue, %error, "cannot consume this queue");
            return worker.stop_taking.cancelled().await;
        }
    };
    worker.watch_consumer(&queue, consumer.watch_state());
    let mut reachable = worker.lease.watch_reachable();
    loop {
        if !*reachable.borrow_and_update() {
            // Nothing can be claimed: whoever can may have what is queued.
            consumer.pause().await;
            tokio::select! {
                () = worker.stop_taking.cancelled() => break,
                changed = reachable.wait_for(|reachable| *reachable) => if changed.is_err() { break },
            }
            consumer.resume(prefetch).await;
        }
        let event = tokio::select! {
            biased;
            () = worker.stop_taking.cancelled() => break,
            _ = reachable.changed() => continue,
            event = consumer.next() => event,
        };
        let ConsumerEvent::Delivery(first) = event else {
            continue;
        };
        let mut deliveries = vec![first];
        while deliveries.len() < usize::from(prefetch) {
            match consumer.try_next() {
                Some(ConsumerEvent::Delivery(delivery)) => deliveries.push(delivery),
                Some(ConsumerEvent::Reset { .. }) => deliveries.clear(),
                None => break,
            }
        }
        take(&worker, &mut *consumer, deliveries, prefetch, lane).await;
    }
    consumer.close().await;
}

async fn take(
    worker: &Arc<Incarnation>,
    consumer: &mut dyn Consumer,
    deliveries: Vec<Delivery>,
    prefetch: u16,
    lane: Lane,
) {
    let slots = worker.slots_of(lane);
    let mut readable: Vec<Readable> = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        match read(&delivery) {
            Ok(Some((headers, message))) => readable.push(Readable {
                delivery,
                headers,
                message,
            }),
            Ok(None) => {
                bounce(
                    worker,
                    &delivery,
                    "its message has a version that this worker does not know",
                );
                consumer.ack(&[delivery.tag]);
            }
            Err(reason) => {
                tracing::error!(reason, "a message goes to the dead letters");
                if consumer.dead_letter(&delivery, &reason).await.is_err() {
                    consumer.give_back(&[delivery.tag]);
                }
            }
        }
    }
    while !readable.is_empty() {
        let Some(permits) = permits(worker, slots, readable.len()).await else {
            // Every slot is taken, and stays so: others may have these.
            let tags: Vec<_> = readable.iter().map(|r| r.delivery.tag).collect();
            consumer.give_back(&tags);
            consumer.pause().await;
            tokio::select! {
                () = worker.stop_taking.cancelled() => return,
                slot = slots.clone().acquire_owned() => drop(slot),
            }
            consumer.resume(prefetch).await;
            return;
        };
        let rest = readable.split_off(permits.len().min(readable.len()));
        let now = std::mem::replace(&mut readable, rest);
        if !claim(worker, consumer, now, permits, lane).await {
            let tags: Vec<_> = readable.iter().map(|r| r.delivery.tag).collect();
            consumer.give_back(&tags);
            return;
        }
    }
}

/// Free slots, up to `wanted`; `None` when none became free in a while.
async fn permits(
    worker: &Incarnation,
    slots: &Arc<Semaphore>,
    wanted: usize,
) -> Option<Vec<OwnedSemaphorePermit>> {
    let first = tokio::select! {
        biased;
        () = worker.stop_taking.cancelled() => return None,
        first = tokio::time::timeout(HOLD, slots.clone().acquire_owned()) => first.ok()?.ok()?,
    };
    let mut permits = vec![first];
    while permits.len() < wanted {
        match slots.clone().try_acquire_owned() {
            Ok(permit) => permits.push(permit),
            Err(_) => break,
        }
    }
    Some(permits)
}

/// Claims messages and starts what was granted. `false`: presence did not answer, everything was given back.
async fn claim(
    worker: &Arc<Incarnation>,
    consumer: &mut dyn Consumer,
    messages: Vec<Readable>,
    mut permits: Vec<OwnedSemaphorePermit>,
    lane: Lane,
) -> bool {
    let requests: Vec<ClaimRequest> = messages
        .iter()
        .map(|m| ClaimRequest {
            ti: m.headers.dispatch.ti.0,
            fence: m.headers.dispatch.fence.0,
            epoch: m.headers.epoch,
            claim_by_ms: m.headers.claim_by_ms,
        })
        .collect();
    let incarnation = &worker.lease.info.incarnation;
    let mut tries = 1;
    let answers = loop {
        let error = match worker.presence.claim(incarnation, &requests).await {
            Ok(answers) => break answers,
            Err(error) => error,
        };
        // The claim may have been made and its answer lost: asking again finds that out, whereas the next worker would
        // only see that it is ours.
        if tries < CLAIM_TRIES && !worker.stop_taking.is_cancelled() {
            tries += 1;
            tokio::time::sleep(HOLD).await;
        } else {
            tracing::debug!(%error, "cannot claim now");
            let tags: Vec<_> = messages.iter().map(|m| m.delivery.tag).collect();
            consumer.give_back(&tags);
            worker.lease.look_now();
            // Until the lease's loop has found out, so that the same messages are not taken and given back in circles.
            tokio::time::sleep(HOLD).await;
            return false;
        }
    };
    gristmill_common::fault_point!("after-claim-before-ack");
    let mut settled = Vec::with_capacity(messages.len());
    let mut ours = Vec::with_capacity(messages.len());
    for (m, answer) in messages.into_iter().zip(answers) {
        let tag = m.delivery.tag;
        match answer {
            Claim::Granted => ours.push(m),
            // The answer to our own claim was lost: it is ours, unless it ran already.
            Claim::AlreadyClaimed { by } if by == *incarnation => ours.push(m),
            Claim::AlreadyClaimed { .. } | Claim::Cancelled => {}
            Claim::WrongEpoch { .. } | Claim::Late => bounce(
                worker,
                &m.delivery,
                "it could not be claimed: stale or late",
            ),
            Claim::NoLease => {
                worker.lease.look_now();
                consumer.give_back(&[tag]);
                continue;
            }
        }
        settled.push(tag);
    }
    // Held from here on, so that a lost presence gets its record back.
    let taken: Vec<_> = ours
        .into_iter()
        .map(|m| {
            let wish = worker.held.take(m.headers.dispatch);
            worker.lease.claimed_under(m.headers.epoch);
            (m.message, wish)
        })
        .collect();
    consumer.ack(&settled);
    for (message, wish) in taken {
        if let Some((wish, permit)) = wish.zip(permits.pop()) {
            run::spawn(worker.clone(), message, wish, permit, lane);
        }
    }
    true
}

fn read(delivery: &Delivery) -> Result<Option<(Headers, WorkMessage)>, String> {
    let headers = Headers::of(delivery).ok_or("a work message without its headers")?;
    let version = delivery
        .headers
        .get(header::VERSION)
        .and_then(|v| v.as_int());
    if version != Some(i64::from(message::VERSION)) {
        return Ok(None);
    }
    let message: WorkMessage = serde_json::from_slice(&delivery.body)
        .map_err(|error| format!("not a work message: {error}"))?;
    if message.dispatch != headers.dispatch {
        return Err(format!(
            "the message is of {}, its headers of {}",
            message.dispatch, headers.dispatch
        ));
    }
    Ok(Some((headers, message)))
}

fn bounce(worker: &Incarnation, delivery: &Delivery, reason: &str) {
    if let Some(headers) = Headers::of(delivery) {
        worker.reporter.event(Event::Bounced {
            run: headers.run,
            dispatch: headers.dispatch,
            reason: reason.to_owned(),
        });
    }
}
