//! What can be done to a deployment.

use serde::Serialize;
use std::{fmt, time::Duration};

/// Kinds of faults, as `--only` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// kill -9 of a scheduler
    KillScheduler,
    /// kill -9 of a worker
    KillWorker,
    /// kill -9 of a worker's guardian
    KillGuardian,
    /// kill -9 of an API server
    KillApi,
    /// SIGSTOP of a scheduler
    PauseScheduler,
    /// SIGSTOP of a worker, for longer than its lease: it wakes after its work was given away
    PauseWorker,
    /// SIGSTOP of a worker's guardian, for longer than the lease
    PauseGuardian,
    /// SIGSTOP of an API server
    PauseApi,
    /// Connections between one role and one server are closed, and new ones too
    Cut,
    /// Connections between one role and one server stay open and carry nothing
    Stall,
    /// What one role sends to one server arrives, its answers are lost
    LoseAnswers,
    /// What goes between one role and one server takes longer
    Delay,
    /// kill -9 of PostgreSQL
    KillPostgres,
    /// SIGSTOP of PostgreSQL
    PausePostgres,
    /// PostgreSQL refuses every write, as managed ones do when their disk is nearly full
    PostgresReadOnly,
    /// Statements that write fail now and then with SQLSTATE 53100 (disk full)
    PostgresFull,
    /// kill -9 of RabbitMQ
    KillRabbitmq,
    /// An orderly restart of RabbitMQ
    RestartRabbitmq,
    /// SIGSTOP of RabbitMQ
    PauseRabbitmq,
    /// kill -9 of Redis, which comes back with its data
    KillRedis,
    /// kill -9 of Redis, which comes back empty
    EmptyRedis,
    /// FLUSHALL
    FlushRedis,
    /// SIGSTOP of Redis
    PauseRedis,
    /// The wall clock of one process, Redis and PostgreSQL among them, steps for a while
    Clock,
    /// Work messages are delivered twice, the copies out of order
    DuplicateWork,
    /// Work messages are taken from the head of the queue and come back shuffled
    ReorderWork,
    /// Messages of events are delivered again later, out of order
    DuplicateEvents,
    /// The store of logs is full
    StoreFull,
}

/// One process of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RoleId {
    Scheduler(usize),
    Worker(usize),
    Api(usize),
}

/// One server that the product stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ServerId {
    Postgres,
    Rabbitmq,
    Redis,
}

/// A process whose wall clock can be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub(crate) enum ClockOf {
    Role(RoleId),
    Server(ServerId),
}

/// What a network does that is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Network {
    Cut,
    Stall,
    LoseAnswers,
    /// Every chunk of bytes, by so many milliseconds.
    Delay(u64),
}

/// What is done, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    Kill(RoleId),
    Pause(RoleId),
    /// Of the worker with this number.
    KillGuardian(usize),
    /// Of the worker with this number.
    PauseGuardian(usize),
    Network(RoleId, ServerId, Network),
    KillServer(ServerId),
    RestartServer(ServerId),
    PauseServer(ServerId),
    EmptyRedis,
    FlushRedis,
    PostgresReadOnly,
    /// This share of writing statements, in percent.
    PostgresFull(u32),
    /// By so many seconds, and back when the fault is over.
    Clock(ClockOf, i64),
    /// At most so many messages at a time.
    DuplicateWork(u16),
    /// At most so many messages at a time.
    ReorderWork(u16),
    DuplicateEvents,
    StoreFull,
}

/// One fault of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// From 1.
    pub(crate) number: usize,
    /// Not before so much time has passed since the fault before it began.
    #[serde(rename = "gap_ms", serialize_with = "as_millis")]
    pub(crate) gap: Duration,
    /// Until it is mended (for a kill: until the process is started again).
    #[serde(rename = "lasts_ms", serialize_with = "as_millis")]
    pub(crate) lasts: Duration,
    pub(crate) action: Action,
}

fn as_millis<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u128(time.as_millis())
}

impl fmt::Display for RoleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheduler(number) => write!(f, "scheduler-{number}"),
            Self::Worker(number) => write!(f, "worker-{number}"),
            Self::Api(number) => write!(f, "api-{number}"),
        }
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Rabbitmq => "RabbitMQ",
            Self::Redis => "Redis",
        })
    }
}

impl fmt::Display for ClockOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => role.fmt(f),
            Self::Server(server) => server.fmt(f),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(role) => write!(f, "kill {role}"),
            Self::Pause(role) => write!(f, "pause {role}"),
            Self::KillGuardian(worker) => write!(f, "kill the guardian of worker-{worker}"),
            Self::PauseGuardian(worker) => write!(f, "pause the guardian of worker-{worker}"),
            Self::Network(role, server, Network::Cut) => write!(f, "cut {role} off {server}"),
            Self::Network(role, server, Network::Stall) => {
                write!(f, "nothing passes between {role} and {server}")
            }
            Self::Network(role, server, Network::LoseAnswers) => {
                write!(f, "lose {server}'s answers to {role}")
            }
            Self::Network(role, server, Network::Delay(ms)) => {
                write!(f, "{ms} ms between {role} and {server}")
            }
            Self::KillServer(server) => write!(f, "kill {server}"),
            Self::RestartServer(server) => write!(f, "restart {server}"),
            Self::PauseServer(server) => write!(f, "pause {server}"),
            Self::EmptyRedis => f.write_str("kill Redis, which comes back empty"),
            Self::FlushRedis => f.write_str("flush Redis"),
            Self::PostgresReadOnly => f.write_str("PostgreSQL is read-only"),
            Self::PostgresFull(percent) => {
                write!(f, "{percent} % of PostgreSQL's writes find the disk full")
            }
            Self::Clock(whose, seconds) => write!(f, "{whose}'s clock steps by {seconds} s"),
            Self::DuplicateWork(count) => write!(f, "duplicate up to {count} work messages"),
            Self::ReorderWork(count) => write!(f, "shuffle up to {count} work messages"),
            Self::DuplicateEvents => f.write_str("deliver events again, later and shuffled"),
            Self::StoreFull => f.write_str("the store of logs is full"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:.1} s)", self.action, self.lasts.as_secs_f32())
    }
}
