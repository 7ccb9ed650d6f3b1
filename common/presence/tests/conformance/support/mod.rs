//! What the rules run on: the twin, or a real Redis.

use std::sync::Arc;
use std::time::Duration;

use gristmill_presence::{
    Claim, ClaimRequest, DEFAULT_LEASE_TTL, Faults, MemoryPresence, Presence, PresenceConfig,
    RedisPresence, WorkerInfo,
};
use gristmill_testkit::{Redis, RedisDb, shared};

/// An hour: a `claim_by` that no test reaches.
const HOUR_MS: i64 = 3_600_000;

/// One implementation and the means to break it.
pub(crate) struct Bed {
    pub(crate) presence: Arc<dyn Presence>,
    kind: Kind,
}

enum Kind {
    Memory(Faults),
    Shared(RedisDb),
    Private(Redis),
}

impl Bed {
    pub(crate) fn memory(config: PresenceConfig) -> Self {
        let twin = MemoryPresence::new(config);
        Self {
            kind: Kind::Memory(twin.faults()),
            presence: Arc::new(twin),
        }
    }

    /// On the server that all tests of this process share.
    pub(crate) async fn redis(config: PresenceConfig) -> Self {
        let db = shared::redis_db().await.unwrap();
        Self {
            presence: Arc::new(RedisPresence::new(db.url(), config).unwrap()),
            kind: Kind::Shared(db),
        }
    }

    /// On a server of its own, which may be killed.
    pub(crate) async fn private_redis(config: PresenceConfig) -> Self {
        let server = Redis::start().await.unwrap();
        Self {
            presence: Arc::new(RedisPresence::new(&server.url(), config).unwrap()),
            kind: Kind::Private(server),
        }
    }

    /// All data goes, the server stays.
    pub(crate) async fn flush(&self) {
        let url = match &self.kind {
            Kind::Memory(faults) => return faults.flush(),
            Kind::Shared(db) => db.url().to_owned(),
            Kind::Private(server) => server.url(),
        };
        command::<()>(&url, &["FLUSHDB"]).await;
    }

    /// kill -9, and back with what was persisted.
    pub(crate) async fn restart_keeping_data(&self) {
        match &self.kind {
            Kind::Memory(faults) => faults.restart_keeping_data(),
            Kind::Shared(_) => panic!("this rule needs a server of its own"),
            Kind::Private(server) => {
                server.kill().await.unwrap();
                server.restart().await.unwrap();
            }
        }
    }

    pub(crate) async fn go_away(&self) {
        match &self.kind {
            Kind::Memory(faults) => faults.unavailable(true),
            Kind::Shared(_) => panic!("this rule needs a server of its own"),
            Kind::Private(server) => server.kill().await.unwrap(),
        }
    }

    pub(crate) async fn come_back(&self) {
        match &self.kind {
            // A process that was gone is another one now.
            Kind::Memory(faults) => {
                faults.restart_keeping_data();
                faults.unavailable(false);
            }
            Kind::Shared(_) => panic!("this rule needs a server of its own"),
            Kind::Private(server) => server.restart().await.unwrap(),
        }
    }

    /// Registers a worker; gives the epoch.
    pub(crate) async fn register(&self, incarnation: &str) -> i64 {
        self.presence
            .register(&worker(incarnation), DEFAULT_LEASE_TTL)
            .await
            .unwrap()
    }

    /// One claim with an hour to spare.
    pub(crate) async fn claim(&self, incarnation: &str, dispatch: (i64, i64), epoch: i64) -> Claim {
        let request = self.request(dispatch, epoch).await;
        let mut claims = self.presence.claim(incarnation, &[request]).await.unwrap();
        assert_eq!(claims.len(), 1);
        claims.remove(0)
    }

    pub(crate) async fn request(&self, (ti, fence): (i64, i64), epoch: i64) -> ClaimRequest {
        ClaimRequest {
            ti,
            fence,
            epoch,
            claim_by_ms: self.time_ms().await + HOUR_MS,
        }
    }

    /// The server's clock.
    pub(crate) async fn time_ms(&self) -> i64 {
        self.presence.leases().await.unwrap().redis_time_ms
    }
}

/// Runs one Redis command on a connection of its own.
pub(crate) async fn command<T: redis::FromRedisValue>(url: &str, words: &[&str]) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await.unwrap()
}

/// A config whose deadline leaves room for a busy machine.
pub(crate) fn config() -> PresenceConfig {
    PresenceConfig {
        deadline: Duration::from_secs(10),
        ..PresenceConfig::default()
    }
}

pub(crate) fn worker(incarnation: &str) -> WorkerInfo {
    WorkerInfo {
        incarnation: incarnation.to_owned(),
        name: format!("worker-{incarnation}"),
        hostname: "host".into(),
        pid: 7,
        queues: vec!["default".into(), "heavy".into()],
        slots: 16,
        version: "0.1.0".into(),
        started_at: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}
