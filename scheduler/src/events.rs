//! Applies what workers report. One task a shard; RabbitMQ lets one scheduler at a time consume each.

use crate::{SchedulerHandle, effects, hydrate::hydrate, repeat};
use gristmill_broker::{
    Consumer, ConsumerEvent, ControlTarget, Delivery, Publication, Source, Target,
};
use gristmill_common::{
    engine::Command,
    fault,
    ids::Dispatch,
    message::{Control, Ending, Event, EventBatch, RenewRequest, VERSION},
};
use gristmill_store::StoreError;
use std::sync::Arc;
use uuid::Uuid;

/// The events of some messages, sorted by what has to be done with them.
#[derive(Debug, Default)]
struct Batch {
    commands: Vec<Command>,
    barriers: Vec<(Uuid, u16)>,
    bounced: Vec<Dispatch>,
    renewals: Vec<RenewRequest>,
}

pub(crate) async fn run(handle: Arc<SchedulerHandle>, shard: u32) {
    let prefetch = u16::try_from(handle.config.event_messages).unwrap_or(u16::MAX);
    let mut consumer = match handle.broker.consume(Source::Events(shard), prefetch).await {
        Ok(consumer) => consumer,
        Err(error) => {
            tracing::error!(shard, %error, "cannot consume events");
            return;
        }
    };
    loop {
        let mut deliveries = Vec::new();
        match consumer.next().await {
            ConsumerEvent::Delivery(delivery) => deliveries.push(delivery),
            ConsumerEvent::Reset { .. } => continue,
        }
        while deliveries.len() < handle.config.event_messages {
            match consumer.try_next() {
                Some(ConsumerEvent::Delivery(delivery)) => deliveries.push(delivery),
                // What was delivered before is void; it comes again.
                Some(ConsumerEvent::Reset { .. }) => deliveries.clear(),
                None => break,
            }
        }
        take(&handle, &mut *consumer, &deliveries).await;
    }
}

/// Applies messages together; if the database refuses them, each by itself, so that a bad one cannot hold up the others.
async fn take(handle: &Arc<SchedulerHandle>, consumer: &mut dyn Consumer, deliveries: &[Delivery]) {
    let mut readable = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        match read(delivery) {
            Ok(mut events) => {
                hydrate(&handle.objects, &mut events).await;
                readable.push((delivery, events));
            }
            Err(reason) => dead_letter(consumer, delivery, &reason).await,
        }
    }
    let all: Vec<&Event> = readable.iter().flat_map(|(_, events)| events).collect();
    let applied = apply(handle, sort(&all)).await;
    gristmill_common::fault_point!("after-apply-before-ack");
    match applied {
        Ok(()) => {
            let tags: Vec<_> = readable.iter().map(|(delivery, _)| delivery.tag).collect();
            if !fault::misbehaves("skip-ack") {
                consumer.ack(&tags);
            }
        }
        Err(error) => {
            tracing::error!(%error, messages = readable.len(), "events were refused; applying each by itself");
            for (delivery, events) in readable {
                match one_by_one(handle, &events).await {
                    Ok(()) => consumer.ack(&[delivery.tag]),
                    Err(error) => dead_letter(consumer, delivery, &error.to_string()).await,
                }
            }
        }
    }
}

/// Applies events one after the other; those that are refused go to the dead letters alone.
async fn one_by_one(handle: &Arc<SchedulerHandle>, events: &[Event]) -> Result<(), StoreError> {
    for event in events {
        let Err(error) = apply(handle, sort(&[event])).await else {
            continue;
        };
        let reason = error.to_string();
        tracing::error!(reason, "an event goes to the dead letters");
        let body = serde_json::to_vec(event).unwrap_or_default();
        repeat::until_answered("keeping a refused event", || {
            handle.store.put_dead_letter("events", &reason, &body)
        })
        .await?;
    }
    Ok(())
}

fn read(delivery: &Delivery) -> Result<Vec<Event>, String> {
    let batch: EventBatch = serde_json::from_slice(&delivery.body)
        .map_err(|error| format!("not a batch of events: {error}"))?;
    if batch.v != VERSION {
        return Err(format!(
            "events of version {}, this build reads {VERSION}",
            batch.v
        ));
    }
    Ok(batch.events)
}

fn sort(events: &[&Event]) -> Batch {
    let mut batch = Batch::default();
    for event in events {
        match event {
            Event::Started(started) => batch.commands.push(Command::Started(started.clone())),
            Event::Finished(finished) => batch.commands.push(Command::Finished(finished.clone())),
            Event::Requeued {
                run,
                dispatch,
                reason,
            } => batch.commands.push(Command::Requeued {
                run: *run,
                dispatch: *dispatch,
                reason: reason.clone(),
            }),
            Event::Bounced { dispatch, .. } => batch.bounced.push(*dispatch),
            Event::Renew(request) => {
                // Only a worker's last one counts: many may have waited while the broker was away.
                batch
                    .renewals
                    .retain(|earlier| earlier.incarnation != request.incarnation);
                batch.renewals.push(request.clone());
            }
            Event::Barrier { id, shard } => batch.barriers.push((*id, *shard)),
        }
    }
    batch
}

async fn apply(handle: &Arc<SchedulerHandle>, batch: Batch) -> Result<(), StoreError> {
    if !batch.commands.is_empty() || !batch.barriers.is_empty() {
        let context = handle.context();
        let applied = repeat::until_answered("applying events", || {
            handle
                .store
                .apply(&batch.commands, &batch.barriers, &context)
        })
        .await?;
        count(&batch.commands);
        if batch.commands.iter().any(
            |command| matches!(command, Command::Finished(event) if event.ending == Ending::Failed),
        ) {
            handle.wake_retries.notify_one();
        }
        effects::carry_out(handle, applied);
    }
    if !batch.bounced.is_empty() {
        repeat::until_answered("taking bounced dispatches", || {
            handle.store.expire_claim(&batch.bounced)
        })
        .await?;
        handle.wake_unclaimed.notify_one();
    }
    for request in &batch.renewals {
        let granted =
            repeat::until_answered("granting a lease", || handle.store.grant_lease(request))
                .await?;
        answer(handle, request, granted).await;
    }
    Ok(())
}

async fn answer(handle: &SchedulerHandle, request: &RenewRequest, granted: bool) {
    let control = if granted {
        Control::Granted {
            sent_at: request.sent_at,
        }
    } else {
        Control::Revoked
    };
    let target = Target::Control(ControlTarget::Worker {
        incarnation: request.incarnation.clone(),
    });
    let body = serde_json::to_vec(&control).unwrap_or_default();
    // Without the answer the worker asks again.
    handle
        .broker
        .publish(vec![Publication::new(target, body)])
        .await;
}

fn count(commands: &[Command]) {
    for command in commands {
        if let Command::Finished(finished) = command {
            let state = format!("{:?}", finished.ending).to_lowercase();
            metrics::counter!("gristmill_tasks_total", "state" => state).increment(1);
        }
    }
}

async fn dead_letter(consumer: &mut dyn Consumer, delivery: &Delivery, reason: &str) {
    tracing::error!(
        reason,
        bytes = delivery.body.len(),
        "an events message goes to the dead letters"
    );
    if let Err(error) = consumer.dead_letter(delivery, reason).await {
        tracing::warn!(%error, "cannot move it now; it comes again");
        consumer.give_back(&[delivery.tag]);
    }
}
