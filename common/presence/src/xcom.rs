//! XComs on their way: the fast copy. The durable one is in the store.

use crate::PresenceError;

/// Largest XCom value kept here, in bytes; larger ones go by reference through the object store.
pub const MAX_XCOM_BYTES: usize = 1024 * 1024;

/// Name of one XCom value. It carries the fence, so a stale attempt can never overwrite a newer one's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XComKey {
    /// Run it belongs to.
    pub run: i64,
    /// Task instance that wrote it.
    pub ti: i64,
    /// Under which fence.
    pub fence: i64,
    /// The user's key, such as `return_value`.
    pub key: String,
}

pub(crate) fn check_size(key: &XComKey, size: usize) -> Result<(), PresenceError> {
    if size <= MAX_XCOM_BYTES {
        return Ok(());
    }
    Err(PresenceError::TooLarge {
        what: format!("XCom {:?} of task instance {}", key.key, key.ti),
        size,
        max: MAX_XCOM_BYTES,
    })
}
