//! The one writer, with group commit.
//!
//! A task owns the connection that writes and lends it to one logical transaction at a time, in the order of asking. A
//! logical transaction is a savepoint of a physical one; when it commits, its savepoint is released and it waits. Once
//! nobody else asks for the writer, the physical transaction is committed with one fsync, and all its members learn of it.
//! While that fsync runs the next members queue up: the busier the store, the more transactions share a commit.
//!
//! The task is never cancelled, whatever happens to those who wait for it: so no step can be half done.

use crate::{
    connect::{self, ACQUIRE_TIMEOUT},
    error::store_error,
    lock::FileLock,
    session::{Link, Session, Stats},
};
use chrono::{DateTime, SubsecRound, Utc};
use gristmill_store::{StoreError, StoreResult};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteArguments};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// Logical transactions in a physical one at most: bounds how long the first of them waits.
const MAX_MEMBERS: usize = 64;
/// Askers that wait in the channel; more wait at its door.
const QUEUE: usize = 1024;

/// Asks the writer's task for a transaction.
#[derive(Debug)]
pub(crate) struct Writer {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
enum Request {
    Begin(oneshot::Sender<StoreResult<Lease>>),
    Close(oneshot::Sender<()>),
}

/// A logical transaction that has the writer. Dropping it rolls it back.
#[derive(Debug)]
pub(crate) struct Lease {
    session: Option<Session>,
    returns: Option<oneshot::Sender<Return>>,
}

#[derive(Debug)]
enum Return {
    Commit(Session, oneshot::Sender<StoreResult<()>>),
    RollBack(Session),
}

/// This machine's clock in the resolution of the columns.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

impl Writer {
    /// Starts the task. It ends, and frees the file's lock, when told so or when every [`Writer`] is gone.
    pub(crate) fn start(
        path: PathBuf,
        connection: SqliteConnection,
        lock: FileLock,
        stats: Arc<Stats>,
        runs: watch::Sender<u64>,
    ) -> Self {
        let (requests, inbox) = mpsc::channel(QUEUE);
        let task = Task {
            path,
            connection: Some(connection),
            inbox,
            stats,
            runs,
            _lock: lock,
        };
        tokio::spawn(task.run());
        Self { requests }
    }

    pub(crate) async fn begin(&self) -> StoreResult<Lease> {
        let (reply, lease) = oneshot::channel();
        let asked = async {
            self.requests
                .send(Request::Begin(reply))
                .await
                .map_err(|_| closed())?;
            lease.await.map_err(|_| closed())?
        };
        timeout(ACQUIRE_TIMEOUT, asked).await.map_err(|_| {
            StoreError::Unavailable(format!(
                "other transactions held the writer for {ACQUIRE_TIMEOUT:?}"
            ))
        })?
    }

    /// Ends the task after the transactions that asked before, and waits until the file is closed and its lock free.
    pub(crate) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_ok() {
            // An error means that the task is gone: just as well.
            done.await.ok();
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

impl Lease {
    pub(crate) fn session(&mut self) -> StoreResult<&mut Session> {
        self.session.as_mut().ok_or_else(closed)
    }

    /// Returns when the transaction is durable and visible, or was undone.
    pub(crate) async fn commit(mut self) -> StoreResult<()> {
        if let Some(why) = self.session()?.refused() {
            // Dropping it rolls back.
            return Err(StoreError::Other(format!(
                "a transaction in which a statement failed is not committed: {why}"
            )));
        }
        let (Some(session), Some(returns)) = (self.session.take(), self.returns.take()) else {
            return Err(closed());
        };
        let (done, committed) = oneshot::channel();
        if let Err(Return::Commit(session, _) | Return::RollBack(session)) =
            returns.send(Return::Commit(session, done))
        {
            drop(session);
            return Err(closed());
        }
        committed.await.map_err(|_| closed())?
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Some(session), Some(returns)) = (self.session.take(), self.returns.take()) {
            // When the task is gone the connection closes here, which rolls back.
            returns.send(Return::RollBack(session)).ok();
        }
    }
}

/// A logical transaction that waits for the physical commit.
struct Member {
    done: oneshot::Sender<StoreResult<()>>,
    announces: bool,
}

struct Task {
    path: PathBuf,
    /// Absent while it is lent, and after a failure until the next transaction.
    connection: Option<SqliteConnection>,
    inbox: mpsc::Receiver<Request>,
    stats: Arc<Stats>,
    runs: watch::Sender<u64>,
    _lock: FileLock,
}

const BEGIN: &str = "BEGIN IMMEDIATE; SAVEPOINT logical";
const SAVEPOINT: &str = "SAVEPOINT logical";
const RELEASE: &str = "RELEASE logical";
const UNDO: &str = "ROLLBACK TO logical; RELEASE logical";
const COMMIT: &str = "COMMIT";

impl Task {
    async fn run(mut self) {
        while let Some(request) = self.inbox.recv().await {
            let done = match request {
                Request::Begin(asker) => self.physical(asker).await,
                Request::Close(done) => Some(done),
            };
            if let Some(done) = done {
                self.discard().await;
                // The lock goes before the word that it is gone.
                drop(self);
                done.send(()).ok();
                return;
            }
        }
        self.discard().await;
    }

    /// One physical transaction: `asker`'s logical one and those that wait behind it. Returns whom to tell when somebody
    /// asked to close meanwhile.
    async fn physical(
        &mut self,
        asker: oneshot::Sender<StoreResult<Lease>>,
    ) -> Option<oneshot::Sender<()>> {
        let mut members = Vec::new();
        let mut next = Some(asker);
        let mut open = false;
        let mut closing = None;
        while let Some(asker) = next.take() {
            if !asker.is_closed() {
                match self.logical(asker, &mut open).await {
                    Ok(member) => members.extend(member),
                    Err(error) => {
                        // The physical transaction is gone with all its members.
                        self.discard().await;
                        tell(members, &Err(error));
                        return None;
                    }
                }
            }
            if members.len() < MAX_MEMBERS {
                match self.inbox.try_recv() {
                    Ok(Request::Begin(asker)) => next = Some(asker),
                    Ok(Request::Close(done)) => closing = Some(done),
                    Err(_) => {}
                }
            }
        }
        if open {
            let committed = self.control(COMMIT).await;
            match &committed {
                Ok(()) => self.committed(&members),
                Err(_) => self.discard().await,
            }
            tell(members, &committed);
        }
        closing
    }

    fn committed(&self, members: &[Member]) {
        if !members.is_empty() {
            self.stats.commits.fetch_add(1, Ordering::Relaxed);
            self.stats
                .transactions
                .fetch_add(members.len() as u64, Ordering::Relaxed);
        }
        if members.iter().any(|m| m.announces) {
            self.runs.send_modify(|n| *n += 1);
        }
    }

    /// One logical transaction, from the loan of the connection to its return. A member if it committed; an error if the
    /// physical transaction is lost.
    async fn logical(
        &mut self,
        asker: oneshot::Sender<StoreResult<Lease>>,
        open: &mut bool,
    ) -> StoreResult<Option<Member>> {
        if let Err(error) = self.control(if *open { SAVEPOINT } else { BEGIN }).await {
            asker.send(Err(again(&error))).ok();
            return Err(error);
        }
        *open = true;
        let Some(connection) = self.connection.take() else {
            return Err(closed());
        };
        let session = Session::new(Link::Writer(connection), Arc::clone(&self.stats), now());
        let (returns, returned) = oneshot::channel();
        let lease = Lease {
            session: Some(session),
            returns: Some(returns),
        };
        // An asker that has left drops the lease, which comes back as a rollback.
        asker.send(Ok(lease)).ok();
        let (session, done) = match returned.await {
            Ok(Return::Commit(session, done)) => (session, Some(done)),
            Ok(Return::RollBack(session)) => (session, None),
            Err(_) => {
                return Err(StoreError::Unavailable(
                    "a transaction lost the writer's connection".to_owned(),
                ));
            }
        };
        let announces = session.announces;
        let broken = session.broken().map(str::to_owned);
        match session.into_link() {
            Link::Writer(connection) => self.connection = Some(connection),
            Link::Reader(_) => return Err(closed()),
        }
        let undone = match broken {
            Some(why) => Err(StoreError::Unavailable(format!(
                "the transaction was undone: {why}"
            ))),
            None if done.is_some() => self.control(RELEASE).await,
            None => self.control(UNDO).await,
        };
        match (undone, done) {
            (Ok(()), done) => Ok(done.map(|done| Member { done, announces })),
            (Err(error), done) => {
                if let Some(done) = done {
                    done.send(Err(again(&error))).ok();
                }
                Err(error)
            }
        }
    }

    /// Sends BEGIN, SAVEPOINT and the like; opens the connection anew after a failure.
    async fn control(&mut self, sql: &'static str) -> StoreResult<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let connection = connect::writer(&self.path).await?;
                self.connection.insert(connection)
            }
        };
        // With (no) parameters: only then the driver keeps the statement prepared.
        sqlx::query_with(sql, SqliteArguments::default())
            .execute(connection)
            .await
            .map(|_| ())
            .map_err(store_error)
    }

    /// Closes the connection, which rolls back whatever is open. The next transaction opens a new one.
    async fn discard(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the database's connection did not close cleanly");
        }
    }
}

/// The same error for another member.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Conflict(why) => StoreError::Conflict(why.clone()),
        StoreError::Corrupt(why) => StoreError::Corrupt(why.clone()),
        other => StoreError::Unavailable(other.to_string()),
    }
}

fn tell(members: Vec<Member>, outcome: &StoreResult<()>) {
    for member in members {
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(again(error)),
        };
        // Whoever waited may have left: the outcome stands without them.
        member.done.send(outcome).ok();
    }
}
