//! Live log tails in Redis: one capped stream per attempt.

use std::time::Duration;

use bytes::Bytes;
use redis::FromRedisValue;
use redis::streams::{StreamId, StreamRangeReply};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{RedisPresence, script};
use crate::config::millis;
use crate::log::{check_chunk, join};
use crate::{LogChunk, LogCursor, PresenceError};

pub(super) async fn append(
    presence: &RedisPresence,
    attempt: Uuid,
    seq: u64,
    chunk: Bytes,
) -> Result<(), PresenceError> {
    check_chunk(attempt, seq, chunk.len())?;
    let mut invocation = script::APPEND_LOG.prepare_invoke();
    invocation
        .key(presence.keys.log(attempt))
        .key(presence.keys.log_meta(attempt))
        .arg(seq)
        .arg(chunk.as_ref())
        .arg(presence.config.log_bytes)
        .arg(millis(presence.config.log_idle_ttl));
    let invocation = &invocation;
    presence
        .link
        .call(&presence.link.bulk, |mut connection| async move {
            invocation.invoke_async(&mut connection).await
        })
        .await
}

pub(super) async fn end(presence: &RedisPresence, attempt: Uuid) -> Result<(), PresenceError> {
    let mut invocation = script::END_LOG.prepare_invoke();
    invocation
        .key(presence.keys.log(attempt))
        .key(presence.keys.log_meta(attempt))
        .arg(millis(presence.config.log_ended_ttl));
    let invocation = &invocation;
    presence
        .link
        .call(&presence.link.bulk, |mut connection| async move {
            invocation.invoke_async(&mut connection).await
        })
        .await
}

pub(super) async fn read(
    presence: &RedisPresence,
    attempt: Uuid,
    after: LogCursor,
    wait: Duration,
) -> Result<LogChunk, PresenceError> {
    let until = Instant::now() + wait;
    let found = read_now(presence, attempt, after).await?;
    if found.next != after || found.ended || wait.is_zero() {
        return Ok(found);
    }
    // A blocking read takes a connection; their number is bounded, and a follower beyond it waits for its turn.
    if let Ok(Ok(_turn)) = timeout_at(until, presence.followers.acquire()).await {
        wait_for_more(presence, attempt, after, until).await?;
    }
    read_now(presence, attempt, after).await
}

async fn read_now(
    presence: &RedisPresence,
    attempt: Uuid,
    after: LogCursor,
) -> Result<LogChunk, PresenceError> {
    let mut pipe = redis::pipe();
    pipe.cmd("EXISTS")
        .arg(presence.keys.log_meta(attempt))
        .cmd("XRANGE")
        .arg(presence.keys.log(attempt))
        .arg(format!("({}-0", after.0))
        .arg("+");
    let pipe = &pipe;
    let (known, entries): (bool, StreamRangeReply) = presence
        .link
        .call(&presence.link.bulk, |mut connection| async move {
            pipe.query_async(&mut connection).await
        })
        .await?;
    let mut chunks = Vec::with_capacity(entries.ids.len());
    let mut ended = false;
    for entry in &entries.ids {
        match chunk(entry) {
            Some(chunk) => chunks.push(chunk),
            None => ended |= entry.map.contains_key("e"),
        }
    }
    Ok(join(after, &chunks, ended, known))
}

fn chunk(entry: &StreamId) -> Option<(u64, Bytes)> {
    let (seq, _) = entry.id.split_once('-')?;
    let data = entry.map.get("d")?;
    Some((
        seq.parse().ok()?,
        Bytes::from_redis_value(data.clone()).ok()?,
    ))
}

/// Blocks until the stream has an entry after the cursor, or `until`.
async fn wait_for_more(
    presence: &RedisPresence,
    attempt: Uuid,
    after: LogCursor,
    until: Instant,
) -> Result<(), PresenceError> {
    let mut connection = presence.link.blocking().await?;
    let left = millis(until.saturating_duration_since(Instant::now()));
    let mut command = redis::cmd("XREAD");
    command
        .arg("COUNT")
        .arg(1)
        .arg("BLOCK")
        .arg(left)
        .arg("STREAMS")
        .arg(presence.keys.log(attempt))
        .arg(format!("{}-0", after.0));
    let answer = command.query_async::<redis::Value>(&mut connection);
    match timeout_at(until + presence.link.deadline(), answer).await {
        Ok(Ok(_)) => {
            presence.link.keep_blocking(connection);
            Ok(())
        }
        Ok(Err(error)) => Err(presence.link.error(&error)),
        Err(_) => Err(presence.link.silent()),
    }
}
