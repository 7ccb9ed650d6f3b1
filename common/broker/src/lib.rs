//! The message broker of Gristmill: work queues, sharded events queues, worker control and the dead queue.
//!
//! [`Broker`] is what the rest of the program knows. [`RabbitMq`] is the broker of a real deployment, [`InProcess`] its twin inside one
//! process, for `gristmill standalone` and for tests. The [`conformance`] suite holds both to the same behaviour.
//! Bodies are opaque bytes here; what they say is defined in `gristmill-common`.

mod broker;
mod error;
mod in_process;
mod message;
mod names;
mod rabbitmq;
mod redact;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use broker::{
    Broker, BrokerHealth, Consumer, ConsumerState, ConsumerStatus, ControlStream, Depth,
};
pub use error::{BrokerError, PublishFailure};
pub use in_process::{Faults, InProcess, InProcessConfig};
pub use message::{
    ConsumerEvent, ControlEvent, ControlMessage, ControlTarget, Death, Delivery, DeliveryTag,
    HeaderValue, Headers, MAX_BODY_BYTES, Publication, PublishOutcome, Source, Target,
};
pub use rabbitmq::{QueueType, RabbitMq, RabbitMqConfig};
pub use redact::redact_url;
