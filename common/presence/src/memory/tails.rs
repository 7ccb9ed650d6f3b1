//! Live log tails in memory.

use std::collections::VecDeque;

use bytes::Bytes;
use uuid::Uuid;

use super::state::State;
use crate::config::millis;
use crate::log::join;
use crate::{LogChunk, LogCursor, PresenceConfig};

#[derive(Debug, Default)]
pub(super) struct Tail {
    chunks: VecDeque<(u64, Bytes)>,
    bytes: usize,
    last: u64,
    ended: bool,
    pub(super) expires: i64,
}

impl State {
    pub(super) fn append_log(
        &mut self,
        attempt: Uuid,
        seq: u64,
        chunk: Bytes,
        config: &PresenceConfig,
        now: i64,
    ) {
        let tail = self.logs.entry(attempt).or_default();
        if tail.expires <= now {
            *tail = Tail::default();
        }
        if tail.ended || seq <= tail.last {
            return;
        }
        tail.last = seq;
        tail.bytes += chunk.len();
        tail.chunks.push_back((seq, chunk));
        while tail.bytes > config.log_bytes && tail.chunks.len() > 1 {
            if let Some((_, oldest)) = tail.chunks.pop_front() {
                tail.bytes -= oldest.len();
            }
        }
        tail.expires = now + millis(config.log_idle_ttl);
    }

    pub(super) fn end_log(&mut self, attempt: Uuid, expires: i64) {
        let tail = self.logs.entry(attempt).or_default();
        if !tail.ended {
            tail.ended = true;
            tail.expires = expires;
        }
    }

    pub(super) fn read_log(&self, attempt: Uuid, after: LogCursor, now: i64) -> LogChunk {
        let Some(tail) = self.logs.get(&attempt).filter(|t| t.expires > now) else {
            return join(after, &[], false, false);
        };
        let chunks: Vec<_> = tail
            .chunks
            .iter()
            .filter(|(seq, _)| *seq > after.0)
            .cloned()
            .collect();
        join(after, &chunks, tail.ended, true)
    }
}
