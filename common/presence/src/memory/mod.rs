//! [`Presence`] inside the process: for `gristmill standalone` and for tests. Same rules, held by the same suite.

mod claims;
mod leases;
mod state;
mod tails;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use self::state::State;
use crate::config::millis;
use crate::log::check_chunk;
use crate::xcom::check_size;
use crate::{
    Cancels, Claim, ClaimRequest, Clock, Holders, LeaseSnapshot, LogChunk, LogCursor, Presence,
    PresenceConfig, PresenceError, Renewal, Restore, SystemClock, TiFence, WorkerInfo,
    WorkerStatus, XComKey,
};

/// [`Presence`] in this process's memory. Clones share the state.
#[derive(Debug, Clone)]
pub struct MemoryPresence {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Rings when any log grew or ended, and when the server "died".
    changed: Notify,
    config: PresenceConfig,
    clock: Arc<dyn Clock>,
}

impl MemoryPresence {
    /// An empty one on the machine's clock. Of the configuration the prefix, deadline and followers mean nothing here.
    pub fn new(config: PresenceConfig) -> Self {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    /// An empty one whose time (Redis's TIME) is the given clock's.
    pub fn with_clock(config: PresenceConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new()),
                changed: Notify::new(),
                config,
                clock,
            }),
        }
    }

    /// The handle that breaks it.
    pub fn faults(&self) -> Faults {
        Faults {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The state and the time, unless the "server" is away.
    fn enter(&self) -> Result<(MutexGuard<'_, State>, i64), PresenceError> {
        let now = self.shared.clock.now_ms();
        let mut state = self.shared.lock();
        if state.away {
            return Err(PresenceError::Unavailable {
                server: "in-process".into(),
                reason: "made unavailable by a fault".into(),
            });
        }
        state.collect_garbage(now);
        Ok((state, now))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Breaks a [`MemoryPresence`] as Redis breaks. Clones act on the same one.
#[derive(Debug, Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

impl Faults {
    /// FLUSHALL, or a restart that comes back empty: all is gone, the epoch changes.
    pub fn flush(&self) {
        let mut state = self.shared.lock();
        let away = state.away;
        *state = State::new();
        state.away = away;
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// A restart that comes back with its data: the epoch changes.
    pub fn restart_keeping_data(&self) {
        self.shared.lock().change_epoch();
        self.shared.changed.notify_waiters();
    }

    /// While `away`, every call answers [`PresenceError::Unavailable`].
    pub fn unavailable(&self, away: bool) {
        self.shared.lock().away = away;
        self.shared.changed.notify_waiters();
    }
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn epoch(&self) -> Result<i64, PresenceError> {
        Ok(self.enter()?.0.epoch)
    }

    async fn register(&self, worker: &WorkerInfo, ttl: Duration) -> Result<i64, PresenceError> {
        let (mut state, now) = self.enter()?;
        state.register(worker, millis(ttl), now)
    }

    async fn renew(
        &self,
        incarnation: &str,
        epoch: i64,
        status: &WorkerStatus,
    ) -> Result<Renewal, PresenceError> {
        let (mut state, now) = self.enter()?;
        let claim_ttl = millis(self.shared.config.claim_ttl);
        Ok(state.renew(incarnation, epoch, status, claim_ttl, now))
    }

    async fn restore(
        &self,
        worker: &WorkerInfo,
        epoch: i64,
        claims: &[TiFence],
        ttl: Duration,
    ) -> Result<Restore, PresenceError> {
        let (mut state, now) = self.enter()?;
        let claim_ttl = millis(self.shared.config.claim_ttl);
        Ok(state.restore(worker, epoch, claims, millis(ttl), claim_ttl, now))
    }

    async fn leases(&self) -> Result<LeaseSnapshot, PresenceError> {
        let (state, now) = self.enter()?;
        Ok(state.leases(now))
    }

    async fn revoke(&self, incarnation: &str) -> Result<Option<u64>, PresenceError> {
        let (mut state, now) = self.enter()?;
        let expires = now + millis(self.shared.config.claim_ttl);
        Ok(state.revoke(incarnation, expires, now))
    }

    async fn deregister(&self, incarnation: &str) -> Result<(), PresenceError> {
        self.enter()?.0.deregister(incarnation);
        Ok(())
    }

    async fn claim(
        &self,
        incarnation: &str,
        requests: &[ClaimRequest],
    ) -> Result<Vec<Claim>, PresenceError> {
        let (mut state, now) = self.enter()?;
        Ok(requests
            .iter()
            .map(|request| state.claim(incarnation, request, &self.shared.config, now))
            .collect())
    }

    async fn holders(&self, dispatches: &[TiFence]) -> Result<Holders, PresenceError> {
        let (state, now) = self.enter()?;
        Ok(state.holders(dispatches, now))
    }

    async fn seal(&self, dispatches: &[TiFence]) -> Result<Holders, PresenceError> {
        let (mut state, now) = self.enter()?;
        let expires = now + millis(self.shared.config.claim_ttl);
        Ok(state.seal(dispatches, expires, now))
    }

    async fn release(
        &self,
        incarnation: &str,
        dispatches: &[TiFence],
    ) -> Result<(), PresenceError> {
        let (mut state, now) = self.enter()?;
        let slack = millis(self.shared.config.tombstone_slack);
        for dispatch in dispatches {
            state.release(incarnation, *dispatch, slack, now);
        }
        Ok(())
    }

    async fn cancel(&self, dispatches: &[TiFence]) -> Result<Cancels, PresenceError> {
        let (mut state, now) = self.enter()?;
        let expires = now + millis(self.shared.config.claim_ttl);
        Ok(Cancels {
            epoch: state.epoch,
            states: dispatches
                .iter()
                .map(|dispatch| state.cancel(*dispatch, expires, now))
                .collect(),
        })
    }

    async fn put_xcoms(
        &self,
        values: &[(XComKey, Bytes)],
        ttl: Duration,
    ) -> Result<(), PresenceError> {
        for (key, value) in values {
            check_size(key, value.len())?;
        }
        let (mut state, now) = self.enter()?;
        let expires = now + millis(ttl);
        for (key, value) in values {
            state.xcoms.insert(key.clone(), (value.clone(), expires));
        }
        Ok(())
    }

    async fn get_xcoms(&self, keys: &[XComKey]) -> Result<Vec<Option<Bytes>>, PresenceError> {
        let (state, now) = self.enter()?;
        let live = |key: &XComKey| {
            let (value, expires) = state.xcoms.get(key)?;
            (*expires > now).then(|| value.clone())
        };
        Ok(keys.iter().map(live).collect())
    }

    async fn delete_xcoms(&self, run: i64) -> Result<(), PresenceError> {
        self.enter()?.0.delete_xcoms(run);
        Ok(())
    }

    async fn append_log(&self, attempt: Uuid, seq: u64, chunk: Bytes) -> Result<(), PresenceError> {
        check_chunk(attempt, seq, chunk.len())?;
        let (mut state, now) = self.enter()?;
        state.append_log(attempt, seq, chunk, &self.shared.config, now);
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    async fn read_log(
        &self,
        attempt: Uuid,
        after: LogCursor,
        wait: Duration,
    ) -> Result<LogChunk, PresenceError> {
        let until = Instant::now() + wait;
        loop {
            // Listening begins before looking, so that nothing can slip in between.
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = {
                let (state, now) = self.enter()?;
                state.read_log(attempt, after, now)
            };
            if found.next != after || found.ended || timeout_at(until, changed).await.is_err() {
                return Ok(found);
            }
        }
    }

    async fn end_log(&self, attempt: Uuid) -> Result<(), PresenceError> {
        let (mut state, now) = self.enter()?;
        state.end_log(attempt, now + millis(self.shared.config.log_ended_ttl));
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(())
    }
}
