//! Reading a log by offsets, whether it is one object, a growing file or parts.

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::LogKey;
use crate::{ByteStream, ObjectError, ObjectMeta, ObjectStore};

/// Most that one [`LogReader::read`] returns, in bytes.
pub const MAX_READ: usize = 1024 * 1024;

/// One attempt's log as far as it was there on opening. Open it again to see more; offsets stay valid.
#[derive(Debug, Clone)]
pub struct LogReader {
    store: ObjectStore,
    key: LogKey,
    /// What it consists of, in order.
    segments: Vec<ObjectMeta>,
    size: u64,
}

impl LogReader {
    /// Opens the log; `None` if nothing of it is there.
    pub async fn open(store: &ObjectStore, key: &LogKey) -> Result<Option<Self>, ObjectError> {
        let whole = store.head(&key.path()).await?;
        let mut segments: Vec<_> = whole.into_iter().collect();
        if segments.is_empty() {
            segments = parts(store, key).await?;
        }
        if segments.is_empty() {
            // Between the two looks the parts may have become one.
            segments = store.head(&key.path()).await?.into_iter().collect();
        }
        if segments.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            store: store.clone(),
            key: key.clone(),
            size: segments.iter().map(|segment| segment.size).sum(),
            segments,
        }))
    }

    /// Bytes that were there on opening.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads from an offset: at most `max` and at most [`MAX_READ`] bytes; empty at the end.
    pub async fn read(&self, offset: u64, max: usize) -> Result<Bytes, ObjectError> {
        match self.read_segments(offset, max).await {
            Err(error) if error.is_not_found() => {
                // The parts were joined since: the same bytes at the same offsets, under another key.
                match Self::open(&self.store, &self.key).await? {
                    Some(now) => now.read_segments(offset, max).await,
                    None => Err(error),
                }
            }
            other => other,
        }
    }

    async fn read_segments(&self, offset: u64, max: usize) -> Result<Bytes, ObjectError> {
        let end = self
            .size
            .min(offset.saturating_add(max.min(MAX_READ) as u64));
        let mut read = BytesMut::new();
        let mut begin = 0;
        for segment in &self.segments {
            let from = offset.max(begin);
            let to = end.min(begin + segment.size);
            if from < to {
                let piece = self
                    .store
                    .get_range(&segment.key, from - begin..to - begin)
                    .await?;
                if read.is_empty() && to == end {
                    return Ok(piece);
                }
                read.extend_from_slice(&piece);
            }
            begin += segment.size;
        }
        Ok(read.freeze())
    }

    /// Reads the end: at most `max` and at most [`MAX_READ`] bytes, from the beginning of a line on; with the offset of
    /// that line. A single line longer than that comes cut.
    pub async fn tail(&self, max: usize) -> Result<(u64, Bytes), ObjectError> {
        let from = self.size.saturating_sub(max.min(MAX_READ) as u64);
        if from == 0 {
            return Ok((0, self.read(0, max).await?));
        }
        // One byte more: the line may begin exactly there.
        let mut bytes = self.read(from - 1, max.min(MAX_READ - 1) + 1).await?;
        let newline = bytes.iter().position(|byte| *byte == b'\n');
        let skip = match newline {
            Some(at) if at + 1 < bytes.len() => at + 1,
            _ => 1.min(bytes.len()),
        };
        let line = bytes.split_off(skip);
        Ok((from - 1 + skip as u64, line))
    }

    /// All from an offset on, in pieces of at most [`MAX_READ`].
    pub fn stream(&self, offset: u64) -> ByteStream {
        let reader = self.clone();
        stream::try_unfold((reader, offset), |(reader, offset)| async move {
            let piece = reader.read(offset, MAX_READ).await?;
            if piece.is_empty() {
                return Ok(None);
            }
            let next = offset + piece.len() as u64;
            Ok(Some((piece, (reader, next))))
        })
        .boxed()
    }
}

/// The parts that were put so far, in order.
pub(super) async fn parts(
    store: &ObjectStore,
    key: &LogKey,
) -> Result<Vec<ObjectMeta>, ObjectError> {
    let mut parts: Vec<_> = store.list(&key.parts()).try_collect().await?;
    parts.retain(|part| part.key.ends_with(".part"));
    parts.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(parts)
}
