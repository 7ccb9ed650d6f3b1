//! Claims in Redis.

use super::keys::member;
use super::{RedisPresence, script};
use crate::config::millis;
use crate::{CancelState, Cancels, Claim, ClaimRequest, Holder, Holders, PresenceError, TiFence};

pub(super) async fn claim(
    presence: &RedisPresence,
    incarnation: &str,
    requests: &[ClaimRequest],
) -> Result<Vec<Claim>, PresenceError> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let (now, answers): (i64, Vec<String>) = presence
        .run(&script::CLAIM, |call| {
            call.key(presence.keys.lease(incarnation))
                .key(presence.keys.held(incarnation))
                .arg(incarnation)
                .arg(millis(presence.config.claim_ttl))
                .arg(millis(presence.config.tombstone_slack));
            for request in requests {
                let dispatch = (request.ti, request.fence);
                call.key(presence.keys.claim(dispatch))
                    .arg(member(dispatch))
                    .arg(request.epoch)
                    .arg(request.claim_by_ms);
            }
        })
        .await?;
    let claims = answers
        .iter()
        .map(|answer| match answer.as_str() {
            "granted" => Ok(Claim::Granted),
            "cancelled" => Ok(Claim::Cancelled),
            "epoch" => Ok(Claim::WrongEpoch { now }),
            "lease" => Ok(Claim::NoLease),
            "late" => Ok(Claim::Late),
            other => match other.strip_prefix("claimed:") {
                Some(by) => Ok(Claim::AlreadyClaimed { by: by.to_owned() }),
                None => Err(corrupt(presence, other)),
            },
        })
        .collect::<Result<Vec<_>, _>>()?;
    complete(presence, claims, requests.len())
}

pub(super) async fn holders(
    presence: &RedisPresence,
    dispatches: &[TiFence],
) -> Result<Holders, PresenceError> {
    let answer = presence
        .run(&script::HOLDERS, |call| {
            for dispatch in dispatches {
                call.key(presence.keys.claim(*dispatch));
            }
        })
        .await?;
    read_holders(presence, answer, dispatches.len())
}

pub(super) async fn seal(
    presence: &RedisPresence,
    dispatches: &[TiFence],
) -> Result<Holders, PresenceError> {
    let answer = presence
        .run(&script::SEAL, |call| {
            call.arg(millis(presence.config.claim_ttl));
            for dispatch in dispatches {
                call.key(presence.keys.claim(*dispatch));
            }
        })
        .await?;
    read_holders(presence, answer, dispatches.len())
}

fn read_holders(
    presence: &RedisPresence,
    (epoch, redis_time_ms, records): (i64, i64, Vec<String>),
    asked: usize,
) -> Result<Holders, PresenceError> {
    let holders = records
        .iter()
        .map(|record| holder(presence, record))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Holders {
        epoch,
        redis_time_ms,
        holders: complete(presence, holders, asked)?,
    })
}

pub(super) async fn release(
    presence: &RedisPresence,
    incarnation: &str,
    dispatches: &[TiFence],
) -> Result<(), PresenceError> {
    if dispatches.is_empty() {
        return Ok(());
    }
    presence
        .run(&script::RELEASE, |call| {
            call.key(presence.keys.held(incarnation))
                .key(presence.keys.cancelled(incarnation))
                .arg(incarnation)
                .arg(millis(presence.config.tombstone_slack));
            for dispatch in dispatches {
                call.key(presence.keys.claim(*dispatch))
                    .arg(member(*dispatch));
            }
        })
        .await
}

pub(super) async fn cancel(
    presence: &RedisPresence,
    dispatches: &[TiFence],
) -> Result<Cancels, PresenceError> {
    let (epoch, answers): (i64, Vec<String>) = presence
        .run(&script::CANCEL, |call| {
            call.arg(millis(presence.config.claim_ttl))
                .arg(presence.keys.cancelled(""));
            for dispatch in dispatches {
                call.key(presence.keys.claim(*dispatch))
                    .arg(member(*dispatch));
            }
        })
        .await?;
    let states = answers
        .iter()
        .map(|answer| match answer.as_str() {
            "unclaimed" => Ok(CancelState::NotClaimed),
            "released" => Ok(CancelState::Released),
            other => match other.strip_prefix("held:") {
                Some(by) => Ok(CancelState::HeldBy(by.to_owned())),
                None => Err(corrupt(presence, other)),
            },
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Cancels {
        epoch,
        states: complete(presence, states, dispatches.len())?,
    })
}

/// Reads a claim record; see the key table.
fn holder(presence: &RedisPresence, record: &str) -> Result<Option<Holder>, PresenceError> {
    if record.is_empty() {
        return Ok(None);
    }
    let mut parts = record.splitn(3, '|');
    let (Some(state), Some(_claim_by), Some(incarnation)) =
        (parts.next(), parts.next(), parts.next())
    else {
        return Err(corrupt(presence, record));
    };
    let (released, cancelled) = match state {
        "x" => return Ok(None),
        "h" => (false, false),
        "c" => (false, true),
        "r" => (true, false),
        _ => return Err(corrupt(presence, record)),
    };
    Ok(Some(Holder {
        incarnation: incarnation.to_owned(),
        released,
        cancelled,
    }))
}

/// Answers are matched to requests by their order, so none may be missing.
fn complete<T>(
    presence: &RedisPresence,
    answers: Vec<T>,
    asked: usize,
) -> Result<Vec<T>, PresenceError> {
    if answers.len() == asked {
        return Ok(answers);
    }
    Err(corrupt(
        presence,
        &format!("{} answers to {asked} requests", answers.len()),
    ))
}

fn corrupt(presence: &RedisPresence, what: &str) -> PresenceError {
    PresenceError::Corrupt {
        key: presence.keys.claim_prefix() + "*",
        reason: format!("{what:?} is not a claim's state"),
    }
}
