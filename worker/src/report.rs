//! Reports what happened to dispatches.
//!
//! Events go to the shard of their run, many to a message. While the broker is away they wait here: nothing new is
//! consumed then, so what waits is bounded by what the worker holds. A dispatch is held until its ending is confirmed.

use crate::held::Held;
use gristmill_broker::{Broker, Publication, PublishOutcome, Target};
use gristmill_common::{
    ids::Dispatch,
    message::{Event, EventBatch, MAX_BODY, RenewRequest, VERSION, shard_of},
};
use gristmill_presence::Presence;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

/// Messages of one shard on their way at one time; an ending may overtake its start, which is then stale.
const IN_FLIGHT: usize = 4;
/// Room for the batch's own JSON.
const ENVELOPE: usize = 64;
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// An event and its JSON.
struct Encoded {
    json: String,
    /// The dispatch whose start it tells.
    starts: Option<Dispatch>,
    /// The dispatch that ends with it.
    ends: Option<Dispatch>,
    /// It ends with a result, which has all that a start tells.
    finishes: bool,
}

/// Takes events in; they are published in the background.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    shards: Vec<mpsc::UnboundedSender<Event>>,
    incarnation: String,
}

impl Reporter {
    /// Starts one publisher a shard.
    pub(crate) fn start(
        broker: Arc<dyn Broker>,
        presence: Arc<dyn Presence>,
        held: Arc<Held>,
        incarnation: String,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let shards = (0..broker.event_shards())
            .map(|shard| {
                let (sender, receiver) = mpsc::unbounded_channel();
                tasks.spawn(publish_shard(
                    broker.clone(),
                    presence.clone(),
                    held.clone(),
                    incarnation.clone(),
                    shard,
                    receiver,
                ));
                sender
            })
            .collect();
        Self {
            shards,
            incarnation,
        }
    }

    pub(crate) fn event(&self, event: Event) {
        let shards = self.shards.len() as u16;
        let shard = event.run().map_or_else(
            || self.own_shard(),
            |run| usize::from(shard_of(run, shards)),
        );
        if let Some(sender) = self.shards.get(shard) {
            // Fails only when the publisher is gone, and with it this incarnation.
            let _ = sender.send(event);
        }
    }

    pub(crate) fn renew(&self, request: RenewRequest) {
        self.event(Event::Renew(request));
    }

    /// Renewals spread over the shards by worker.
    fn own_shard(&self) -> usize {
        self.incarnation.bytes().map(usize::from).sum::<usize>() % self.shards.len().max(1)
    }
}

async fn publish_shard(
    broker: Arc<dyn Broker>,
    presence: Arc<dyn Presence>,
    held: Arc<Held>,
    incarnation: String,
    shard: u32,
    mut events: mpsc::UnboundedReceiver<Event>,
) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut next: Option<Encoded> = None;
    let mut publishing = JoinSet::new();
    loop {
        let first = match next.take() {
            Some(encoded) => encoded,
            None => match events.recv().await {
                Some(event) => encode(&event),
                None => break,
            },
        };
        let Ok(permit) = in_flight.clone().acquire_owned().await else {
            break;
        };
        let mut size = ENVELOPE + first.json.len();
        let mut batch = vec![first];
        while let Ok(event) = events.try_recv() {
            let encoded = encode(&event);
            if size + encoded.json.len() + 1 > MAX_BODY {
                next = Some(encoded);
                break;
            }
            size += encoded.json.len() + 1;
            batch.push(encoded);
        }
        drop_told_starts(&mut batch);
        let (broker, presence, held, incarnation) = (
            broker.clone(),
            presence.clone(),
            held.clone(),
            incarnation.clone(),
        );
        publishing.spawn(async move {
            let _permit = permit;
            publish(&*broker, shard, &batch).await;
            let ended: Vec<Dispatch> = batch.iter().filter_map(|encoded| encoded.ends).collect();
            if ended.is_empty() {
                return;
            }
            held.remove(&ended);
            let ids: Vec<(i64, i64)> = ended.iter().map(|d| (d.ti.0, d.fence.0)).collect();
            if let Err(error) = presence.release(&incarnation, &ids).await {
                tracing::debug!(%error, "claims not released; they are collected as garbage in time");
            }
        });
        while publishing.try_join_next().is_some() {}
    }
    while publishing.join_next().await.is_some() {}
}

/// An attempt's result tells its start too: one that goes out with it is not told by itself, which would cost the
/// scheduler as much as the result does.
fn drop_told_starts(batch: &mut Vec<Encoded>) {
    let finished: HashSet<Dispatch> = batch
        .iter()
        .filter(|encoded| encoded.finishes)
        .filter_map(|encoded| encoded.ends)
        .collect();
    if !finished.is_empty() {
        batch.retain(|encoded| {
            encoded
                .starts
                .is_none_or(|start| !finished.contains(&start))
        });
    }
}

fn encode(event: &Event) -> Encoded {
    let starts = match event {
        Event::Started(started) => Some(started.dispatch),
        _ => None,
    };
    let ends = match event {
        Event::Finished(finished) => Some(finished.dispatch),
        Event::Requeued { dispatch, .. } => Some(*dispatch),
        _ => None,
    };
    Encoded {
        json: serde_json::to_string(event).unwrap_or_default(),
        starts,
        finishes: matches!(event, Event::Finished(_)),
        ends,
    }
}

/// Publishes one message until the broker has confirmed it.
async fn publish(broker: &dyn Broker, shard: u32, batch: &[Encoded]) {
    let mut body = format!("{{\"v\":{VERSION},\"events\":[");
    for (i, encoded) in batch.iter().enumerate() {
        if i > 0 {
            body.push(',');
        }
        body.push_str(&encoded.json);
    }
    body.push_str("]}");
    debug_assert!(serde_json::from_str::<EventBatch>(&body).is_ok());
    if batch.iter().any(|encoded| encoded.ends.is_some()) {
        gristmill_common::fault_point!("after-exit-before-confirmed");
    }
    let mut wait = Duration::from_millis(50);
    loop {
        let outcomes = broker
            .publish(vec![Publication::new(Target::Events(shard), body.clone())])
            .await;
        match outcomes.first() {
            Some(PublishOutcome::Confirmed) => return,
            Some(PublishOutcome::Returned { reason }) => {
                tracing::warn!(shard, reason, "events returned; trying again")
            }
            Some(PublishOutcome::Failed { reason, .. }) => {
                tracing::debug!(shard, %reason, "events not published; trying again")
            }
            None => {}
        }
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_common::{
        ids::{Fence, RunPk, TiPk},
        message::{Ending, Finished, Started},
    };

    fn dispatch(ti: i64) -> Dispatch {
        Dispatch {
            ti: TiPk(ti),
            fence: Fence(1),
        }
    }

    fn started(ti: i64) -> Event {
        Event::Started(Started {
            run: RunPk(1),
            dispatch: dispatch(ti),
            worker: "w".to_owned(),
            hostname: "h".to_owned(),
            pid: None,
            at: chrono::DateTime::UNIX_EPOCH,
        })
    }

    fn finished(ti: i64) -> Event {
        Event::Finished(Box::new(Finished {
            run: RunPk(1),
            dispatch: dispatch(ti),
            worker: "w".to_owned(),
            hostname: "h".to_owned(),
            started_at: chrono::DateTime::UNIX_EPOCH,
            ended_at: chrono::DateTime::UNIX_EPOCH,
            ending: Ending::Success,
            exit_code: None,
            pid: None,
            reason: None,
            xcoms: Vec::new(),
        }))
    }

    #[test]
    fn only_a_start_whose_result_goes_along_is_left_out() {
        let requeued = Event::Requeued {
            run: RunPk(1),
            dispatch: dispatch(3),
            reason: String::new(),
        };
        let events = [started(1), started(2), started(3), finished(1), requeued];
        let mut batch: Vec<Encoded> = events.iter().map(encode).collect();
        drop_told_starts(&mut batch);
        let starts: Vec<_> = batch.iter().filter_map(|e| e.starts).collect();
        assert_eq!(starts, [dispatch(2), dispatch(3)]);
        assert_eq!(batch.len(), 4);
    }
}
