//! A connection that is kept up for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, Event};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::broker::BrokerHealth;
use crate::rabbitmq::backoff::Backoff;
use crate::rabbitmq::config::RabbitMqConfig;
use crate::rabbitmq::connect::{Lifeline, connect};
use crate::rabbitmq::topology::{Declarer, Topology};

/// At most one warning in this time while the broker stays away.
const WARN_EVERY: Duration = Duration::from_secs(30);
/// How often the connection's state is looked at, should an event have been missed.
const STATUS_CHECK: Duration = Duration::from_secs(1);
/// How long declaring the topology on a new connection may take.
const TOPOLOGY_TIMEOUT: Duration = Duration::from_secs(10);

/// One established connection, from its handshake to its loss.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    lifeline: Lifeline,
    blocked: watch::Sender<Option<String>>,
    /// Confirm-mode channels of the publisher that are free for use.
    idle_channels: Mutex<Vec<Channel>>,
}

impl Session {
    /// Opens a channel. Callers bring the timeout.
    pub(super) async fn open_channel(&self) -> Result<Channel, lapin::Error> {
        self.connection.create_channel().await
    }

    /// For declarations on this connection. Callers bring the timeout.
    pub(super) fn declarer(&self) -> Declarer<'_> {
        Declarer::new(&self.connection)
    }

    /// Why the broker takes no messages on this connection now, if so.
    pub(super) fn blocked(&self) -> Option<String> {
        self.blocked.borrow().clone()
    }

    /// Resolves with the reason as soon as the broker takes no messages.
    pub(super) async fn wait_blocked(&self) -> String {
        let mut blocked = self.blocked.subscribe();
        let reason = match blocked.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        };
        match reason {
            Some(reason) => reason,
            // The sender lives in self, so this cannot be reached; never resolving is the safe answer.
            None => std::future::pending().await,
        }
    }

    pub(super) fn idle_channels(&self) -> &Mutex<Vec<Channel>> {
        &self.idle_channels
    }

    /// Gives the connection up at once: it is lost for everybody on it and is rebuilt.
    pub(super) fn condemn(&self) {
        self.lifeline.cut();
    }
}

#[derive(Clone, Debug)]
struct LinkState {
    session: Option<Arc<Session>>,
    last_error: Option<String>,
    since: Instant,
}

impl LinkState {
    fn down(last_error: Option<String>) -> Self {
        Self {
            session: None,
            last_error,
            since: Instant::now(),
        }
    }
}

/// A supervised connection. Dropping it ends the supervision and the connection.
#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<LinkState>,
    supervisor: AbortHandle,
}

impl Link {
    pub(super) fn start(
        role: &'static str,
        uri: AMQPUri,
        config: &RabbitMqConfig,
        topology: Arc<Topology>,
    ) -> Arc<Self> {
        let (sender, state) = watch::channel(LinkState::down(None));
        let supervisor = Supervisor {
            role,
            name: format!("{} {role}", config.connection_name),
            uri,
            topology,
            state: sender,
        };
        Arc::new(Self {
            state,
            supervisor: tokio::spawn(supervisor.run()).abort_handle(),
        })
    }

    /// The current session, waiting for one as long as it takes.
    pub(super) async fn session(&self) -> Arc<Session> {
        let mut state = self.state.clone();
        let session = match state.wait_for(|state| state.session.is_some()).await {
            Ok(state) => state.session.clone(),
            Err(_) => None,
        };
        match session {
            Some(session) => session,
            // The supervisor ends only with the runtime.
            None => std::future::pending().await,
        }
    }

    /// Resolves with the reason once this session is not the current one any more.
    pub(super) async fn wait_lost(&self, session: &Arc<Session>) -> String {
        let mut state = self.state.clone();
        let is_other = |state: &LinkState| {
            !state
                .session
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, session))
        };
        let reason = match state.wait_for(is_other).await {
            Ok(state) => Some(state.last_error.clone()),
            Err(_) => None,
        };
        match reason {
            Some(reason) => reason.unwrap_or_else(|| "the connection was rebuilt".to_owned()),
            None => std::future::pending().await,
        }
    }

    /// The last connection error, in words.
    pub(super) fn last_error(&self) -> String {
        let state = self.state.borrow();
        state
            .last_error
            .clone()
            .unwrap_or_else(|| "still connecting".to_owned())
    }

    pub(super) fn health(&self) -> BrokerHealth {
        let state = self.state.borrow();
        BrokerHealth {
            connected: state.session.is_some(),
            blocked: state.session.as_ref().and_then(|session| session.blocked()),
            last_error: state.last_error.clone(),
            since: state.since,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

struct Supervisor {
    role: &'static str,
    name: String,
    uri: AMQPUri,
    topology: Arc<Topology>,
    state: watch::Sender<LinkState>,
}

impl Supervisor {
    async fn run(self) {
        let mut backoff = Backoff::new();
        let mut last_warning: Option<Instant> = None;
        loop {
            match self.establish().await {
                Ok(session) => {
                    tracing::info!(role = self.role, "connected to RabbitMQ");
                    backoff.reset();
                    last_warning = None;
                    let reason = self.watch(session).await;
                    tracing::warn!(
                        role = self.role,
                        reason,
                        "connection to RabbitMQ lost; reconnecting"
                    );
                    self.state.send_replace(LinkState::down(Some(reason)));
                }
                Err(reason) => {
                    if last_warning.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                        last_warning = Some(Instant::now());
                        tracing::warn!(
                            role = self.role,
                            host = self.uri.authority.host,
                            port = self.uri.authority.port,
                            reason,
                            "cannot connect to RabbitMQ; trying again until it is there"
                        );
                    }
                    self.state
                        .send_modify(|state| state.last_error = Some(reason));
                }
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Connects and declares the topology, so that nobody sees a session without its exchanges and queues.
    async fn establish(&self) -> Result<Session, String> {
        let (connection, lifeline) = connect(self.uri.clone(), &self.name).await?;
        let declared = self.topology.declare_all(&connection);
        match tokio::time::timeout(TOPOLOGY_TIMEOUT, declared).await {
            Ok(Ok(())) => Ok(Session {
                connection,
                lifeline,
                blocked: watch::Sender::new(None),
                idle_channels: Mutex::default(),
            }),
            Ok(Err(error)) => {
                lifeline.cut();
                Err(format!("cannot declare exchanges and queues: {error}"))
            }
            Err(_) => {
                lifeline.cut();
                Err(format!(
                    "exchanges and queues not declared within {TOPOLOGY_TIMEOUT:?}"
                ))
            }
        }
    }

    /// Publishes the session and stays with it until it is lost; returns the reason.
    async fn watch(&self, session: Session) -> String {
        let session = Arc::new(session);
        let mut events = Box::pin(session.connection.events_listener());
        self.state.send_replace(LinkState {
            session: Some(Arc::clone(&session)),
            last_error: None,
            since: Instant::now(),
        });
        let mut check = tokio::time::interval(STATUS_CHECK);
        let reason = loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(role = self.role, reason, "RabbitMQ takes no messages now");
                        session.blocked.send_replace(Some(reason));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!(role = self.role, "RabbitMQ takes messages again");
                        session.blocked.send_replace(None);
                    }
                    // Errors of single channels are told here too; they are for the channel's user to handle.
                    Some(Event::Error(error)) if !session.connection.status().connected() => {
                        break error.to_string();
                    }
                    Some(_) => {}
                    None => break "the connection was closed".to_owned(),
                },
                _ = check.tick() => {
                    if !session.connection.status().connected() {
                        break "the connection was closed".to_owned();
                    }
                }
            }
        };
        session.lifeline.cut();
        session
            .idle_channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        reason
    }
}
