//! Between our messages and AMQP's.

use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::message::{
    ControlTarget, Death, Delivery, DeliveryTag, HeaderValue, Headers, Publication, Source, Target,
};
use crate::names::{
    CONTROL_ALL, CONTROL_EXCHANGE, DEAD_EXCHANGE, HEADER_DEATH_QUEUE, HEADER_DEATH_REASON,
    control_key, queue_name, source_of_queue_name,
};

const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;
/// RabbitMQ refuses expirations that do not fit into an unsigned 32-bit number of milliseconds.
const MAX_EXPIRATION_MS: u128 = u32::MAX as u128 - 1;

/// Exchange and routing key of a target. The names were checked before, so they fit.
pub(super) fn route(target: &Target) -> (ShortString, ShortString) {
    let (exchange, key) = match target {
        Target::Work(queue) => ("", queue_name(&Source::Work(queue.clone()))),
        Target::Events(shard) => ("", queue_name(&Source::Events(*shard))),
        Target::Control(ControlTarget::Worker { incarnation }) => {
            (CONTROL_EXCHANGE, control_key(incarnation))
        }
        Target::Control(ControlTarget::AllWorkers) => (CONTROL_EXCHANGE, CONTROL_ALL.to_owned()),
        Target::Dead => (DEAD_EXCHANGE, String::new()),
    };
    (exchange.into(), key.into())
}

/// The properties of a publication. `message_id` comes back with a returned message.
pub(super) fn properties(publication: &Publication, message_id: u64) -> BasicProperties {
    let delivery_mode = match publication.target {
        Target::Control(_) => TRANSIENT,
        Target::Work(_) | Target::Events(_) | Target::Dead => PERSISTENT,
    };
    let mut properties = BasicProperties::default()
        .with_delivery_mode(delivery_mode)
        .with_message_id(message_id.to_string().into());
    if !publication.headers.is_empty() {
        properties = properties.with_headers(to_table(&publication.headers));
    }
    if let Some(expiration) = publication.expiration {
        properties = properties.with_expiration(to_expiration(expiration));
    }
    if let Some(priority) = publication.priority {
        properties = properties.with_priority(priority);
    }
    properties
}

fn to_expiration(expiration: Duration) -> ShortString {
    expiration
        .as_millis()
        .min(MAX_EXPIRATION_MS)
        .to_string()
        .into()
}

fn to_table(headers: &Headers) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        let value = match value {
            HeaderValue::Int(value) => AMQPValue::LongLongInt(*value),
            HeaderValue::Str(value) => AMQPValue::LongString(value.as_str().into()),
        };
        table.insert(name.as_str().into(), value);
    }
    table
}

/// The message that a returned or confirmed message's id names, if it is one of ours.
pub(super) fn message_id(properties: &BasicProperties) -> Option<u64> {
    properties.message_id().as_ref()?.as_str().parse().ok()
}

/// A delivery as the rest of the program sees it.
pub(super) fn delivery(epoch: u32, delivery: lapin::message::Delivery) -> Delivery {
    let (headers, death) = match delivery.properties.headers() {
        Some(table) => from_table(table),
        None => (Headers::new(), None),
    };
    Delivery {
        tag: DeliveryTag {
            epoch,
            number: delivery.delivery_tag,
        },
        body: Bytes::from(delivery.data),
        headers,
        redelivered: delivery.redelivered,
        death,
    }
}

/// The publisher's headers, without the broker's own (`x-…`) and without those that tell of a death, which are read apart.
fn from_table(table: &FieldTable) -> (Headers, Option<Death>) {
    let mut headers = Headers::new();
    let mut own_reason = None;
    let mut own_queue = None;
    let mut broker_death = None;
    for (name, value) in table.inner() {
        match name.as_str() {
            HEADER_DEATH_REASON => own_reason = to_text(value),
            HEADER_DEATH_QUEUE => own_queue = to_text(value),
            "x-death" => broker_death = latest_death(value),
            name if name.starts_with("x-") => {}
            name => {
                if let Some(value) = to_header(value) {
                    headers.insert(name.to_owned(), value);
                }
            }
        }
    }
    let own_death = own_reason.map(|reason| Death {
        reason,
        source: own_queue.as_deref().and_then(source_of_queue_name),
    });
    (headers, own_death.or(broker_death))
}

fn to_header(value: &AMQPValue) -> Option<HeaderValue> {
    Some(match value {
        AMQPValue::LongLongInt(value) => HeaderValue::Int(*value),
        AMQPValue::LongInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::LongUInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortUInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortShortInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortShortUInt(value) => HeaderValue::Int(i64::from(*value)),
        other => HeaderValue::Str(to_text(other)?),
    })
}

fn to_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(value) => Some(value.to_string()),
        AMQPValue::ShortString(value) => Some(value.to_string()),
        _ => None,
    }
}

/// RabbitMQ puts the latest death first.
fn latest_death(value: &AMQPValue) -> Option<Death> {
    let AMQPValue::FieldArray(deaths) = value else {
        return None;
    };
    let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else {
        return None;
    };
    let field = |name: &str| latest.inner().get(name).and_then(to_text);
    Some(Death {
        reason: field("reason")?,
        source: field("queue").as_deref().and_then(source_of_queue_name),
    })
}
