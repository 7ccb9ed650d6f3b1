//! Messages that come twice, late and out of order, at the real broker.

use crate::{
    chaos::stage::Stage,
    error::{LoadError, Result},
};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
        BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const WORK_QUEUE: &str = "gm.work.default";
const EVENTS_PREFIX: &str = "gm.events.";
/// RabbitMQ copies what passes through a traced vhost to this exchange.
const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";
/// Copies kept for a later fault, at most.
const HOARD: usize = 500;
/// How long one call to the broker may take; the broker may be down or frozen by another fault.
const CALL: Duration = Duration::from_secs(5);

/// A message as it was published.
#[derive(Debug, Clone)]
struct Copy {
    queue: String,
    properties: BasicProperties,
    body: Vec<u8>,
}

/// Copies of messages from earlier faults, which come again when everybody has forgotten them.
#[derive(Debug, Default)]
pub(crate) struct Hoard(Mutex<Vec<Copy>>);

impl Hoard {
    fn keep(&self, copies: impl IntoIterator<Item = Copy>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(copies);
        let over = kept.len().saturating_sub(HOARD);
        kept.drain(..over);
    }

    /// Half of them, oldest first.
    fn take(&self) -> Vec<Copy> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let half = kept.len() / 2;
        kept.drain(..half).collect()
    }
}

/// Every message that waits is sent again; originals and copies come out of order. Some copies are kept for later.
pub(super) async fn duplicate_work(
    stage: &Stage,
    hoard: &Hoard,
    seed: usize,
    count: u16,
    lasts: Duration,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed as u64);
    repeat(lasts, async || {
        let link = Link::open(stage).await?;
        let taken = link.take(WORK_QUEUE, count).await?;
        let mut copies = copies_of(WORK_QUEUE, &taken);
        copies.shuffle(&mut rng);
        link.publish(&copies).await?;
        link.publish(&hoard.take()).await?;
        copies.truncate(copies.len() / 2);
        hoard.keep(copies);
        for message in taken {
            link.give_back(&message).await?;
        }
        link.close().await
    })
    .await;
    Ok(())
}

/// What waits at the head of the queue is sent again behind all others, shuffled, and only then taken away.
pub(super) async fn reorder_work(
    stage: &Stage,
    seed: usize,
    count: u16,
    lasts: Duration,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed as u64);
    repeat(lasts, async || {
        let link = Link::open(stage).await?;
        let mut taken = link.take(WORK_QUEUE, count).await?;
        taken.shuffle(&mut rng);
        // Held for a moment, so that messages behind them overtake even when nobody else waits.
        tokio::time::sleep(Duration::from_millis(100)).await;
        link.publish(&copies_of(WORK_QUEUE, &taken)).await?;
        for message in taken {
            link.ack(&message).await?;
        }
        link.close().await
    })
    .await;
    Ok(())
}

/// Copies of the events that workers send meanwhile come again: some at the end of the fault, in another order, some at
/// the end of a later one.
pub(super) async fn duplicate_events(
    stage: &Stage,
    hoard: &Hoard,
    seed: usize,
    lasts: Duration,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed as u64);
    let once = async {
        let link = Link::open(stage).await?;
        trace(stage, true).await?;
        let mut copies = link.overheard(lasts).await?;
        trace(stage, false).await?;
        copies.shuffle(&mut rng);
        link.publish(&copies).await?;
        link.publish(&hoard.take()).await?;
        copies.truncate(copies.len() / 2);
        hoard.keep(copies);
        link.close().await
    };
    // Without a broker there is nothing to copy: other faults hit it at the same time.
    let _: Result<()> = once.await;
    Ok(())
}

/// Again and again while the fault lasts. The broker may be away: then there is nothing to disturb.
async fn repeat(lasts: Duration, mut once: impl AsyncFnMut() -> Result<()>) {
    let start = Instant::now();
    loop {
        let _ = once().await;
        if start.elapsed() >= lasts {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn copies_of(queue: &str, messages: &[BasicGetMessage]) -> Vec<Copy> {
    let copy = |message: &BasicGetMessage| Copy {
        queue: queue.to_owned(),
        properties: message.properties.clone(),
        body: message.data.clone(),
    };
    messages.iter().map(copy).collect()
}

/// A connection to the broker, around all proxies.
struct Link {
    connection: Connection,
    channel: Channel,
}

impl Link {
    async fn open(stage: &Stage) -> Result<Self> {
        let url = stage.servers()?.amqp_url().to_owned();
        let open = async {
            let options = ConnectionProperties::default().with_connection_name("chaos".into());
            let connection = Connection::connect(&url, options).await?;
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok(Self {
                connection,
                channel,
            })
        };
        called(open).await
    }

    async fn close(self) -> Result<()> {
        called(self.connection.close(200, "done".into())).await
    }

    /// At most so many messages that wait, not acknowledged.
    async fn take(&self, queue: &str, count: u16) -> Result<Vec<BasicGetMessage>> {
        let mut taken = Vec::new();
        while taken.len() < usize::from(count) {
            let get = self
                .channel
                .basic_get(queue.into(), BasicGetOptions::default());
            match called(get).await? {
                Some(message) => taken.push(message),
                None => break,
            }
        }
        Ok(taken)
    }

    /// Publishes and waits for all confirms.
    async fn publish(&self, copies: &[Copy]) -> Result<()> {
        let mut confirms = Vec::new();
        for copy in copies {
            let publish = self.channel.basic_publish(
                ShortString::default(),
                copy.queue.as_str().into(),
                BasicPublishOptions::default(),
                &copy.body,
                copy.properties.clone(),
            );
            confirms.push(called(publish).await?);
        }
        for confirm in confirms {
            called(confirm).await?;
        }
        Ok(())
    }

    async fn ack(&self, message: &BasicGetMessage) -> Result<()> {
        called(
            self.channel
                .basic_ack(message.delivery_tag, BasicAckOptions::default()),
        )
        .await
    }

    async fn give_back(&self, message: &BasicGetMessage) -> Result<()> {
        let options = BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        };
        called(self.channel.basic_nack(message.delivery_tag, options)).await
    }

    /// Copies of what is published to queues of events for so long.
    async fn overheard(&self, lasts: Duration) -> Result<Vec<Copy>> {
        let queue = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let declare =
            self.channel
                .queue_declare(ShortString::default(), queue, FieldTable::default());
        let name: ShortString = called(declare).await?.name().clone();
        called(self.channel.queue_bind(
            name.clone(),
            TRACE_EXCHANGE.into(),
            // What is published by way of the default exchange, whose name is empty.
            "publish.".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        ))
        .await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consume = self.channel.basic_consume(
            name,
            ShortString::default(),
            options,
            FieldTable::default(),
        );
        let mut consumer = called(consume).await?;
        let mut copies = Vec::new();
        let until = tokio::time::Instant::now() + lasts;
        while let Ok(Some(delivery)) = tokio::time::timeout_at(until, consumer.next()).await {
            let delivery = delivery.map_err(LoadError::Broker)?;
            if let Some(copy) = traced(&delivery.properties, delivery.data)
                && copies.len() < HOARD
            {
                copies.push(copy);
            }
        }
        Ok(copies)
    }
}

/// The message that a traced one tells of, if it is one of events.
fn traced(properties: &BasicProperties, body: Vec<u8>) -> Option<Copy> {
    let headers = properties.headers().as_ref()?.inner();
    let Some(AMQPValue::FieldArray(keys)) = headers.get("routing_keys") else {
        return None;
    };
    let queue = keys.as_slice().iter().find_map(|key| match key {
        AMQPValue::LongString(key) => Some(key.to_string()),
        _ => None,
    })?;
    if !queue.starts_with(EVENTS_PREFIX) {
        return None;
    }
    let mut copied = BasicProperties::default().with_delivery_mode(2);
    if let Some(AMQPValue::FieldTable(original)) = headers.get("properties")
        && let Some(AMQPValue::FieldTable(headers)) = original.inner().get("headers")
    {
        copied = copied.with_headers(headers.clone());
    }
    Some(Copy {
        queue,
        properties: copied,
        body,
    })
}

/// Switches the tracing of the deployment's vhost on or off.
async fn trace(stage: &Stage, on: bool) -> Result<()> {
    let servers = stage.servers()?;
    let vhost = servers
        .amqp_url()
        .rsplit_once('/')
        .map_or("%2f", |(_, vhost)| vhost)
        .to_owned();
    let url = format!("{}/api/vhosts/{vhost}", servers.rabbitmq()?.admin_url());
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(CALL)
        .build()?;
    let body = serde_json::json!({"tracing": on});
    client
        .put(url)
        .json(&body)
        .send()
        .await?
        .error_for_status()?;
    Ok(())
}

/// Bounds a call to the broker.
async fn called<T>(call: impl Future<Output = lapin::Result<T>>) -> Result<T> {
    match tokio::time::timeout(CALL, call).await {
        Ok(result) => result.map_err(LoadError::Broker),
        Err(_) => Err(LoadError::BrokerSilent(CALL)),
    }
}
