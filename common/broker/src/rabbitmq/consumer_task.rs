//! The background half of a consumer: registers it, forwards deliveries, and rebuilds it for as long as it is wanted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::broker::{ConsumerState, ConsumerStatus};
use crate::message::{ConsumerEvent, Source};
use crate::names::{CONTROL_ALL, CONTROL_EXCHANGE, control_key, queue_name};
use crate::rabbitmq::backoff::Backoff;
use crate::rabbitmq::codec;
use crate::rabbitmq::link::{Link, Session};
use crate::rabbitmq::topology::Topology;

/// How long the broker may take to register or cancel a consumer.
const RPC_TIMEOUT: Duration = Duration::from_secs(10);
/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Control messages that may wait for one subscriber; the oldest go first.
const CONTROL_QUEUE_LENGTH: i64 = 10_000;

/// What is consumed.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// A shared queue.
    Queue(Source),
    /// A queue of this consumer's own, bound to the control messages for this incarnation and for all.
    Control { incarnation: String },
}

/// What the handle asks of the task. Each is answered when done.
#[derive(Debug)]
pub(super) enum Command {
    Pause(oneshot::Sender<()>),
    Resume(u16, oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// What handle and task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: watch::Sender<ConsumerState>,
    /// The live channel with its epoch; `None` while rebuilding.
    live: Mutex<Option<(u32, Channel)>>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(ConsumerState::new(ConsumerStatus::Connecting, None)),
            live: Mutex::new(None),
        }
    }

    /// The channel, if it is live and still the one of this epoch.
    pub(super) fn channel_of(&self, epoch: u32) -> Option<Channel> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.as_ref()
            .filter(|(current, _)| *current == epoch)
            .map(|(_, channel)| channel.clone())
    }

    fn set_live(&self, live: Option<(u32, Channel)>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }

    fn set_status(&self, status: ConsumerStatus, last_error: Option<String>) {
        self.state
            .send_replace(ConsumerState::new(status, last_error));
    }
}

/// An open channel, with the consumer on it unless paused.
struct Registration {
    session: Arc<Session>,
    channel: Channel,
    queue: ShortString,
    stream: Option<lapin::Consumer>,
}

/// How serving a registration ended.
enum End {
    Lost(String),
    Closed,
}

/// What it takes to register a consumer.
pub(super) struct Registrar {
    pub(super) link: Arc<Link>,
    pub(super) topology: Arc<Topology>,
    pub(super) origin: Origin,
}

pub(super) struct ConsumerTask {
    pub(super) registrar: Registrar,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) events: mpsc::UnboundedSender<ConsumerEvent>,
    /// `None` while paused.
    pub(super) prefetch: Option<u16>,
    pub(super) epoch: u32,
}

impl ConsumerTask {
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let registration = tokio::select! {
                biased;
                command = self.commands.recv() => {
                    if self.command_while_down(command) { continue } else { return }
                }
                // Without a prefetch there is nothing to register: wait for a command.
                registration = self.registrar.register(self.prefetch.unwrap_or(1)), if self.prefetch.is_some() => registration,
            };
            match registration {
                Ok(registration) => {
                    backoff.reset();
                    match self.serve(registration).await {
                        End::Closed => return,
                        End::Lost(reason) => {
                            self.shared.set_live(None);
                            self.epoch += 1;
                            // Before the event: who has seen the reset must not see the old state.
                            self.set_down(reason.clone());
                            if self.events.send(ConsumerEvent::Reset { reason }).is_err() {
                                return;
                            }
                        }
                    }
                }
                Err(reason) => {
                    tracing::warn!(origin = ?self.registrar.origin, reason, "cannot register a consumer; trying again");
                    self.set_down(reason);
                }
            }
            let wait = tokio::time::sleep(backoff.next_wait());
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    () = &mut wait => break,
                    command = self.commands.recv() => {
                        if !self.command_while_down(command) { return }
                    }
                }
            }
        }
    }

    fn set_down(&self, reason: String) {
        let status = match self.prefetch {
            Some(_) => ConsumerStatus::Connecting,
            None => ConsumerStatus::Paused,
        };
        self.shared.set_status(status, Some(reason));
    }

    /// Handles a command while there is no channel. False if the consumer is to end.
    fn command_while_down(&mut self, command: Option<Command>) -> bool {
        let (prefetch, status, done) = match command {
            Some(Command::Pause(done)) => (None, ConsumerStatus::Paused, done),
            Some(Command::Resume(prefetch, done)) => {
                (Some(prefetch), ConsumerStatus::Connecting, done)
            }
            Some(Command::Close(done)) => {
                answer(done);
                return false;
            }
            None => return false,
        };
        self.prefetch = prefetch;
        let last_error = self.shared.state.borrow().last_error.clone();
        self.shared.set_status(status, last_error);
        answer(done);
        true
    }

    async fn serve(&mut self, mut registration: Registration) -> End {
        let link = Arc::clone(&self.registrar.link);
        let session = Arc::clone(&registration.session);
        let lost = link.wait_lost(&session);
        tokio::pin!(lost);
        self.shared
            .set_live(Some((self.epoch, registration.channel.clone())));
        self.shared.set_status(ConsumerStatus::Registered, None);
        loop {
            let next = async {
                match &mut registration.stream {
                    Some(stream) => stream.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                reason = &mut lost => return End::Lost(reason),
                command = self.commands.recv() => {
                    if let Some(end) = self.command(&mut registration, command).await {
                        return end;
                    }
                }
                item = next => {
                    if let Err(end) = self.forward(item) {
                        return end;
                    }
                    // More may have come with it.
                    while let Some(item) = registration.buffered() {
                        if let Err(end) = self.forward(item) {
                            return end;
                        }
                    }
                }
            }
        }
    }

    fn forward(&self, item: Option<lapin::Result<lapin::message::Delivery>>) -> Result<(), End> {
        let delivery = match item {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(End::Lost(error.to_string())),
            None => {
                return Err(End::Lost(
                    "the broker cancelled the consumer; was its queue deleted?".to_owned(),
                ));
            }
        };
        let event = ConsumerEvent::Delivery(codec::delivery(self.epoch, delivery));
        // Refused only if the handle was dropped; then the command side closes the channel, which requeues it.
        drop(self.events.send(event));
        Ok(())
    }

    /// Handles a command while the channel is open. Some if that ends the registration.
    async fn command(
        &mut self,
        registration: &mut Registration,
        command: Option<Command>,
    ) -> Option<End> {
        match command {
            Some(Command::Pause(done)) => {
                self.prefetch = None;
                let paused = timeout(RPC_TIMEOUT, registration.cancel()).await;
                let end = match paused {
                    Ok(Ok(buffered)) => {
                        for delivery in buffered {
                            registration.give_back(delivery.delivery_tag);
                        }
                        self.shared.set_status(ConsumerStatus::Paused, None);
                        None
                    }
                    Ok(Err(error)) => Some(End::Lost(error.to_string())),
                    Err(_) => Some(End::Lost(
                        "the broker did not answer basic.cancel".to_owned(),
                    )),
                };
                answer(done);
                end
            }
            Some(Command::Resume(prefetch, done)) => {
                self.prefetch = Some(prefetch);
                // A prefetch holds for consumers registered after it was set.
                let resumed = timeout(RPC_TIMEOUT, async {
                    let buffered = registration.cancel().await?;
                    registration.consume(prefetch).await?;
                    Ok::<_, lapin::Error>(buffered)
                })
                .await;
                let end = match resumed {
                    Ok(Ok(buffered)) => {
                        self.shared.set_status(ConsumerStatus::Registered, None);
                        let forwarded = buffered
                            .into_iter()
                            .try_for_each(|delivery| self.forward(Some(Ok(delivery))));
                        forwarded.err()
                    }
                    Ok(Err(error)) => Some(End::Lost(error.to_string())),
                    Err(_) => Some(End::Lost(
                        "the broker did not answer basic.consume".to_owned(),
                    )),
                };
                answer(done);
                end
            }
            Some(Command::Close(done)) => {
                registration.close().await;
                answer(done);
                Some(End::Closed)
            }
            // The handle was dropped.
            None => {
                registration.close().await;
                Some(End::Closed)
            }
        }
    }
}

impl Registrar {
    async fn register(&self, prefetch: u16) -> Result<Registration, String> {
        let session = self.link.session().await;
        let register = async {
            if let Origin::Queue(source) = &self.origin {
                let mut declarer = session.declarer();
                declarer.queue(&self.topology, source).await?;
                declarer.close().await;
            }
            let channel = session.open_channel().await?;
            let queue = self.queue(&channel).await?;
            let mut registration = Registration {
                session: Arc::clone(&session),
                channel,
                queue,
                stream: None,
            };
            registration.consume(prefetch).await?;
            Ok::<_, lapin::Error>(registration)
        };
        match timeout(RPC_TIMEOUT, register).await {
            Ok(registered) => registered.map_err(|error| error.to_string()),
            Err(_) => Err(format!(
                "the broker did not register the consumer within {RPC_TIMEOUT:?}"
            )),
        }
    }

    /// The queue to consume; a control queue is made here.
    async fn queue(&self, channel: &Channel) -> lapin::Result<ShortString> {
        let incarnation = match &self.origin {
            Origin::Queue(source) => return Ok(queue_name(source).into()),
            Origin::Control { incarnation } => incarnation,
        };
        // A new name each time: the broker may not have noticed yet that the connection that owned the last one is gone.
        let name: ShortString = format!("gm.control.{}", uuid::Uuid::new_v4().simple()).into();
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-max-length".into(),
            AMQPValue::LongLongInt(CONTROL_QUEUE_LENGTH),
        );
        let options = QueueDeclareOptions::exclusive().auto_delete();
        channel
            .queue_declare(name.clone(), options, arguments)
            .await?;
        for key in [control_key(incarnation), CONTROL_ALL.to_owned()] {
            channel
                .queue_bind(
                    name.clone(),
                    CONTROL_EXCHANGE.into(),
                    key.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
        }
        Ok(name)
    }
}

impl Registration {
    async fn consume(&mut self, prefetch: u16) -> lapin::Result<()> {
        self.channel
            .basic_qos(prefetch, BasicQosOptions { global: false })
            .await?;
        let consumer = self
            .channel
            .basic_consume(
                self.queue.clone(),
                ShortString::default(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        self.stream = Some(consumer);
        Ok(())
    }

    /// Cancels the consumer and returns what it had received but not passed on.
    async fn cancel(&mut self) -> lapin::Result<Vec<lapin::message::Delivery>> {
        let Some(mut stream) = self.stream.take() else {
            return Ok(Vec::new());
        };
        self.channel
            .basic_cancel(stream.tag(), BasicCancelOptions::default())
            .await?;
        let mut buffered = Vec::new();
        // The stream ends once the broker has confirmed, after the last delivery.
        while let Some(delivery) = stream.next().await {
            buffered.push(delivery?);
        }
        Ok(buffered)
    }

    /// The next delivery that is here already.
    fn buffered(&mut self) -> Option<Option<lapin::Result<lapin::message::Delivery>>> {
        self.stream.as_mut()?.next().now_or_never()
    }

    fn give_back(&self, tag: u64) {
        send_nack(&self.channel, tag);
    }

    async fn close(&self) {
        let closing = self.channel.close(200, "consumer closed".into());
        match timeout(CLOSE_TIMEOUT, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "closing a consumer's channel"),
            Err(_) => tracing::debug!("the broker did not answer channel.close"),
        }
    }
}

/// Queues a requeueing basic.nack. What is queued is sent in order; an error means that the channel is lost, and the message is requeued anyway.
pub(super) fn send_nack(channel: &Channel, tag: u64) {
    let options = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    drop(channel.basic_nack(tag, options).now_or_never());
}

/// The caller may have stopped waiting, which is its right.
fn answer(done: oneshot::Sender<()>) {
    let _ = done.send(());
}
