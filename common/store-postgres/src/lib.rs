//! The metadata store on PostgreSQL: all SQL for it lives here.
//!
//! - [`PgStore`] is the [`Backend`]; [`PgTx`] is one open transaction, READ COMMITTED.
//! - `tx/` holds the statements of transactions by noun, `reads/` the queries, `rows.rs` the only place where rows become
//!   records, `error.rs` the only one where SQLSTATEs become [`StoreError`](gristmill_store::StoreError)s.
//! - Every statement goes through the helpers of [`PgTx`] and [`PgStore`], which count it and bound its wait.

mod bind;
mod clock;
mod connections;
mod error;
mod listen;
mod meter;
mod reads;
mod rows;
mod schema;
mod tx;

pub use tx::PgTx;

use clock::Clock;
use connections::{Connection, Connections};
use gristmill_common::message::Started;
use gristmill_store::{Backend, Starts, StoreError, StoreResult};
use listen::RunChanges;
use meter::Meter;
use sqlx::{
    Postgres,
    postgres::{PgArguments, PgConnectOptions, PgRow},
    query::Query,
};
use std::{str::FromStr, sync::Arc};
use tokio::task::AbortHandle;

/// A statement with its parameters.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Settings of a [`PgStore`].
#[derive(Debug, Clone)]
pub struct PgOptions {
    /// Connections of the pool at most; one more listens for notifications.
    pub max_connections: u32,
}

impl Default for PgOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
        }
    }
}

/// A pool of connections to one database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PgStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connections: Connections,
    options: PgConnectOptions,
    clock: Arc<Clock>,
    meter: Arc<Meter>,
    changes: Arc<RunChanges>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl PgStore {
    /// A store on the database that `url` names. Connects when first used: the server may be away, operations then answer
    /// `Unavailable` until it is there. Fails only if `url` cannot be read. Must be called inside a Tokio runtime.
    pub fn connect(url: &str, options: PgOptions) -> StoreResult<Self> {
        let connect = PgConnectOptions::from_str(url)
            .map_err(|error| {
                StoreError::Refused(format!("the database URL is not valid: {error}"))
            })?
            .application_name("gristmill")
            // Statements are many and small: compiling them costs more than it saves, whatever the planner estimates.
            .options([("jit", "off")])
            .statement_cache_capacity(256)
            .options(SESSION);
        let max = usize::try_from(options.max_connections).unwrap_or(usize::MAX);
        let connections = Connections::new(connect.clone(), max)?;
        let clock = Arc::new(Clock::default());
        let changes = Arc::new(RunChanges::default());
        let tasks = vec![
            tokio::spawn(clock::keep(clock.clone(), connections.clone())).abort_handle(),
            tokio::spawn(listen::keep(changes.clone(), connect.clone())).abort_handle(),
        ];
        Ok(Self {
            inner: Arc::new(Inner {
                connections,
                options: connect,
                clock,
                meter: Arc::default(),
                changes,
                tasks,
            }),
        })
    }

    /// Closes all connections; those in use when they are given back.
    pub async fn close(&self) {
        self.inner.connections.close();
    }

    async fn connection(&self) -> StoreResult<Connection> {
        self.inner.connections.get().await
    }

    /// All rows of a statement that is a transaction of its own.
    pub(crate) async fn all(&self, statement: Statement<'_>) -> StoreResult<Vec<PgRow>> {
        let mut connection = self.connection().await?;
        self.inner.meter.standalone();
        connection.all(statement).await
    }

    /// The first row, if any.
    pub(crate) async fn optional(&self, statement: Statement<'_>) -> StoreResult<Option<PgRow>> {
        let mut connection = self.connection().await?;
        self.inner.meter.standalone();
        connection.optional(statement).await
    }

    /// Returns the number of rows written.
    pub(crate) async fn execute(&self, statement: Statement<'_>) -> StoreResult<u64> {
        let mut connection = self.connection().await?;
        self.inner.meter.standalone();
        Ok(connection.execute(statement).await?.rows_affected())
    }
}

#[async_trait::async_trait]
impl Backend for PgStore {
    type Tx = PgTx;

    async fn begin(&self) -> StoreResult<PgTx> {
        if !self.inner.clock.is_set() {
            // Only before the clock's first measurement: the transaction's time must be the database's.
            self.measure_clock().await?;
        }
        PgTx::begin(&self.inner).await
    }

    async fn record_starts(&self, starts: &[&Started]) -> StoreResult<Starts> {
        tx::record_starts(self, starts).await
    }
}

/// Settings of every session.
///
/// The planner's: each statement of this crate is meant to run by index and nested loop, whatever statistics say. Those of a
/// fresh or suddenly grown table are wrong until the next ANALYZE, and a cached plan would keep a sequential scan or a
/// hash of a whole table that far; JIT costs more than any of them takes. With that there is one plan that is right, and to
/// plan anew for each execution (1 to 3 ms for the longest) gains nothing.
/// Durability: an answer means that the change is on disk, also where the server's default is laxer.
const SESSION: [(&str, &str); 10] = [
    ("synchronous_commit", "on"),
    ("statement_timeout", "15s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("timezone", "UTC"),
];
