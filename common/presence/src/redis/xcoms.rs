//! XComs in Redis: plain keys, and a set per run to find them again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{RedisPresence, script};
use crate::config::millis;
use crate::xcom::check_size;
use crate::{PresenceError, XComKey};

pub(super) async fn put(
    presence: &RedisPresence,
    values: &[(XComKey, Bytes)],
    ttl: Duration,
) -> Result<(), PresenceError> {
    if values.is_empty() {
        return Ok(());
    }
    let ttl = millis(ttl);
    let mut by_run: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (key, value) in values {
        check_size(key, value.len())?;
        by_run
            .entry(key.run)
            .or_default()
            .push(presence.keys.xcom(key));
    }
    let mut pipe = redis::pipe();
    // The sets first: a value that is written is always found by a later delete.
    for (run, keys) in &by_run {
        let set = presence.keys.xcoms(*run);
        pipe.cmd("SADD").arg(&set).arg(keys).ignore();
        // GT alone does nothing to a key without a ttl, as the new set is one.
        for condition in ["NX", "GT"] {
            pipe.cmd("PEXPIRE")
                .arg(&set)
                .arg(ttl)
                .arg(condition)
                .ignore();
        }
    }
    for (key, value) in values {
        pipe.cmd("SET")
            .arg(presence.keys.xcom(key))
            .arg(value.as_ref())
            .arg("PX")
            .arg(ttl)
            .ignore();
    }
    let pipe = &pipe;
    presence
        .link
        .call(&presence.link.bulk, |mut connection| async move {
            pipe.query_async(&mut connection).await
        })
        .await
}

pub(super) async fn get(
    presence: &RedisPresence,
    keys: &[XComKey],
) -> Result<Vec<Option<Bytes>>, PresenceError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipe = redis::pipe();
    for key in keys {
        pipe.cmd("GET").arg(presence.keys.xcom(key));
    }
    let pipe = &pipe;
    presence
        .link
        .call(&presence.link.bulk, |mut connection| async move {
            pipe.query_async(&mut connection).await
        })
        .await
}

pub(super) async fn delete(presence: &RedisPresence, run: i64) -> Result<(), PresenceError> {
    let set = presence.keys.xcoms(run);
    let invocation = &script::DELETE_XCOMS.key(&set);
    loop {
        let more: bool = presence
            .link
            .call(&presence.link.bulk, |mut connection| async move {
                invocation.invoke_async(&mut connection).await
            })
            .await?;
        if !more {
            return Ok(());
        }
    }
}
