//! One queue: its ready messages, its consumers in turn, and what they hold.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::broker::{ConsumerState, ConsumerStatus};
use crate::message::{ConsumerEvent, Death, Delivery, DeliveryTag, Headers, Publication, Source};

/// Which queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A queue that anybody may use.
    Shared(Source),
    /// The queue of one control subscription.
    Control(u64),
}

/// A stored message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    body: Bytes,
    headers: Headers,
    expires_at: Option<Instant>,
    redelivered: bool,
    death: Option<Death>,
    /// Its place in the queue; a message that is given back returns to it.
    sequence: u64,
}

impl Message {
    pub(super) fn new(publication: Publication) -> Self {
        Self {
            body: publication.body,
            headers: publication.headers,
            // An expiration beyond what the clock can express is none.
            expires_at: publication
                .expiration
                .and_then(|after| Instant::now().checked_add(after)),
            redelivered: false,
            death: None,
            sequence: 0,
        }
    }

    /// The same message on its way to the dead queue.
    pub(super) fn die(self, reason: &str, source: Option<Source>) -> Self {
        Self {
            expires_at: None,
            redelivered: false,
            death: Some(Death {
                reason: reason.to_owned(),
                source,
            }),
            ..self
        }
    }
}

/// The queue's end of a consumer.
#[derive(Debug)]
struct Member {
    prefetch: usize,
    inbox: mpsc::UnboundedSender<ConsumerEvent>,
    state: watch::Sender<ConsumerState>,
    unsettled: BTreeMap<DeliveryTag, Message>,
    epoch: u32,
    next_number: u64,
}

impl Member {
    fn deliver(&mut self, message: Message) {
        let tag = DeliveryTag {
            epoch: self.epoch,
            number: self.next_number,
        };
        self.next_number += 1;
        let delivery = Delivery {
            tag,
            body: message.body.clone(),
            headers: message.headers.clone(),
            redelivered: message.redelivered,
            death: message.death.clone(),
        };
        self.unsettled.insert(tag, message);
        // A closed inbox means that the consumer is being dropped, which gives back what it holds.
        drop(self.inbox.send(ConsumerEvent::Delivery(delivery)));
    }

    fn set_status(&self, status: ConsumerStatus, last_error: Option<String>) {
        self.state
            .send_replace(ConsumerState::new(status, last_error));
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    ready: VecDeque<Message>,
    single_active: bool,
    max_length: usize,
    members: HashMap<u64, Member>,
    /// The registered (not paused) members, the next to be served first.
    turns: VecDeque<u64>,
    next_sequence: u64,
    /// When the armed expiry timer fires.
    pub(super) timer: Option<Instant>,
    /// Fault: this many more messages are stored twice.
    pub(super) duplicate: usize,
    /// Fault: this many more messages are held back, to be stored in reverse.
    pub(super) reorder: usize,
    held_back: Vec<Message>,
}

impl Queue {
    pub(super) fn new(single_active: bool, max_length: usize) -> Self {
        Self {
            ready: VecDeque::new(),
            single_active,
            max_length,
            members: HashMap::new(),
            turns: VecDeque::new(),
            next_sequence: 0,
            timer: None,
            duplicate: 0,
            reorder: 0,
            held_back: Vec::new(),
        }
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn registered(&self) -> usize {
        self.turns.len()
    }

    /// Stores a message at the end.
    pub(super) fn push(&mut self, message: Message) {
        if self.reorder > 0 {
            self.reorder -= 1;
            self.held_back.push(message);
            if self.reorder == 0 {
                while let Some(message) = self.held_back.pop() {
                    self.append(message);
                }
            }
            return;
        }
        if self.duplicate > 0 {
            self.duplicate -= 1;
            self.append(message.clone());
        }
        self.append(message);
    }

    fn append(&mut self, mut message: Message) {
        if self.ready.len() >= self.max_length {
            self.ready.pop_front();
        }
        message.sequence = self.next_sequence;
        self.next_sequence += 1;
        self.ready.push_back(message);
    }

    fn requeue(&mut self, mut message: Message) {
        message.redelivered = true;
        let place = self
            .ready
            .partition_point(|other| other.sequence < message.sequence);
        self.ready.insert(place, message);
    }

    pub(super) fn purge(&mut self) -> usize {
        let count = self.ready.len();
        self.ready.clear();
        count
    }

    /// Hands out what consumers have room for. Returns what has expired at the head.
    pub(super) fn dispatch(&mut self, now: impl Fn() -> Instant) -> Vec<Message> {
        let mut expired = Vec::new();
        while let Some(head) = self.ready.front() {
            if head.expires_at.is_some_and(|at| at <= now()) {
                expired.extend(self.ready.pop_front());
                continue;
            }
            let Some(turn) = self.next_turn() else { break };
            let id = self.turns[turn];
            if let (Some(member), Some(message)) =
                (self.members.get_mut(&id), self.ready.pop_front())
            {
                member.deliver(message);
            }
            if !self.single_active {
                self.turns.rotate_left(turn + 1);
            }
        }
        expired
    }

    /// The first member in turn that has room.
    fn next_turn(&self) -> Option<usize> {
        let candidates = if self.single_active {
            self.turns.len().min(1)
        } else {
            self.turns.len()
        };
        (0..candidates).find(|&turn| {
            self.members
                .get(&self.turns[turn])
                .is_some_and(|member| member.unsettled.len() < member.prefetch)
        })
    }

    /// When the message at the head expires.
    pub(super) fn head_expiry(&self) -> Option<Instant> {
        self.ready.front()?.expires_at
    }

    pub(super) fn join(
        &mut self,
        id: u64,
        prefetch: u16,
        inbox: mpsc::UnboundedSender<ConsumerEvent>,
        state: watch::Sender<ConsumerState>,
    ) {
        let member = Member {
            prefetch: usize::from(prefetch.max(1)),
            inbox,
            state,
            unsettled: BTreeMap::new(),
            epoch: 0,
            next_number: 1,
        };
        self.members.insert(id, member);
    }

    /// Registers a member, last in turn. Nothing happens if it is registered.
    pub(super) fn register(&mut self, id: u64) {
        if let Some(member) = self.members.get(&id)
            && !self.turns.contains(&id)
        {
            member.set_status(ConsumerStatus::Registered, None);
            self.turns.push_back(id);
        }
    }

    /// Notes that a member wants deliveries, while there is no connection.
    pub(super) fn await_connection(&mut self, id: u64, reason: Option<String>) {
        if let Some(member) = self.members.get(&id) {
            member.set_status(ConsumerStatus::Connecting, reason);
        }
    }

    pub(super) fn set_prefetch(&mut self, id: u64, prefetch: u16) {
        if let Some(member) = self.members.get_mut(&id) {
            member.prefetch = usize::from(prefetch.max(1));
        }
    }

    pub(super) fn pause(&mut self, id: u64) {
        self.turns.retain(|other| *other != id);
        if let Some(member) = self.members.get(&id) {
            member.set_status(ConsumerStatus::Paused, None);
        }
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.turns.retain(|other| *other != id);
        if let Some(member) = self.members.remove(&id) {
            for message in member.unsettled.into_values() {
                self.requeue(message);
            }
        }
    }

    /// Ends the member's channel: it loses what it holds and is told so.
    pub(super) fn reset(&mut self, id: u64, reason: &str) {
        self.turns.retain(|other| *other != id);
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.epoch += 1;
        member.next_number = 1;
        if member.state.borrow().status != ConsumerStatus::Paused {
            member.set_status(ConsumerStatus::Connecting, Some(reason.to_owned()));
        }
        let reset = ConsumerEvent::Reset {
            reason: reason.to_owned(),
        };
        drop(member.inbox.send(reset));
        for message in std::mem::take(&mut member.unsettled).into_values() {
            self.requeue(message);
        }
    }

    /// Members that want deliveries, oldest first.
    pub(super) fn wanting(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self
            .members
            .iter()
            .filter(|(_, member)| member.state.borrow().status != ConsumerStatus::Paused)
            .map(|(id, _)| *id)
            .collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn member_ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.members.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn settle(&mut self, id: u64, tag: DeliveryTag) -> Option<Message> {
        self.members.get_mut(&id)?.unsettled.remove(&tag)
    }

    /// Settles this and every earlier delivery of the same epoch.
    pub(super) fn settle_through(&mut self, id: u64, tag: DeliveryTag) {
        if let Some(member) = self.members.get_mut(&id) {
            let mut later = member.unsettled.split_off(&tag);
            later.remove(&tag);
            member.unsettled = later;
        }
    }

    pub(super) fn give_back(&mut self, id: u64, tags: &[DeliveryTag]) {
        for tag in tags {
            if let Some(message) = self.settle(id, *tag) {
                self.requeue(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Target;

    #[test]
    fn what_is_given_back_returns_to_its_place() {
        let mut queue = Queue::new(false, usize::MAX);
        for body in ["a", "b", "c", "d"] {
            queue.push(Message::new(Publication::new(Target::Dead, body)));
        }
        let (inbox, mut events) = mpsc::unbounded_channel();
        let state = watch::Sender::new(ConsumerState::new(ConsumerStatus::Connecting, None));
        queue.join(1, 3, inbox, state);
        queue.register(1);
        assert!(queue.dispatch(Instant::now).is_empty());
        queue.pause(1);
        let mut tags = Vec::new();
        while let Ok(ConsumerEvent::Delivery(delivery)) = events.try_recv() {
            tags.push(delivery.tag);
        }
        assert_eq!(tags.len(), 3);
        queue.give_back(1, &[tags[2], tags[0]]);
        let bodies: Vec<&[u8]> = queue
            .ready
            .iter()
            .map(|message| &message.body[..])
            .collect();
        assert_eq!(bodies, [b"a", b"c", b"d"]);
    }
}
