//! [`Presence`] over Redis 7 or Valkey.

mod claims;
mod keys;
mod leases;
mod link;
mod logs;
mod script;
mod xcoms;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{FromRedisValue, ScriptInvocation};
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::keys::Keys;
use self::link::Link;
use crate::{
    Cancels, Claim, ClaimRequest, Holders, LeaseSnapshot, LogChunk, LogCursor, Presence,
    PresenceConfig, PresenceError, Renewal, Restore, TiFence, WorkerInfo, WorkerStatus, XComKey,
};

/// [`Presence`] over Redis. Connects when first used and whenever it has to again.
#[derive(Debug)]
pub struct RedisPresence {
    link: Link,
    keys: Keys,
    config: PresenceConfig,
    followers: Semaphore,
}

impl RedisPresence {
    /// Reads the URL (`redis://`, `rediss://`, `unix://`); does no I/O, so Redis may be absent.
    pub fn new(url: &str, config: PresenceConfig) -> Result<Self, PresenceError> {
        Ok(Self {
            link: Link::new(url, config.deadline)?,
            keys: Keys::new(&config.prefix),
            followers: Semaphore::new(config.max_followers.max(1)),
            config,
        })
    }

    /// Runs a script that begins with the prelude: its first key and first argument are added here.
    async fn run<T: FromRedisValue>(
        &self,
        script: &'static redis::Script,
        fill: impl Fn(&mut ScriptInvocation<'static>),
    ) -> Result<T, PresenceError> {
        let mut invocation = script.prepare_invoke();
        // The epoch that this call would make, if one has to be made.
        let nonce = rand::random_range(1..=i64::MAX);
        invocation.key(self.keys.epoch()).arg(nonce);
        fill(&mut invocation);
        let invocation = &invocation;
        self.link
            .call(&self.link.control, |mut connection| async move {
                invocation.invoke_async(&mut connection).await
            })
            .await
    }
}

#[async_trait]
impl Presence for RedisPresence {
    async fn epoch(&self) -> Result<i64, PresenceError> {
        self.run(&script::EPOCH, |_| ()).await
    }

    async fn register(&self, worker: &WorkerInfo, ttl: Duration) -> Result<i64, PresenceError> {
        leases::register(self, worker, ttl).await
    }

    async fn renew(
        &self,
        incarnation: &str,
        epoch: i64,
        status: &WorkerStatus,
    ) -> Result<Renewal, PresenceError> {
        leases::renew(self, incarnation, epoch, status).await
    }

    async fn restore(
        &self,
        worker: &WorkerInfo,
        epoch: i64,
        claims: &[TiFence],
        ttl: Duration,
    ) -> Result<Restore, PresenceError> {
        leases::restore(self, worker, epoch, claims, ttl).await
    }

    async fn leases(&self) -> Result<LeaseSnapshot, PresenceError> {
        leases::all(self).await
    }

    async fn revoke(&self, incarnation: &str) -> Result<Option<u64>, PresenceError> {
        leases::revoke(self, incarnation).await
    }

    async fn deregister(&self, incarnation: &str) -> Result<(), PresenceError> {
        leases::deregister(self, incarnation).await
    }

    async fn claim(
        &self,
        incarnation: &str,
        requests: &[ClaimRequest],
    ) -> Result<Vec<Claim>, PresenceError> {
        claims::claim(self, incarnation, requests).await
    }

    async fn holders(&self, dispatches: &[TiFence]) -> Result<Holders, PresenceError> {
        claims::holders(self, dispatches).await
    }

    async fn seal(&self, dispatches: &[TiFence]) -> Result<Holders, PresenceError> {
        claims::seal(self, dispatches).await
    }

    async fn release(
        &self,
        incarnation: &str,
        dispatches: &[TiFence],
    ) -> Result<(), PresenceError> {
        claims::release(self, incarnation, dispatches).await
    }

    async fn cancel(&self, dispatches: &[TiFence]) -> Result<Cancels, PresenceError> {
        claims::cancel(self, dispatches).await
    }

    async fn put_xcoms(
        &self,
        values: &[(XComKey, Bytes)],
        ttl: Duration,
    ) -> Result<(), PresenceError> {
        xcoms::put(self, values, ttl).await
    }

    async fn get_xcoms(&self, keys: &[XComKey]) -> Result<Vec<Option<Bytes>>, PresenceError> {
        xcoms::get(self, keys).await
    }

    async fn delete_xcoms(&self, run: i64) -> Result<(), PresenceError> {
        xcoms::delete(self, run).await
    }

    async fn append_log(&self, attempt: Uuid, seq: u64, chunk: Bytes) -> Result<(), PresenceError> {
        logs::append(self, attempt, seq, chunk).await
    }

    async fn read_log(
        &self,
        attempt: Uuid,
        after: LogCursor,
        wait: Duration,
    ) -> Result<LogChunk, PresenceError> {
        logs::read(self, attempt, after, wait).await
    }

    async fn end_log(&self, attempt: Uuid) -> Result<(), PresenceError> {
        logs::end(self, attempt).await
    }
}
