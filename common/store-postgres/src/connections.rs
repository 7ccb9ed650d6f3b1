//! Connections to the server, handed out so that the one that came back last goes out first.
//!
//! Statements are parsed and planned once on each connection, and a server process that has just worked finds its memory
//! in the processor's caches. A pool that goes round, as the driver's own does, spreads light load over all connections that
//! a busy hour has left open: then each hop of a chain meets another server process.

use crate::{
    Statement,
    error::{bounded, db},
};
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError};
use gristmill_store::{StoreError, StoreResult};
use sqlx::{
    Connection as _, Executor as _, PgConnection,
    postgres::{PgConnectOptions, PgQueryResult, PgRow},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a caller waits for a connection to be given back, and how long for a new one while the server is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to reach the server, at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(300);
/// A connection that was handed out longer ago than this is tested first: after a restart of the server those at rest are
/// dead. Busy ones are spared the round trip.
const TEST_AFTER: Duration = Duration::from_millis(100);
/// One that was not needed for so long is closed.
const NOT_NEEDED: Duration = Duration::from_secs(5 * 60);
/// The age at which one is replaced: a server process keeps what it has read of the catalogue for its lifetime.
const OLDEST: Duration = Duration::from_secs(30 * 60);

/// When a connection was last found dead. Those of before may have died with it, and are tested before they are used.
#[derive(Debug, Clone, Default)]
struct LastDeath(Arc<Mutex<Option<Instant>>>);

impl LastDeath {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it was no longer ago than `age`.
    fn is_within(&self, age: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() <= age)
    }
}

#[derive(Debug)]
struct Maker {
    options: PgConnectOptions,
    last_death: LastDeath,
}

impl Manager for Maker {
    type Type = PgConnection;
    type Error = StoreError;

    /// A server that is only just absent, or still starting, is waited for.
    async fn create(&self) -> StoreResult<PgConnection> {
        let until = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(10);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let connecting = PgConnection::connect_with(&self.options);
            let error = match tokio::time::timeout(left, connecting).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => db(error),
                Err(_) => StoreError::Unavailable(format!(
                    "no connection within {} s",
                    PATIENCE.as_secs()
                )),
            };
            if !matches!(error, StoreError::Unavailable(_)) || Instant::now() + pause >= until {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> Result<(), RecycleError<StoreError>> {
        if metrics.age() > OLDEST {
            return Err(RecycleError::message("old"));
        }
        let rested = metrics.last_used();
        if rested <= TEST_AFTER && !self.last_death.is_within(rested) {
            return Ok(());
        }
        let answer = match tokio::time::timeout(PATIENCE, connection.ping()).await {
            Ok(answer) => answer.map_err(|error| RecycleError::Backend(db(error))),
            Err(_) => Err(RecycleError::message("no answer")),
        };
        if answer.is_err() {
            self.last_death.note();
        }
        answer
    }
}

/// All connections of a store but the one that listens.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pool: Pool<Maker>,
    last_death: LastDeath,
}

impl Connections {
    /// At most `max` connections; made when they are needed.
    pub(crate) fn new(options: PgConnectOptions, max: usize) -> StoreResult<Self> {
        let last_death = LastDeath::default();
        let maker = Maker {
            options,
            last_death: last_death.clone(),
        };
        let pool = Pool::builder(maker)
            .max_size(max.max(1))
            .queue_mode(QueueMode::Lifo)
            .runtime(deadpool::Runtime::Tokio1)
            .wait_timeout(Some(PATIENCE))
            .build()
            .map_err(|error| StoreError::Other(error.to_string()))?;
        Ok(Self { pool, last_death })
    }

    pub(crate) async fn get(&self) -> StoreResult<Connection> {
        let connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            other => StoreError::Unavailable(format!("no connection to the database: {other}")),
        })?;
        Ok(Connection {
            connection: Some(connection),
            usable: true,
            in_transaction: false,
            last_death: self.last_death.clone(),
        })
    }

    /// A connection with an open transaction. On one that was at rest and has died meanwhile nothing has begun: the next is
    /// tried.
    pub(crate) async fn begin(&self) -> StoreResult<Connection> {
        loop {
            let mut connection = self.get().await?;
            match connection.begin().await {
                Err(StoreError::Unavailable(_)) if connection.was_at_rest() => {}
                begun => return begun.map(|()| connection),
            }
        }
    }

    /// Closes those that nobody needed for a while.
    pub(crate) fn close_unneeded(&self) {
        self.pool
            .retain(|_, metrics| metrics.last_used() < NOT_NEEDED);
    }

    /// Those in use are closed when they come back.
    pub(crate) fn close(&self) {
        self.pool.close();
    }
}

/// A connection that is given back when dropped: at once, or once an open transaction is rolled back, or never, if what
/// the server has answered last is not known.
#[derive(Debug)]
pub(crate) struct Connection {
    /// `None` only while it is dropped.
    connection: Option<Object<Maker>>,
    /// No statement is under way, and the last one was answered.
    usable: bool,
    in_transaction: bool,
    last_death: LastDeath,
}

impl Connection {
    /// Whether it was used before it was handed out this time.
    fn was_at_rest(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(|connection| Object::metrics(connection).recycle_count > 0)
    }

    /// All rows of a statement.
    pub(crate) async fn all(&mut self, statement: Statement<'_>) -> StoreResult<Vec<PgRow>> {
        let answer = bounded(statement.fetch_all(self.claim()?)).await;
        self.answered(answer)
    }

    /// The first row, if any.
    pub(crate) async fn optional(
        &mut self,
        statement: Statement<'_>,
    ) -> StoreResult<Option<PgRow>> {
        let answer = bounded(statement.fetch_optional(self.claim()?)).await;
        self.answered(answer)
    }

    pub(crate) async fn execute(&mut self, statement: Statement<'_>) -> StoreResult<PgQueryResult> {
        let answer = bounded(statement.execute(self.claim()?)).await;
        self.answered(answer)
    }

    pub(crate) async fn begin(&mut self) -> StoreResult<()> {
        self.command("BEGIN").await?;
        self.in_transaction = true;
        Ok(())
    }

    pub(crate) async fn commit(&mut self) -> StoreResult<()> {
        self.end("COMMIT").await
    }

    /// Whatever the server answers, the transaction is over; without an answer the connection is not used again.
    async fn end(&mut self, command: &'static str) -> StoreResult<()> {
        self.in_transaction = false;
        self.command(command).await
    }

    /// By the simple protocol: nothing to prepare.
    async fn command(&mut self, command: &'static str) -> StoreResult<()> {
        let answer = bounded(self.claim()?.execute(command)).await;
        self.answered(answer).map(drop)
    }

    /// Not usable until it has [`answered`](Self::answered), which a statement that is dropped half-way never does.
    fn claim(&mut self) -> StoreResult<&mut PgConnection> {
        if !std::mem::replace(&mut self.usable, false) {
            return Err(StoreError::Unavailable(
                "this connection's last statement had no answer".to_owned(),
            ));
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            None => Err(StoreError::Other("a connection was given back".to_owned())),
        }
    }

    fn answered<T>(&mut self, answer: StoreResult<T>) -> StoreResult<T> {
        self.usable = !matches!(answer, Err(StoreError::Unavailable(_)));
        if !self.usable {
            self.last_death.note();
        }
        answer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let runtime = tokio::runtime::Handle::try_current().ok();
        match runtime.filter(|_| self.usable) {
            // The server rolls back what was open when it sees the connection closed.
            None => drop(Object::take(connection)),
            Some(_) if !self.in_transaction => {}
            Some(runtime) => {
                let mut open = Self {
                    connection: Some(connection),
                    usable: true,
                    in_transaction: true,
                    last_death: self.last_death.clone(),
                };
                drop(runtime.spawn(async move { open.end("ROLLBACK").await }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_testkit::{Database, shared};
    use sqlx::{Row, query};
    use std::str::FromStr;

    async fn connections(max: usize) -> (Connections, Database) {
        let database = shared::postgres_database().await.unwrap();
        let options = PgConnectOptions::from_str(database.url()).unwrap();
        (Connections::new(options, max).unwrap(), database)
    }

    async fn number(connection: &mut Connection, sql: &'static str) -> i32 {
        let row = connection.optional(query(sql)).await.unwrap().unwrap();
        row.get(0)
    }

    async fn process(connection: &mut Connection) -> i32 {
        number(connection, "SELECT pg_backend_pid()").await
    }

    #[tokio::test]
    async fn the_last_one_back_is_the_first_one_out() {
        let (connections, _database) = connections(3).await;
        let (mut a, mut b) = (
            connections.get().await.unwrap(),
            connections.get().await.unwrap(),
        );
        let (of_a, of_b) = (process(&mut a).await, process(&mut b).await);
        drop(a);
        drop(b);
        let mut first = connections.get().await.unwrap();
        let mut second = connections.get().await.unwrap();
        assert_eq!(
            (process(&mut first).await, process(&mut second).await),
            (of_b, of_a)
        );
    }

    #[tokio::test]
    async fn a_dropped_transaction_is_rolled_back_before_its_connection_is_used_again() {
        let (connections, _database) = connections(1).await;
        let mut first = connections.get().await.unwrap();
        first.begin().await.unwrap();
        let made = first.execute(query("CREATE TABLE made (n integer)")).await;
        made.unwrap();
        let of_first = process(&mut first).await;
        drop(first);
        let mut second = connections.get().await.unwrap();
        assert_eq!(process(&mut second).await, of_first);
        let absent = number(
            &mut second,
            "SELECT CASE WHEN to_regclass('made') IS NULL THEN 1 ELSE 0 END",
        );
        assert_eq!(absent.await, 1);
    }

    #[tokio::test]
    async fn when_one_has_died_the_others_are_tested_before_they_are_used() {
        let (connections, _database) = connections(3).await;
        let (mut a, mut b, mut c) = (
            connections.get().await.unwrap(),
            connections.get().await.unwrap(),
            connections.get().await.unwrap(),
        );
        for connection in [&mut a, &mut b] {
            process(connection).await;
        }
        let others = query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        assert_eq!(c.all(others).await.unwrap().len(), 2);
        drop(c);
        drop(a);
        // It is the last one in use, and finds out.
        let error = b.execute(query("SELECT 1")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        drop(b);
        let (mut first, mut second) = (
            connections.get().await.unwrap(),
            connections.get().await.unwrap(),
        );
        assert_ne!(process(&mut first).await, process(&mut second).await);
    }

    #[tokio::test]
    async fn a_connection_whose_statement_was_given_up_is_not_used_again() {
        let (connections, _database) = connections(1).await;
        let mut first = connections.get().await.unwrap();
        let of_first = process(&mut first).await;
        let given_up = tokio::select! {
            biased;
            _ = first.execute(query("SELECT pg_sleep(60)")) => false,
            () = tokio::task::yield_now() => true,
        };
        assert!(given_up);
        let error = first.execute(query("SELECT 1")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        drop(first);
        let mut second = connections.get().await.unwrap();
        assert_ne!(process(&mut second).await, of_first);
    }
}
