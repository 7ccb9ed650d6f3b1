//! The log of one attempt: structured lines, secrets masked, streamed while it runs and kept in the store after.

use crate::mask::Mask;
use bytes::Bytes;
use chrono::Utc;
use gristmill_objects::{
    ObjectStore,
    logs::{LogKey, LogWriter},
};
use gristmill_presence::Presence;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use uuid::Uuid;

/// What is collected before it is written.
const FULL: usize = 32 * 1024;
/// The longest that a line waits for more.
const LATEST: Duration = Duration::from_millis(200);
/// A longer line is cut.
const LONGEST_LINE: usize = 16 * 1024;
/// Lines on their way to the writer: a task that prints faster than the store takes is slowed down.
const BACKLOG: usize = 256;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
    /// The worker itself.
    Worker,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Worker => "gristmill",
        }
    }
}

/// Takes lines in. Cheap to clone; the log ends when [`AttemptLog::finish`] is called.
#[derive(Debug, Clone)]
pub(crate) struct LogSender {
    lines: mpsc::Sender<Bytes>,
    mask: Arc<Mask>,
}

impl LogSender {
    /// Appends a line; waits while the writer is behind.
    pub(crate) async fn line(&self, stream: Stream, level: &str, text: &str) {
        let mut text = text.trim_end_matches(['\n', '\r']);
        let mut cut = false;
        if text.len() > LONGEST_LINE {
            let end = (0..=LONGEST_LINE)
                .rev()
                .find(|i| text.is_char_boundary(*i))
                .unwrap_or(0);
            text = &text[..end];
            cut = true;
        }
        let mut event = self.mask.apply(text.to_owned());
        if cut {
            event.push_str(" … (line cut)");
        }
        let line = json!({
            "timestamp": Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            "level": level,
            "logger": stream.name(),
            "event": event,
        });
        let _ = self.lines.send(Bytes::from(format!("{line}\n"))).await;
    }

    /// A line of the worker's own.
    pub(crate) async fn note(&self, text: &str) {
        self.line(Stream::Worker, "info", text).await;
    }

    pub(crate) async fn error(&self, text: &str) {
        self.line(Stream::Worker, "error", text).await;
    }
}

/// The log of a running attempt.
#[derive(Debug)]
pub(crate) struct AttemptLog {
    pub(crate) sender: LogSender,
    writer: JoinHandle<()>,
}

impl AttemptLog {
    pub(crate) fn start(
        objects: ObjectStore,
        presence: Arc<dyn Presence>,
        key: LogKey,
        mask: Mask,
    ) -> Self {
        let (lines, queue) = mpsc::channel(BACKLOG);
        let writer = tokio::spawn(write(objects, presence, key, queue));
        Self {
            sender: LogSender {
                lines,
                mask: Arc::new(mask),
            },
            writer,
        }
    }

    /// Writes what is left. All other senders are dropped by now.
    pub(crate) async fn finish(self) {
        drop(self.sender);
        if let Err(error) = self.writer.await {
            tracing::error!(%error, "an attempt's log writer died");
        }
    }
}

async fn write(
    objects: ObjectStore,
    presence: Arc<dyn Presence>,
    key: LogKey,
    mut lines: mpsc::Receiver<Bytes>,
) {
    let mut tail = Tail::new(presence, key.attempt);
    let mut kept: Option<LogWriter> = None;
    let mut failed = false;
    let mut open = true;
    while open {
        let Some(first) = lines.recv().await else {
            break;
        };
        let mut chunk = first.to_vec();
        let until = Instant::now() + LATEST;
        while chunk.len() < FULL {
            match tokio::time::timeout_at(until, lines.recv()).await {
                Ok(Some(line)) => chunk.extend_from_slice(&line),
                Ok(None) => {
                    open = false;
                    break;
                }
                Err(_) => break,
            }
        }
        // The log of an attempt that has ended is read from the store; only one that goes on needs its tail followed.
        if open || tail.begun() {
            tail.append(&chunk).await;
        }
        if let Err(error) = keep(&objects, &key, &mut kept, &chunk).await
            && !failed
        {
            tracing::warn!(attempt = %key.attempt, %error, "the log store does not take this attempt's log; the task goes on");
            failed = true;
        }
    }
    if let Some(writer) = kept
        && let Err(error) = writer.finish().await
    {
        tracing::warn!(attempt = %key.attempt, %error, "the end of an attempt's log is not kept");
    }
    tail.end().await;
}

async fn keep(
    objects: &ObjectStore,
    key: &LogKey,
    kept: &mut Option<LogWriter>,
    chunk: &[u8],
) -> Result<(), gristmill_objects::ObjectError> {
    let writer = match kept {
        Some(writer) => writer,
        None => kept.insert(LogWriter::open(objects, key).await?),
    };
    writer.write(chunk).await?;
    writer.flush().await
}

/// The followable tail in presence; a failure there is no failure of the log.
#[derive(Debug)]
struct Tail {
    presence: Arc<dyn Presence>,
    attempt: Uuid,
    seq: u64,
}

impl Tail {
    fn new(presence: Arc<dyn Presence>, attempt: Uuid) -> Self {
        Self {
            presence,
            attempt,
            seq: 0,
        }
    }

    fn begun(&self) -> bool {
        self.seq > 0
    }

    async fn append(&mut self, chunk: &[u8]) {
        for part in chunk.chunks(FULL * 2 - 1) {
            self.seq += 1;
            if let Err(error) = self
                .presence
                .append_log(self.attempt, self.seq, Bytes::copy_from_slice(part))
                .await
            {
                tracing::debug!(%error, "the live tail of a log is not available");
            }
        }
    }

    async fn end(&self) {
        if self.begun() {
            let _ = self.presence.end_log(self.attempt).await;
        }
    }
}
