//! XCom values too large for the database: the row holds a reference, the value lies here.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{ObjectError, ObjectStore, encode_segment};

/// Largest XCom value, in bytes.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What stands in the database in the value's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XComRef {
    /// The object's key.
    pub key: String,
    /// The value's size in bytes.
    pub size: u64,
    /// SHA-256 of the value, 64 hex characters.
    pub sha256: String,
}

/// The object's key. It carries the fence: a stale attempt can never overwrite a newer one's value.
pub fn key(run: i64, ti: i64, fence: i64, name: &str) -> String {
    format!(
        "{}/ti={ti}/fence={fence}/{}",
        run_prefix(run),
        encode_segment(name)
    )
}

/// What all values of a run begin with: for retention.
pub fn run_prefix(run: i64) -> String {
    format!("xcoms/run={run}")
}

/// Stores a value of at most [`MAX_BYTES`].
pub async fn put(
    store: &ObjectStore,
    run: i64,
    ti: i64,
    fence: i64,
    name: &str,
    value: Bytes,
) -> Result<XComRef, ObjectError> {
    let key = key(run, ti, fence, name);
    let size = value.len() as u64;
    if size > MAX_BYTES {
        return Err(too_large(key, size));
    }
    let sha256 = hex::encode(Sha256::digest(&value));
    store.put(&key, value).await?;
    Ok(XComRef { key, size, sha256 })
}

/// Reads a value and checks that it is the one that was stored.
pub async fn get(store: &ObjectStore, reference: &XComRef) -> Result<Bytes, ObjectError> {
    if reference.size > MAX_BYTES {
        return Err(too_large(reference.key.clone(), reference.size));
    }
    let value = store.get(&reference.key).await?;
    let found = hex::encode(Sha256::digest(&value));
    if found != reference.sha256 {
        return Err(ObjectError::Corrupt {
            key: reference.key.clone(),
            reason: format!("its SHA-256 is {found}, not {}", reference.sha256),
        });
    }
    Ok(value)
}

fn too_large(key: String, size: u64) -> ObjectError {
    ObjectError::TooLarge {
        key,
        size,
        max: MAX_BYTES,
    }
}
