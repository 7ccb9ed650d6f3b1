//! The database's clock, estimated without asking.
//!
//! A measurement ties the server's clock to this machine's monotonic one, so that neither a step of the local wall clock
//! nor a statement per transaction is of any concern. Measured anew every few seconds.

use crate::{
    PgStore,
    connections::{Connection, Connections},
    rows::get,
};
use chrono::{DateTime, SubsecRound, Utc};
use gristmill_store::{StoreError, StoreResult};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

const REFRESH: Duration = Duration::from_secs(5);
/// A measurement older than this is replaced by any newer one, however slow its round trip.
const STALE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Clock {
    measured: RwLock<Option<Measurement>>,
}

#[derive(Debug, Clone, Copy)]
struct Measurement {
    /// The server's clock at `at`.
    server: DateTime<Utc>,
    at: Instant,
    /// Twice the greatest error.
    round_trip: Duration,
}

impl Clock {
    pub(crate) fn is_set(&self) -> bool {
        self.read().is_some()
    }

    /// In microseconds, as the database keeps times. Before the first measurement: this machine's clock.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        match self.read() {
            Some(m) => m.server + m.at.elapsed(),
            None => Utc::now(),
        }
        .trunc_subsecs(6)
    }

    fn read(&self) -> Option<Measurement> {
        *self.measured.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, new: Measurement) {
        let mut measured = self
            .measured
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // A busy machine gives slow, hence vague, answers: a good one is kept for a while.
        let keep = measured
            .is_some_and(|old| old.at.elapsed() < STALE && new.round_trip > 2 * old.round_trip);
        if !keep {
            *measured = Some(new);
        }
    }

    async fn measure(&self, connection: &mut Connection) -> StoreResult<DateTime<Utc>> {
        let sent = Instant::now();
        let row = connection
            .optional(sqlx::query("SELECT clock_timestamp() AS now"))
            .await?
            .ok_or_else(|| StoreError::Corrupt("a SELECT gave no row".to_owned()))?;
        let round_trip = sent.elapsed();
        let server = get(&row, "now")?;
        self.offer(Measurement {
            server,
            at: sent + round_trip / 2,
            round_trip,
        });
        Ok(server)
    }
}

impl PgStore {
    /// Asks for the database's time, and sets the clock by it.
    pub(crate) async fn measure_clock(&self) -> StoreResult<DateTime<Utc>> {
        let mut connection = self.connection().await?;
        self.inner.meter.standalone();
        self.inner.clock.measure(&mut connection).await
    }
}

/// Measures for ever. A failure is no news: whoever uses the database hears of it.
pub(crate) async fn keep(clock: Arc<Clock>, connections: Connections) {
    loop {
        connections.close_unneeded();
        let measured = async { clock.measure(&mut connections.get().await?).await };
        if let Err(error) = measured.await {
            tracing::debug!(%error, "the database's clock was not measured");
        }
        tokio::time::sleep(REFRESH).await;
    }
}
