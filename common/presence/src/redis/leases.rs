//! Leases in Redis.

use std::time::Duration;

use redis::{FromRedisValue, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::{member, parse_member};
use super::{RedisPresence, script};
use crate::config::millis;
use crate::{
    LeaseSnapshot, LeaseView, PresenceError, Renewal, Restore, TiFence, WorkerInfo, WorkerStatus,
};

pub(super) async fn register(
    presence: &RedisPresence,
    worker: &WorkerInfo,
    ttl: Duration,
) -> Result<i64, PresenceError> {
    let (info, status) = (json(worker)?, json(&WorkerStatus::default())?);
    let answer: Vec<Value> = presence
        .run(&script::REGISTER, |call| {
            call.key(presence.keys.workers())
                .key(presence.keys.lease(&worker.incarnation))
                .arg(&worker.incarnation)
                .arg(&info)
                .arg(&status)
                .arg(millis(ttl));
        })
        .await?;
    match word(presence, &answer)?.as_str() {
        "ok" => field(presence, &answer, 1),
        "revoked" => Err(PresenceError::Revoked {
            incarnation: worker.incarnation.clone(),
        }),
        other => Err(unexpected(presence, &worker.incarnation, other)),
    }
}

pub(super) async fn renew(
    presence: &RedisPresence,
    incarnation: &str,
    epoch: i64,
    status: &WorkerStatus,
) -> Result<Renewal, PresenceError> {
    let status = json(status)?;
    let answer: Vec<Value> = presence
        .run(&script::RENEW, |call| {
            call.key(presence.keys.lease(incarnation))
                .key(presence.keys.held(incarnation))
                .key(presence.keys.cancelled(incarnation))
                .arg(epoch)
                .arg(&status)
                .arg(millis(presence.config.claim_ttl))
                .arg(presence.keys.claim_prefix());
        })
        .await?;
    match word(presence, &answer)?.as_str() {
        "renewed" => Ok(Renewal::Renewed {
            seq: field(presence, &answer, 1)?,
            cancelled: dispatches(presence, &answer, 2)?,
        }),
        "epoch" => Ok(Renewal::EpochChanged {
            now: field(presence, &answer, 1)?,
        }),
        "revoked" => Ok(Renewal::Revoked),
        "unknown" => Ok(Renewal::Unknown),
        other => Err(unexpected(presence, incarnation, other)),
    }
}

pub(super) async fn restore(
    presence: &RedisPresence,
    worker: &WorkerInfo,
    epoch: i64,
    claims: &[TiFence],
    ttl: Duration,
) -> Result<Restore, PresenceError> {
    let (info, status) = (json(worker)?, json(&WorkerStatus::default())?);
    let incarnation = &worker.incarnation;
    let answer: Vec<Value> = presence
        .run(&script::RESTORE, |call| {
            call.key(presence.keys.workers())
                .key(presence.keys.lease(incarnation))
                .key(presence.keys.held(incarnation))
                .key(presence.keys.cancelled(incarnation))
                .arg(epoch)
                .arg(incarnation)
                .arg(&info)
                .arg(&status)
                .arg(millis(ttl))
                .arg(millis(presence.config.claim_ttl));
            for claim in claims {
                call.key(presence.keys.claim(*claim)).arg(member(*claim));
            }
        })
        .await?;
    match word(presence, &answer)?.as_str() {
        "restored" => Ok(Restore::Restored {
            seq: field(presence, &answer, 1)?,
            cancelled: dispatches(presence, &answer, 2)?,
            refused: dispatches(presence, &answer, 3)?,
        }),
        "epoch" => Ok(Restore::EpochChanged {
            now: field(presence, &answer, 1)?,
        }),
        "revoked" => Ok(Restore::Revoked),
        other => Err(unexpected(presence, incarnation, other)),
    }
}

pub(super) async fn all(presence: &RedisPresence) -> Result<LeaseSnapshot, PresenceError> {
    let (epoch, redis_time_ms, found): (i64, i64, Vec<Vec<String>>) = presence
        .run(&script::LEASES, |call| {
            call.key(presence.keys.workers())
                .arg(presence.keys.lease(""));
        })
        .await?;
    let mut leases = found
        .iter()
        .map(|fields| view(presence, fields))
        .collect::<Result<Vec<_>, _>>()?;
    leases.sort_by(|a, b| a.info.incarnation.cmp(&b.info.incarnation));
    Ok(LeaseSnapshot {
        epoch,
        redis_time_ms,
        leases,
    })
}

pub(super) async fn revoke(
    presence: &RedisPresence,
    incarnation: &str,
) -> Result<Option<u64>, PresenceError> {
    presence
        .run(&script::REVOKE, |call| {
            call.key(presence.keys.workers())
                .key(presence.keys.lease(incarnation))
                .arg(incarnation)
                .arg(millis(presence.config.claim_ttl));
        })
        .await
}

pub(super) async fn deregister(
    presence: &RedisPresence,
    incarnation: &str,
) -> Result<(), PresenceError> {
    presence
        .run(&script::DEREGISTER, |call| {
            call.key(presence.keys.workers())
                .key(presence.keys.lease(incarnation))
                .key(presence.keys.held(incarnation))
                .key(presence.keys.cancelled(incarnation))
                .arg(incarnation);
        })
        .await
}

fn view(presence: &RedisPresence, fields: &[String]) -> Result<LeaseView, PresenceError> {
    let [info, status, seq, renewed] = fields else {
        return Err(corrupt(&presence.keys.lease("*"), "a field is missing"));
    };
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|error| corrupt(&presence.keys.lease("*"), error))
    };
    Ok(LeaseView {
        info: from_json(presence, info)?,
        status: from_json(presence, status)?,
        seq: number(seq)?.unsigned_abs(),
        renewed_at_ms: number(renewed)?,
    })
}

fn json(value: &impl Serialize) -> Result<String, PresenceError> {
    serde_json::to_string(value).map_err(|error| PresenceError::Invalid {
        what: format!("a worker's description cannot be written as JSON: {error}"),
    })
}

fn from_json<T: DeserializeOwned>(
    presence: &RedisPresence,
    text: &str,
) -> Result<T, PresenceError> {
    serde_json::from_str(text).map_err(|error| corrupt(&presence.keys.lease("*"), error))
}

/// The first element of a script's answer: which kind it is.
fn word(presence: &RedisPresence, answer: &[Value]) -> Result<String, PresenceError> {
    field(presence, answer, 0)
}

fn field<T: FromRedisValue>(
    presence: &RedisPresence,
    answer: &[Value],
    at: usize,
) -> Result<T, PresenceError> {
    let value = answer.get(at).unwrap_or(&Value::Nil);
    T::from_redis_value(value.clone()).map_err(|error| corrupt(&presence.keys.lease("*"), error))
}

fn dispatches(
    presence: &RedisPresence,
    answer: &[Value],
    at: usize,
) -> Result<Vec<TiFence>, PresenceError> {
    let members: Vec<String> = field(presence, answer, at)?;
    let mut parsed = members
        .iter()
        .map(|m| {
            parse_member(m)
                .ok_or_else(|| corrupt(&presence.keys.held("*"), format!("{m:?} is not ti:fence")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    parsed.sort_unstable();
    Ok(parsed)
}

fn unexpected(presence: &RedisPresence, incarnation: &str, answer: &str) -> PresenceError {
    corrupt(
        &presence.keys.lease(incarnation),
        format!("the script answered {answer:?}"),
    )
}

fn corrupt(key: &str, reason: impl ToString) -> PresenceError {
    PresenceError::Corrupt {
        key: key.to_owned(),
        reason: reason.to_string(),
    }
}
