//! Reports what happened to dispatches.
//!
//! Events go to the shard of their run, many to a message. What a message carries is decided by what is on its way, never by
//! a timer: while nothing is, an event leaves at once; an ending waits for no more than the confirm of the endings before it.
//!
//! A start is told once its attempt has run for [`WORTH_TELLING`], and lets whatever is on its way come home first: nothing
//! waits for it, and a result tells it too. So an attempt that is shorter costs one event instead of two, and its start
//! does not stand before its end in the scheduler.
//!
//! While the broker is away events wait here: nothing new is consumed then, so what waits is bounded by what the worker
//! holds. A dispatch is held until its ending is confirmed.

use crate::held::Held;
use futures::{StreamExt, stream::FuturesUnordered};
use gristmill_broker::{Broker, Publication, PublishOutcome, Target};
use gristmill_common::{
    ids::Dispatch,
    message::{Event, EventBatch, MAX_BODY, RenewRequest, VERSION, shard_of},
};
use gristmill_presence::Presence;
use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// Messages of one shard on their way at one time.
const IN_FLIGHT: usize = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long an attempt runs before it is told that it does: sooner than anybody sees.
const WORTH_TELLING: Duration = Duration::from_millis(50);

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

/// How soon an event has to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// A start: nothing waits for it.
    Start,
    /// An ending: its downstreams wait for it.
    Ending,
    /// A lease asked for, a dispatch that has to go to another worker.
    Now,
}

impl Urgency {
    fn of(event: &Event) -> Self {
        match event {
            Event::Started(_) => Self::Start,
            Event::Finished(_) | Event::Requeued { .. } => Self::Ending,
            Event::Bounced { .. } | Event::Renew(_) | Event::Barrier { .. } => Self::Now,
        }
    }
}

/// The messages on their way.
#[derive(Debug, Default)]
struct Flying {
    messages: usize,
    with_endings: usize,
}

impl Flying {
    fn lets_go(&self, urgency: Urgency) -> bool {
        match urgency {
            Urgency::Start => self.messages == 0,
            Urgency::Ending => self.with_endings == 0,
            Urgency::Now => self.messages < IN_FLIGHT,
        }
    }

    fn left(&mut self, message: &Message) {
        self.messages += 1;
        self.with_endings += usize::from(!message.ends.is_empty());
    }

    fn landed(&mut self, message: &Message) {
        self.messages -= 1;
        self.with_endings -= usize::from(!message.ends.is_empty());
    }
}

/// One message: a batch of events as JSON.
#[derive(Debug)]
struct Message {
    body: String,
    /// The dispatches that end with it.
    ends: Vec<Dispatch>,
}

/// The events that have not left yet, oldest first.
#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    endings: usize,
    now: usize,
    /// Starts of attempts that have not run long, with the time at which they have.
    young: VecDeque<(Instant, Event)>,
}

impl Waiting {
    fn count(&mut self, urgency: Urgency) -> Option<&mut usize> {
        match urgency {
            Urgency::Start => None,
            Urgency::Ending => Some(&mut self.endings),
            Urgency::Now => Some(&mut self.now),
        }
    }

    fn push(&mut self, event: Event, now: Instant) {
        match &event {
            Event::Started(_) => {
                return self.young.push_back((now + WORTH_TELLING, event));
            }
            // It tells its start.
            Event::Finished(finished) => drop(self.take_young(finished.dispatch)),
            // It does not.
            Event::Requeued { dispatch, .. } => {
                if let Some(start) = self.take_young(*dispatch) {
                    self.line_up(start);
                }
            }
            Event::Bounced { .. } | Event::Renew(_) | Event::Barrier { .. } => {}
        }
        self.line_up(event);
    }

    fn take_young(&mut self, of: Dispatch) -> Option<Event> {
        let is_of = |event: &Event| matches!(event, Event::Started(start) if start.dispatch == of);
        let at = self.young.iter().position(|(_, event)| is_of(event))?;
        self.young.remove(at).map(|(_, event)| event)
    }

    fn line_up(&mut self, event: Event) {
        if let Some(count) = self.count(Urgency::of(&event)) {
            *count += 1;
        }
        self.events.push_back(event);
    }

    fn pop(&mut self) {
        if let Some(event) = self.events.pop_front()
            && let Some(count) = self.count(Urgency::of(&event))
        {
            *count -= 1;
        }
    }

    /// When the next start is worth telling.
    fn next_start(&self) -> Option<Instant> {
        self.young.front().map(|(at, _)| *at)
    }

    fn urgency(&self) -> Option<Urgency> {
        match (self.now, self.endings, self.events.len()) {
            (_, _, 0) => None,
            (0, 0, _) => Some(Urgency::Start),
            (0, _, _) => Some(Urgency::Ending),
            _ => Some(Urgency::Now),
        }
    }

    /// The next message, as far as one may leave at `now` and with all that fits into it.
    ///
    /// An attempt's result tells its start too: a start whose result is here is not told by itself, which would cost the
    /// scheduler as much as the result does.
    fn next(&mut self, flying: &Flying, now: Instant) -> Option<Message> {
        while let Some((_, start)) = self.young.pop_front_if(|(at, _)| *at <= now) {
            self.line_up(start);
        }
        if !flying.lets_go(self.urgency()?) {
            return None;
        }
        let finished: HashSet<Dispatch> = self
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Finished(finished) => Some(finished.dispatch),
                _ => None,
            })
            .collect();
        let mut body = format!("{{\"v\":{VERSION},\"events\":[");
        let empty = body.len();
        let mut ends = Vec::new();
        while let Some(event) = self.events.front() {
            let ending = match event {
                Event::Started(started) if finished.contains(&started.dispatch) => {
                    self.pop();
                    continue;
                }
                Event::Finished(finished) => Some(finished.dispatch),
                Event::Requeued { dispatch, .. } => Some(*dispatch),
                _ => None,
            };
            let json = serde_json::to_string(event).unwrap_or_default();
            if body.len() > empty {
                // Two more bytes end the batch.
                if body.len() + json.len() + 3 > MAX_BODY {
                    break;
                }
                body.push(',');
            }
            body.push_str(&json);
            ends.extend(ending);
            self.pop();
        }
        body.push_str("]}");
        debug_assert!(serde_json::from_str::<EventBatch>(&body).is_ok());
        Some(Message { body, ends })
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
    let mut waiting = Waiting::default();
    let mut flying = Flying::default();
    let mut publishing = FuturesUnordered::new();
    let mut releasing = FuturesUnordered::new();
    let mut open = true;
    loop {
        let now = Instant::now();
        while let Ok(event) = events.try_recv() {
            waiting.push(event, now);
        }
        while let Some(message) = waiting.next(&flying, now) {
            flying.left(&message);
            publishing.push(publish(&*broker, shard, message));
        }
        let start = waiting.next_start();
        tokio::select! {
            event = events.recv(), if open => match event {
                Some(event) => waiting.push(event, Instant::now()),
                None => open = false,
            },
            () = tokio::time::sleep_until(start.unwrap_or(now)), if start.is_some() => {}
            Some(message) = publishing.next() => {
                flying.landed(&message);
                if !message.ends.is_empty() {
                    held.remove(&message.ends);
                    let ended: Vec<(i64, i64)> =
                        message.ends.iter().map(|d| (d.ti.0, d.fence.0)).collect();
                    let (presence, incarnation) = (&presence, &incarnation);
                    releasing.push(async move { release(&**presence, incarnation, &ended).await });
                }
            }
            Some(()) = releasing.next() => {}
            else => break,
        }
    }
}

/// Lets claims go, however long presence is away: renewals keep the records of what a living worker holds.
pub(crate) async fn release(presence: &dyn Presence, incarnation: &str, ended: &[(i64, i64)]) {
    if gristmill_common::fault::misbehaves("leak-claim") {
        return;
    }
    let mut wait = Duration::from_millis(50);
    while let Err(error) = presence.release(incarnation, ended).await {
        tracing::debug!(%error, "claims not released; trying again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Publishes one message until the broker has confirmed it.
async fn publish(broker: &dyn Broker, shard: u32, message: Message) -> Message {
    if !message.ends.is_empty() {
        gristmill_common::fault_point!("after-exit-before-confirmed");
    }
    let mut wait = Duration::from_millis(50);
    loop {
        let body = message.body.clone();
        let outcomes = broker
            .publish(vec![Publication::new(Target::Events(shard), body)])
            .await;
        match outcomes.first() {
            Some(PublishOutcome::Confirmed) => return message,
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
    use gristmill_presence::{MemoryPresence, PresenceConfig, Restore, WorkerInfo};

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

    fn requeued(ti: i64) -> Event {
        Event::Requeued {
            run: RunPk(1),
            dispatch: dispatch(ti),
            reason: "x".repeat(100),
        }
    }

    /// Events that came so long ago that every start among them is worth telling now.
    fn waiting(events: impl IntoIterator<Item = Event>) -> Waiting {
        let mut waiting = Waiting::default();
        let then = Instant::now() - WORTH_TELLING;
        events
            .into_iter()
            .for_each(|event| waiting.push(event, then));
        waiting
    }

    fn next(waiting: &mut Waiting, flying: &Flying) -> Option<Message> {
        waiting.next(flying, Instant::now())
    }

    fn read(message: &Message) -> Vec<Event> {
        let batch: EventBatch = serde_json::from_str(&message.body).unwrap();
        batch.events
    }

    fn starts(message: &Message) -> Vec<i64> {
        let events = read(message).into_iter();
        events
            .filter_map(|event| match event {
                Event::Started(started) => Some(started.dispatch.ti.0),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn only_a_start_whose_result_goes_along_is_left_out() {
        let events = [started(1), started(2), started(3), finished(1), requeued(3)];
        let mut waiting = waiting(events);
        let message = next(&mut waiting, &Flying::default()).unwrap();
        assert_eq!(starts(&message), [3, 2]);
        assert_eq!(message.ends, [dispatch(1), dispatch(3)]);
        assert!(next(&mut waiting, &Flying::default()).is_none());
    }

    #[test]
    fn a_fan_out_gathers_behind_what_is_on_its_way_and_a_chain_waits_for_nothing() {
        let mut flying = Flying::default();
        // A chain: the start leaves, the ending overtakes it.
        let mut one = waiting([started(1)]);
        flying.left(&next(&mut one, &flying).unwrap());
        one.push(finished(1), Instant::now());
        let ending = next(&mut one, &flying).unwrap();
        flying.left(&ending);
        // Meanwhile a hundred tasks start and end: not one message before the confirm, then one for all.
        for ti in 2..102 {
            one.push(started(ti), Instant::now());
            assert!(next(&mut one, &flying).is_none());
            one.push(finished(ti), Instant::now());
            assert!(next(&mut one, &flying).is_none());
        }
        flying.landed(&ending);
        let all = next(&mut one, &flying).unwrap();
        assert_eq!((all.ends.len(), starts(&all)), (100, vec![]));
    }

    #[test]
    fn a_start_is_told_once_its_attempt_has_run_for_a_while() {
        let mut waiting = Waiting::default();
        let then = Instant::now();
        waiting.push(started(1), then);
        waiting.push(started(2), then);
        waiting.push(started(3), then);
        assert!(waiting.next(&Flying::default(), then).is_none());
        // A result tells its start; what was requeued does not, and comes after it.
        waiting.push(finished(1), then);
        waiting.push(requeued(2), then);
        let message = waiting.next(&Flying::default(), then).unwrap();
        let told: Vec<_> = read(&message).iter().map(Urgency::of).collect();
        assert_eq!(told, [Urgency::Ending, Urgency::Start, Urgency::Ending]);
        assert_eq!(waiting.next_start(), Some(then + WORTH_TELLING));
        let message = waiting
            .next(&Flying::default(), then + WORTH_TELLING)
            .unwrap();
        assert_eq!(starts(&message), [3]);
        assert_eq!(waiting.next_start(), None);
    }

    #[test]
    fn a_start_waits_and_what_is_urgent_does_not() {
        let mut flying = Flying::default();
        let ending = next(&mut waiting([finished(1)]), &flying).unwrap();
        flying.left(&ending);
        let mut later = waiting([started(2)]);
        assert!(next(&mut later, &flying).is_none());
        let renewal = Event::Renew(RenewRequest {
            incarnation: "w".to_owned(),
            sent_at: 1,
            lease_ms: 1,
        });
        later.push(renewal, Instant::now());
        assert_eq!(read(&next(&mut later, &flying).unwrap()).len(), 2);
    }

    #[test]
    fn messages_keep_their_limit_and_the_order() {
        let mut waiting = waiting((0..2000).map(requeued));
        let mut ends = Vec::new();
        while let Some(message) = next(&mut waiting, &Flying::default()) {
            assert!(message.body.len() <= MAX_BODY);
            assert!(message.body.len() > MAX_BODY / 2 || ends.len() + message.ends.len() == 2000);
            assert_eq!(read(&message).len(), message.ends.len());
            ends.extend(message.ends);
        }
        assert_eq!(ends, (0..2000).map(dispatch).collect::<Vec<_>>());
    }

    /// Renewals keep the record of a claim that a living worker has, so one that was never released would stay for ever.
    #[tokio::test]
    async fn a_claim_is_let_go_once_presence_is_back() {
        let presence = MemoryPresence::new(PresenceConfig::default());
        let info = WorkerInfo {
            incarnation: "w".to_owned(),
            name: "w".to_owned(),
            hostname: "h".to_owned(),
            pid: 1,
            queues: Vec::new(),
            slots: 1,
            version: String::new(),
            started_at: chrono::DateTime::UNIX_EPOCH,
        };
        let minute = Duration::from_secs(60);
        let epoch = presence.register(&info, minute).await.unwrap();
        let restored = presence.restore(&info, epoch, &[(7, 1)], minute).await;
        assert!(matches!(restored, Ok(Restore::Restored { .. })));
        let faults = presence.faults();
        faults.unavailable(true);
        let release = tokio::spawn({
            let presence = presence.clone();
            async move { release(&presence, "w", &[(7, 1)]).await }
        });
        tokio::task::yield_now().await;
        assert!(!release.is_finished());
        faults.unavailable(false);
        release.await.unwrap();
        let holders = presence.holders(&[(7, 1)]).await.unwrap().holders;
        assert!(
            holders.iter().flatten().all(|holder| holder.released),
            "{holders:?}"
        );
    }
}
