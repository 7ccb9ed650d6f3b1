//! Reading the log of one attempt, also while it grows.
//!
//! The object store has every chunk within a fraction of a second; presence only rings when there is a new one.

use crate::{error::ApiError, parts::App};
use axum::body::Bytes;
use gristmill_common::{
    ids::RunPk,
    row::{RunRow, TiRow},
};
use gristmill_objects::logs::{LogKey, LogReader, MAX_READ};
use gristmill_presence::LogCursor;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Longest wait for one ring; then the store and the attempt's state are looked at anyway.
const RING: Duration = Duration::from_secs(2);
/// The store has a chunk this much after presence at most; also the pace while presence is away.
const LAG: Duration = Duration::from_millis(100);

/// Which log, and whether it can still grow.
#[derive(Debug, Clone)]
pub(crate) struct AttemptLog {
    key: LogKey,
    run: RunPk,
}

impl AttemptLog {
    /// The log of a try; 0 means the latest. `None` if there was no such try (yet).
    pub(crate) async fn find(
        app: &App,
        run: &RunRow,
        ti: &TiRow,
        try_number: i32,
    ) -> Result<Option<Self>, ApiError> {
        let number = if try_number == 0 {
            ti.try_number
        } else {
            try_number
        };
        let attempt = if number == ti.try_number && ti.attempt.is_some() {
            ti.attempt
        } else {
            let ended = app.store.attempts(ti.pk).await?;
            ended
                .iter()
                .rev()
                .find(|a| a.try_number == number)
                .map(|a| a.attempt)
        };
        Ok(attempt.map(|attempt| Self {
            run: run.pk,
            key: LogKey {
                dag_id: run.dag_id.clone(),
                run_id: run.run_id.clone(),
                task_id: ti.task_id.clone(),
                map_index: ti.map_index,
                try_number: u32::try_from(number).unwrap_or(0),
                attempt,
            },
        }))
    }

    fn attempt(&self) -> Uuid {
        self.key.attempt
    }

    /// Whole lines from an offset, at most about 1 MiB; empty if there are none. A last line without its end is given once
    /// the log cannot grow any more.
    pub(crate) async fn read(
        &self,
        app: &App,
        offset: u64,
        ended: bool,
    ) -> Result<Bytes, ApiError> {
        let Some(reader) = LogReader::open(&app.objects, &self.key).await? else {
            return Ok(Bytes::new());
        };
        let mut bytes = reader.read(offset, MAX_READ).await?;
        let at_end = offset + bytes.len() as u64 >= reader.size();
        if !(ended && at_end) {
            let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
            // A line longer than a read is given in pieces.
            if whole > 0 || bytes.len() < MAX_READ {
                bytes.truncate(whole);
            }
        }
        Ok(bytes)
    }

    /// Where the last `lines` lines begin, if 1 MiB holds them.
    pub(crate) async fn tail(&self, app: &App, lines: usize) -> Result<u64, ApiError> {
        let Some(reader) = LogReader::open(&app.objects, &self.key).await? else {
            return Ok(0);
        };
        let (offset, bytes) = reader.tail(MAX_READ).await?;
        let ends = bytes
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, b)| **b == b'\n')
            .map(|(i, _)| i + 1);
        let begin = ends
            .filter(|i| *i < bytes.len())
            .nth(lines.saturating_sub(1));
        Ok(offset + begin.unwrap_or(0) as u64)
    }

    /// Whether the attempt has ended, after which its log does not grow.
    pub(crate) async fn has_ended(&self, app: &App) -> Result<bool, ApiError> {
        let LogKey {
            task_id,
            map_index,
            attempt,
            ..
        } = &self.key;
        let ti = app
            .store
            .task_instance(self.run, task_id, *map_index)
            .await?;
        Ok(ti.is_none_or(|ti| ti.attempt != Some(*attempt) || !ti.state.is_dispatched()))
    }
}

/// Follows one log.
#[derive(Debug)]
pub(crate) struct Follower {
    log: AttemptLog,
    offset: u64,
    heard: LogCursor,
}

impl Follower {
    pub(crate) fn new(log: AttemptLog, offset: u64) -> Self {
        Self {
            log,
            offset,
            heard: LogCursor::START,
        }
    }

    /// Where the next read begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next lines: as soon as there are some, or none by the deadline (`false`), or none ever again (`true`).
    pub(crate) async fn next(
        &mut self,
        app: &App,
        until: Instant,
    ) -> Result<(Bytes, bool), ApiError> {
        loop {
            // Asked first: what is read afterwards is all there is.
            let ended = self.log.has_ended(app).await?;
            let bytes = self.log.read(app, self.offset, ended).await?;
            if !bytes.is_empty() {
                self.offset += bytes.len() as u64;
                return Ok((bytes, false));
            }
            let now = Instant::now();
            if ended || now >= until {
                return Ok((bytes, ended));
            }
            self.ring(app, RING.min(until - now)).await;
        }
    }

    /// Waits for a sign of a new chunk.
    async fn ring(&mut self, app: &App, at_most: Duration) {
        match app
            .presence
            .read_log(self.log.attempt(), self.heard, at_most)
            .await
        {
            Ok(chunk) if chunk.known && !chunk.ended => {
                self.heard = chunk.next;
                tokio::time::sleep(LAG.min(at_most) / 2).await;
            }
            // It has ended, has not begun, or presence is away.
            _ => tokio::time::sleep(LAG.min(at_most)).await,
        }
    }
}
