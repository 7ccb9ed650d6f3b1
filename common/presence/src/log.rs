//! Live log tails: the last lines of an attempt that is being written. The whole log is in the object store.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::PresenceError;

/// Largest chunk that [`append_log`](crate::Presence::append_log) takes, in bytes.
pub const MAX_LOG_CHUNK: usize = 64 * 1024;

/// Where a reader stands: the `seq` of the last chunk it has read.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LogCursor(pub u64);

impl LogCursor {
    /// Before the first chunk.
    pub const START: LogCursor = LogCursor(0);
}

/// What [`read_log`](crate::Presence::read_log) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The chunks after the cursor, joined; at most [`log_bytes`](crate::PresenceConfig::log_bytes) and one chunk.
    pub bytes: Bytes,
    /// The cursor for the next call.
    pub next: LogCursor,
    /// Chunks between the cursor and `bytes` (or between parts of `bytes`) are gone: the object store has them.
    pub truncated_before: bool,
    /// The attempt's log is complete with these bytes.
    pub ended: bool,
    /// Whether anything is known of this log. If not, it has not begun or has expired: read the object store.
    pub known: bool,
}

/// Joins chunks that were read in order after `after`.
pub(crate) fn join(
    after: LogCursor,
    chunks: &[(u64, Bytes)],
    ended: bool,
    known: bool,
) -> LogChunk {
    let mut next = after.0;
    let mut truncated_before = false;
    for (seq, _) in chunks {
        truncated_before |= *seq != next + 1;
        next = *seq;
    }
    let bytes = match chunks {
        [(_, only)] => only.clone(),
        many => {
            let mut joined = Vec::with_capacity(many.iter().map(|(_, c)| c.len()).sum());
            many.iter().for_each(|(_, c)| joined.extend_from_slice(c));
            joined.into()
        }
    };
    LogChunk {
        bytes,
        next: LogCursor(next),
        truncated_before,
        ended,
        known,
    }
}

pub(crate) fn check_chunk(attempt: Uuid, seq: u64, size: usize) -> Result<(), PresenceError> {
    if seq == 0 {
        return Err(PresenceError::Invalid {
            what: format!("log chunks of attempt {attempt} are numbered from 1, not 0"),
        });
    }
    if size > MAX_LOG_CHUNK {
        return Err(PresenceError::TooLarge {
            what: format!("log chunk {seq} of attempt {attempt}"),
            size,
            max: MAX_LOG_CHUNK,
        });
    }
    Ok(())
}
