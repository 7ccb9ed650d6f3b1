//! The handle of a consumer.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use lapin::options::BasicAckOptions;
use tokio::sync::{mpsc, oneshot, watch};

use crate::broker::{Consumer, ConsumerState};
use crate::error::BrokerError;
use crate::message::{
    ConsumerEvent, Delivery, DeliveryTag, Publication, PublishOutcome, Source, Target,
};
use crate::names::{HEADER_DEATH_QUEUE, HEADER_DEATH_REASON, queue_name};
use crate::rabbitmq::consumer_task::{Command, ConsumerTask, Origin, Registrar, Shared, send_nack};
use crate::rabbitmq::link::Link;
use crate::rabbitmq::publisher::Publisher;
use crate::rabbitmq::topology::Topology;

/// A consumer of one queue. The task behind it ends when this is dropped.
#[derive(Debug)]
pub(super) struct QueueConsumer {
    source: Option<Source>,
    publisher: Arc<Publisher>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    /// At most `prefetch` deliveries wait here.
    events: mpsc::UnboundedReceiver<ConsumerEvent>,
    /// Events taken out of `events` ahead of their turn.
    put_back: VecDeque<ConsumerEvent>,
    /// What was handed out and not settled. Settling anything else would make the broker close the channel.
    unsettled: BTreeSet<DeliveryTag>,
}

impl QueueConsumer {
    pub(super) fn start(
        link: Arc<Link>,
        topology: Arc<Topology>,
        publisher: Arc<Publisher>,
        origin: Origin,
        prefetch: u16,
    ) -> Self {
        let source = match &origin {
            Origin::Queue(source) => Some(source.clone()),
            Origin::Control { .. } => None,
        };
        let shared = Arc::new(Shared::new());
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (event_sender, events) = mpsc::unbounded_channel();
        let task = ConsumerTask {
            registrar: Registrar {
                link,
                topology,
                origin,
            },
            shared: Arc::clone(&shared),
            commands: command_receiver,
            events: event_sender,
            prefetch: Some(prefetch),
            epoch: 0,
        };
        tokio::spawn(task.run());
        Self {
            source,
            publisher,
            shared,
            commands,
            events,
            put_back: VecDeque::new(),
            unsettled: BTreeSet::new(),
        }
    }

    /// Notes what is handed out.
    fn hand_out(&mut self, event: ConsumerEvent) -> ConsumerEvent {
        match &event {
            ConsumerEvent::Delivery(delivery) => {
                self.unsettled.insert(delivery.tag);
            }
            ConsumerEvent::Reset { .. } => self.unsettled.clear(),
        }
        event
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, answer) = oneshot::channel();
        if self.commands.send(command(done)).is_ok() {
            // An error means that the task has ended, with the runtime: there is nothing left to wait for.
            drop(answer.await);
        }
    }

    fn send_ack(&self, tag: DeliveryTag, multiple: bool) {
        if let Some(channel) = self.shared.channel_of(tag.epoch) {
            // The first poll queues the frame, and frames are sent in order. An error means that the channel is
            // lost: the message comes again, after a reset.
            let options = BasicAckOptions { multiple };
            drop(channel.basic_ack(tag.number, options).now_or_never());
        }
    }
}

/// Takes these tags out of the unsettled ones and says how to acknowledge them: those below which nothing stays unsettled
/// by one frame (`true`), the others by one each. The broker works for every frame.
fn ack_frames(
    unsettled: &mut BTreeSet<DeliveryTag>,
    tags: &[DeliveryTag],
) -> Vec<(DeliveryTag, bool)> {
    let mut settled: Vec<_> = tags
        .iter()
        .copied()
        .filter(|tag| unsettled.remove(tag))
        .collect();
    settled.sort_unstable();
    let oldest_left = unsettled.first();
    let together = settled.partition_point(|tag| oldest_left.is_none_or(|left| tag < left));
    let rest = settled.split_off(together);
    let first = settled.last().map(|last| (*last, settled.len() > 1));
    first
        .into_iter()
        .chain(rest.into_iter().map(|tag| (tag, false)))
        .collect()
}

#[async_trait]
impl Consumer for QueueConsumer {
    async fn next(&mut self) -> ConsumerEvent {
        if let Some(event) = self.try_next() {
            return event;
        }
        match self.events.recv().await {
            Some(event) => self.hand_out(event),
            // The task ends before its handle only with the runtime.
            None => std::future::pending().await,
        }
    }

    fn try_next(&mut self) -> Option<ConsumerEvent> {
        let event = match self.put_back.pop_front() {
            Some(event) => event,
            None => self.events.try_recv().ok()?,
        };
        Some(self.hand_out(event))
    }

    fn ack(&mut self, tags: &[DeliveryTag]) {
        for (tag, multiple) in ack_frames(&mut self.unsettled, tags) {
            self.send_ack(tag, multiple);
        }
    }

    fn ack_through(&mut self, tag: DeliveryTag) {
        let Some(&last) = self.unsettled.range(..=tag).next_back() else {
            return;
        };
        // Everything up to `last` is settled now, also what was given back: the broker knows.
        self.unsettled = self.unsettled.split_off(&tag);
        self.unsettled.remove(&tag);
        self.send_ack(last, true);
    }

    fn give_back(&mut self, tags: &[DeliveryTag]) {
        for tag in tags {
            if self.unsettled.remove(tag)
                && let Some(channel) = self.shared.channel_of(tag.epoch)
            {
                send_nack(&channel, tag.number);
            }
        }
    }

    async fn dead_letter(&mut self, delivery: &Delivery, reason: &str) -> Result<(), BrokerError> {
        let is_live = |consumer: &Self| {
            consumer.unsettled.contains(&delivery.tag)
                && consumer.shared.channel_of(delivery.tag.epoch).is_some()
        };
        if !is_live(self) {
            return Err(BrokerError::StaleDelivery);
        }
        let mut publication = Publication::new(Target::Dead, delivery.body.clone());
        publication.headers.clone_from(&delivery.headers);
        publication
            .headers
            .insert(HEADER_DEATH_REASON.to_owned(), reason.into());
        if let Some(source) = &self.source {
            publication
                .headers
                .insert(HEADER_DEATH_QUEUE.to_owned(), queue_name(source).into());
        }
        let outcome = self.publisher.publish(vec![publication]).await.pop();
        match outcome {
            Some(PublishOutcome::Confirmed) => {
                if !is_live(self) {
                    return Err(BrokerError::StaleDelivery);
                }
                self.ack(&[delivery.tag]);
                Ok(())
            }
            Some(PublishOutcome::Returned { reason }) => Err(BrokerError::DeadLetter(reason)),
            Some(PublishOutcome::Failed { reason, .. }) => {
                Err(BrokerError::DeadLetter(reason.to_string()))
            }
            None => Err(BrokerError::DeadLetter("no outcome".to_owned())),
        }
    }

    async fn pause(&mut self) {
        self.ask(Command::Pause).await;
        // What the task had passed on before the pause is given back too; resets stay to be seen.
        let mut kept = VecDeque::new();
        while let Some(event) = self
            .put_back
            .pop_front()
            .or_else(|| self.events.try_recv().ok())
        {
            match event {
                ConsumerEvent::Delivery(delivery) => {
                    if let Some(channel) = self.shared.channel_of(delivery.tag.epoch) {
                        send_nack(&channel, delivery.tag.number);
                    }
                }
                reset @ ConsumerEvent::Reset { .. } => kept.push_back(reset),
            }
        }
        self.put_back = kept;
    }

    async fn resume(&mut self, prefetch: u16) {
        self.ask(|done| Command::Resume(prefetch.max(1), done))
            .await;
    }

    fn watch_state(&self) -> watch::Receiver<ConsumerState> {
        self.shared.state.subscribe()
    }

    async fn close(self: Box<Self>) {
        self.ask(Command::Close).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: u64) -> DeliveryTag {
        DeliveryTag { epoch: 1, number }
    }

    #[test]
    fn one_frame_acknowledges_all_that_nothing_unsettled_precedes() {
        let mut unsettled: BTreeSet<_> = (1..=9).map(tag).collect();
        let mut frames = |numbers: &[u64]| {
            let tags: Vec<_> = numbers.iter().copied().map(tag).collect();
            ack_frames(&mut unsettled, &tags)
                .into_iter()
                .map(|(tag, multiple)| (tag.number, multiple))
                .collect::<Vec<_>>()
        };
        assert_eq!(frames(&[3, 1, 2, 2, 77]), [(3, true)]);
        assert_eq!(frames(&[4]), [(4, false)]);
        assert_eq!(frames(&[6, 8, 7]), [(6, false), (7, false), (8, false)]);
        assert_eq!(frames(&[6]), []);
        assert_eq!(frames(&[5, 9]), [(9, true)]);
    }
}
