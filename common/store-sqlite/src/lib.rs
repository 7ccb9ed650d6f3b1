//! The store of `gristmill standalone`: one SQLite file, owned by one process.
//!
//! SQLite runs in WAL mode with `synchronous = FULL`. One connection writes, lent to one transaction at a time, with group
//! commit (`writer`); a few others read snapshots of what is committed. Because there is one writer, every lock that the
//! contract of [`gristmill_store::Tx`] asks for is held by having it.

mod calls;
mod codec;
mod connect;
mod data;
mod error;
mod lock;
mod reads;
mod session;
mod statements;
mod tx;
mod waits;
mod writer;

pub use tx::SqliteTx;

use async_trait::async_trait;
use gristmill_common::message::Started;
use gristmill_store::{Backend, Starts, StoreError, StoreResult};
use session::{Link, Session, Stats};
use sqlx::SqlitePool;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};
use tokio::sync::{Mutex, watch};
use writer::Writer;

/// A database file. Clones share it.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    writer: Writer,
    readers: SqlitePool,
    stats: Arc<Stats>,
    /// Counts commits that accepted or ended a run.
    runs: watch::Sender<u64>,
    /// One migration at a time.
    migrating: Mutex<()>,
}

impl SqliteStore {
    /// Opens the database at `path`, and creates it and its folder where missing; its schema is for
    /// [`gristmill_store::Reads::migrate`] to make. Needs a tokio runtime.
    ///
    /// `Unavailable` when another process has it open (the message says which), or the file cannot be written.
    pub async fn open(path: impl AsRef<Path>) -> StoreResult<Self> {
        let path = path.as_ref().to_path_buf();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| {
                StoreError::Unavailable(format!("cannot create {}: {error}", folder.display()))
            })?;
        }
        let lock = lock::FileLock::acquire(&path)?;
        let connection = connect::writer(&path).await?;
        let stats = Arc::new(Stats::default());
        let runs = watch::Sender::new(0);
        Ok(Self {
            shared: Arc::new(Shared {
                writer: Writer::start(
                    path.clone(),
                    connection,
                    lock,
                    Arc::clone(&stats),
                    runs.clone(),
                ),
                readers: connect::readers(&path),
                path,
                stats,
                runs,
                migrating: Mutex::new(()),
            }),
        })
    }

    /// Waits for open transactions, closes the file and frees its lock: another process, or this one, may open it anew.
    pub async fn close(&self) {
        self.shared.readers.close().await;
        self.shared.writer.close().await;
    }

    /// Physical commits since the start, each with one fsync; one serves many transactions under load.
    pub fn commits(&self) -> u64 {
        self.shared.stats.commits.load(Ordering::Relaxed)
    }

    /// A session that reads what is committed.
    async fn reader(&self) -> StoreResult<Session> {
        let connection = self
            .shared
            .readers
            .acquire()
            .await
            .map_err(error::store_error)?;
        Ok(Session::new(
            Link::Reader(connection),
            Arc::clone(&self.shared.stats),
            writer::now(),
        ))
    }
}

#[async_trait]
impl Backend for SqliteStore {
    type Tx = SqliteTx;

    async fn begin(&self) -> StoreResult<SqliteTx> {
        let mut lease = self.shared.writer.begin().await?;
        let now = lease.session()?.now;
        Ok(SqliteTx::new(lease, now))
    }

    async fn record_starts(&self, starts: &[&Started]) -> StoreResult<Starts> {
        if starts.is_empty() {
            return Ok(Starts::default());
        }
        let mut lease = self.shared.writer.begin().await?;
        let recorded = lease.session()?.record_starts(starts).await?;
        lease.commit().await?;
        Ok(recorded)
    }
}
