//! Brings XComs that workers put into the object store into the database, up to the size that is kept there.

use bytes::Bytes;
use gristmill_common::{message::Event, row::XcomValue};
use gristmill_objects::{ObjectError, ObjectStore};
use std::time::Duration;

/// Larger values stay in the object store, and the database keeps the reference.
const MAX_IN_DATABASE: u64 = 1024 * 1024;

/// How often, and how long between, a store that is away is asked again: a list to map over has to come from here.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Replaces references to values of up to 1 MiB by the values. One that cannot be read stays a reference: the value is
/// there, and those who pull it read it there.
pub(crate) async fn hydrate(objects: &ObjectStore, events: &mut [Event]) {
    for event in events {
        let Event::Finished(finished) = event else {
            continue;
        };
        for xcom in &mut finished.xcoms {
            let XcomValue::Object { key, size } = &xcom.value else {
                continue;
            };
            if *size > MAX_IN_DATABASE {
                continue;
            }
            match read(objects, key)
                .await
                .map(|bytes| serde_json::from_slice(&bytes))
            {
                Ok(Ok(value)) => xcom.value = XcomValue::Inline(value),
                Ok(Err(error)) => {
                    tracing::warn!(key, %error, "an XCom in the object store is no JSON")
                }
                Err(error) => {
                    tracing::warn!(key, %error, "cannot read an XCom from the object store")
                }
            }
        }
    }
}

async fn read(objects: &ObjectStore, key: &str) -> Result<Bytes, ObjectError> {
    for _ in 1..TRIES {
        match objects.get(key).await {
            Err(error) if !error.is_not_found() => {
                tracing::debug!(key, %error, "waiting for the object store");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
    objects.get(key).await
}
