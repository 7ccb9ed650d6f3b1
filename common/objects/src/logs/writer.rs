//! Writing a log: appended to a local file, or put as numbered parts that are joined at the end.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use super::LogKey;
use super::reader::parts;
use crate::local::sync_folder;
use crate::{ObjectError, ObjectStore};

/// A part is put when this much has gathered, or on [`LogWriter::flush`].
const PART_BYTES: usize = 1024 * 1024;

/// Writes one attempt's log in bounded memory (1 MiB). A worker that dies leaves what was flushed: on a local store
/// that is every write, elsewhere every full part.
#[derive(Debug)]
pub struct LogWriter {
    store: ObjectStore,
    key: LogKey,
    written: u64,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    File(File),
    Parts { buffer: Vec<u8>, next: u32 },
}

impl LogWriter {
    /// Opens the log; if it has content already, writing goes on behind it.
    pub async fn open(store: &ObjectStore, key: &LogKey) -> Result<Self, ObjectError> {
        let path = key.path();
        let Some(file) = store.local_path(&path) else {
            return Self::open_parts(store, key).await;
        };
        let opened = async {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder).await?;
            }
            let opened = File::options()
                .create(true)
                .append(true)
                .open(&file)
                .await?;
            let written = opened.metadata().await?.len();
            std::io::Result::Ok((opened, written))
        };
        let (file, written) = opened
            .await
            .map_err(|error| ObjectError::io(&path, error))?;
        Ok(Self {
            store: store.clone(),
            key: key.clone(),
            written,
            sink: Sink::File(file),
        })
    }

    /// As [`LogWriter::open`] on a store that cannot append; works on every store.
    pub async fn open_parts(store: &ObjectStore, key: &LogKey) -> Result<Self, ObjectError> {
        let parts = parts(store, key).await?;
        Ok(Self {
            store: store.clone(),
            key: key.clone(),
            written: parts.iter().map(|part| part.size).sum(),
            sink: Sink::Parts {
                buffer: Vec::new(),
                next: parts.len() as u32 + 1,
            },
        })
    }

    /// Appends whole lines.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), ObjectError> {
        self.written += chunk.len() as u64;
        match &mut self.sink {
            Sink::File(file) => {
                let written = async {
                    file.write_all(chunk).await?;
                    // tokio writes in the background; this waits until the system has it.
                    file.flush().await
                };
                let written = written.await;
                written.map_err(|error| ObjectError::io(&self.key.path(), error))
            }
            Sink::Parts { buffer, .. } => {
                buffer.extend_from_slice(chunk);
                if buffer.len() < PART_BYTES {
                    return Ok(());
                }
                self.flush().await
            }
        }
    }

    /// Makes what was written readable to others. Each call with something to do puts one object where the store cannot
    /// append: every ten seconds is often enough, the live tail is elsewhere.
    pub async fn flush(&mut self) -> Result<(), ObjectError> {
        let Sink::Parts { buffer, next } = &mut self.sink else {
            return Ok(());
        };
        if buffer.is_empty() {
            return Ok(());
        }
        let part = format!("{}/{next:06}.part", self.key.parts());
        self.store
            .put(&part, Bytes::copy_from_slice(buffer))
            .await?;
        // Only now: a put that failed is repeated with the same number and all that has gathered.
        buffer.clear();
        *next += 1;
        Ok(())
    }

    /// Ends the log, durably and under its final key; answers its size in bytes.
    pub async fn finish(mut self) -> Result<u64, ObjectError> {
        let path = self.key.path();
        match &mut self.sink {
            Sink::File(file) => {
                let io = |error: std::io::Error| ObjectError::io(&path, error);
                file.sync_all().await.map_err(io)?;
                if let Some(file) = self.store.local_path(&path) {
                    sync_folder(&file).await.map_err(io)?;
                }
            }
            Sink::Parts { buffer, next } => {
                let last = Bytes::from(std::mem::take(buffer));
                if *next == 1 {
                    self.store.put(&path, last).await?;
                } else {
                    self.join(&path, last).await?;
                }
            }
        }
        Ok(self.written)
    }

    /// Copies the parts and the rest into one object, piece by piece, then drops the parts.
    async fn join(&self, path: &str, rest: Bytes) -> Result<(), ObjectError> {
        let parts = parts(&self.store, &self.key).await?;
        let store = &self.store;
        let pieces = stream::iter(parts)
            .then(|part| async move { store.stream_get(&part.key).await })
            .try_flatten()
            .chain(stream::once(async { Ok(rest) }));
        store.stream_put(path, pieces.boxed()).await?;
        store.delete_prefix(&self.key.parts()).await.map(drop)
    }
}
