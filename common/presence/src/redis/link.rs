//! Connections: made when needed, given up when broken or silent, made again for ever.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError,
    RedisResult,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::PresenceError;

/// The pause between two attempts to connect: a flood of calls must not become a flood of connects.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Idle connections for blocking reads that are kept.
const IDLE_BLOCKING: usize = 8;

/// One shared connection. Leases and claims have one of their own, so that a renewal never waits behind megabytes of
/// XComs.
#[derive(Debug, Default)]
pub(super) struct Lane {
    state: tokio::sync::Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    /// Counts connections, so that only the one that failed is given up.
    generation: u64,
    connection: Option<MultiplexedConnection>,
    failed: Option<(Instant, PresenceError)>,
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneState")
            .field("generation", &self.generation)
            .field("connected", &self.connection.is_some())
            .finish_non_exhaustive()
    }
}

/// The way to one Redis server.
pub(super) struct Link {
    client: Client,
    server: String,
    deadline: Duration,
    pub(super) control: Lane,
    pub(super) bulk: Lane,
    blocking: Mutex<Vec<MultiplexedConnection>>,
}

/// Names the server and nothing else: the client knows the password.
impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("server", &self.server)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(url: &str, deadline: Duration) -> Result<Self, PresenceError> {
        // The parser's own error may quote the URL, and with it the password.
        let invalid = || {
            PresenceError::Invalid {
            what: "the Redis URL cannot be read; expected redis://[[user]:password@]host[:port][/db], rediss://… for TLS, \
                   or unix:///path?db=0"
                .into(),
        }
        };
        let info = url.into_connection_info().map_err(|_| invalid())?;
        // A claim must not wait for the acknowledgement of the release before it.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_tcp_settings(tcp);
        let server = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}/{}", info.redis_settings().db())
            }
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => "an address of an unknown kind".to_owned(),
        };
        Ok(Self {
            client: Client::open(info).map_err(|_| invalid())?,
            server,
            deadline,
            control: Lane::default(),
            bulk: Lane::default(),
            blocking: Mutex::default(),
        })
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Runs one operation on a lane's connection under the deadline. A connection found broken is replaced once, so that
    /// the first call after a restart of Redis succeeds: every operation of this crate may be repeated.
    pub(super) async fn call<T, F, Fut>(
        &self,
        lane: &Lane,
        operation: F,
    ) -> Result<T, PresenceError>
    where
        F: Fn(MultiplexedConnection) -> Fut,
        Fut: Future<Output = RedisResult<T>>,
    {
        let arrived = Instant::now();
        let mut used = None;
        let attempt = async {
            let mut again = true;
            loop {
                let (generation, connection) = self.connection(lane, arrived).await?;
                used = Some(generation);
                match operation(connection).await {
                    Ok(value) => return Ok(value),
                    Err(error) if is_broken(&error) => {
                        discard(lane, generation).await;
                        if !again {
                            return Err(self.error(&error));
                        }
                        again = false;
                    }
                    Err(error) => return Err(self.error(&error)),
                }
            }
        };
        match timeout_at(arrived + self.deadline, attempt).await {
            Ok(result) => result,
            Err(_) => {
                // A silent server (a cut network, a stopped process) leaves a connection that looks alive.
                if let (Some(generation), Ok(mut state)) = (used, lane.state.try_lock()) {
                    state.give_up(generation);
                }
                Err(self.silent())
            }
        }
    }

    async fn connection(
        &self,
        lane: &Lane,
        arrived: Instant,
    ) -> Result<(u64, MultiplexedConnection), PresenceError> {
        // Held while connecting: whoever comes meanwhile waits for the same connection, within its own deadline.
        let mut state = lane.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((state.generation, connection.clone()));
        }
        if let Some((at, error)) = &state.failed {
            // An attempt that failed while this call was waiting for it was this call's attempt too.
            if *at >= arrived {
                return Err(error.clone());
            }
            sleep_until(*at + RETRY_AFTER).await;
        }
        match self.connect().await {
            Ok(connection) => {
                state.generation += 1;
                state.failed = None;
                state.connection = Some(connection.clone());
                Ok((state.generation, connection))
            }
            Err(error) => {
                let error = self.error(&error);
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        // Deadlines are the caller's: a default of the driver would cut blocking reads short.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.deadline))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024);
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let memory: String = redis::cmd("INFO")
            .arg("memory")
            .query_async(&mut connection)
            .await?;
        if may_evict(&memory) {
            tracing::warn!(
                server = self.server,
                "Redis may evict claims: set maxmemory-policy to noeviction"
            );
        }
        tracing::debug!(server = self.server, "connected to Redis");
        Ok(connection)
    }

    /// A connection for a command that blocks. Give it back by [`Link::keep_blocking`] once it has answered; dropped
    /// instead, it is closed, and the command with it.
    pub(super) async fn blocking(&self) -> Result<MultiplexedConnection, PresenceError> {
        let idle = self
            .blocking
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .pop();
        match idle {
            Some(connection) => Ok(connection),
            None => match timeout_at(Instant::now() + self.deadline, self.connect()).await {
                Ok(connected) => connected.map_err(|error| self.error(&error)),
                Err(_) => Err(self.silent()),
            },
        }
    }

    pub(super) fn keep_blocking(&self, connection: MultiplexedConnection) {
        let mut idle = self
            .blocking
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if idle.len() < IDLE_BLOCKING {
            idle.push(connection);
        }
    }

    pub(super) fn silent(&self) -> PresenceError {
        PresenceError::Unavailable {
            server: self.server.clone(),
            reason: format!("no answer within {:?}", self.deadline),
        }
    }

    pub(super) fn error(&self, error: &RedisError) -> PresenceError {
        let (server, reason) = (self.server.clone(), error.to_string());
        if is_broken(error) || is_passing(error, &reason) {
            PresenceError::Unavailable { server, reason }
        } else {
            PresenceError::Refused { server, reason }
        }
    }
}

impl LaneState {
    fn give_up(&mut self, generation: u64) {
        if self.generation == generation {
            self.connection = None;
        }
    }
}

async fn discard(lane: &Lane, generation: u64) {
    lane.state.lock().await.give_up(generation);
}

/// Whether the connection is of no more use. READONLY is among these: the server became a replica, and the name may
/// lead to the new primary by now.
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error() && error.kind() != ErrorKind::AuthenticationFailed
        || error.to_string().contains("READONLY")
}

/// Whether the server says that it will work again by itself.
fn is_passing(error: &RedisError, text: &str) -> bool {
    error.is_timeout()
        || [
            "LOADING",
            "BUSY",
            "MASTERDOWN",
            "TRYAGAIN",
            "CLUSTERDOWN",
            "loading",
        ]
        .iter()
        .any(|word| text.contains(word))
}

/// Whether INFO's memory section says that keys may be evicted.
fn may_evict(memory: &str) -> bool {
    let field = |name: &str| {
        memory
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    field("maxmemory").is_some_and(|max| max != "0")
        && field("maxmemory_policy").is_some_and(|policy| policy != "noeviction")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_errors_and_debug_output() {
        let secret = "hunter2";
        let link = Link::new(
            &format!("redis://user:{secret}@127.0.0.1:1/3"),
            Duration::from_secs(1),
        )
        .expect("a valid URL");
        assert_eq!(link.server, "127.0.0.1:1/3");
        assert!(!format!("{link:?}").contains(secret));
        for url in [
            format!("redis://:{secret}@host:port/x"),
            format!("http://:{secret}@host"),
        ] {
            let error = Link::new(&url, Duration::from_secs(1)).expect_err("not a Redis URL");
            assert!(!format!("{error} {error:?}").contains(secret));
        }
    }

    #[test]
    fn eviction_is_recognised() {
        assert!(!may_evict(
            "maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"
        ));
        assert!(!may_evict("maxmemory:9\r\nmaxmemory_policy:noeviction\r\n"));
        assert!(may_evict(
            "maxmemory:9\r\nmaxmemory_policy:volatile-lru\r\n"
        ));
    }
}
