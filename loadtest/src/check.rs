//! Looks for breaches of the invariants in what a deployment left behind: the database, the broker, Redis, and the ledger
//! that the tasks wrote. Nothing is asked of Gristmill itself, and none of its code reads the rows.
//!
//! Call [`check`] when all work has ended; what may still be under way then (the last messages, claims and slots given back)
//! is waited for, up to [`Evidence::patience`].

mod attempts;
mod broker;
mod by_clock;
mod command;
mod database;
mod endings;
mod error;
mod ledger;
mod limits;
mod orphans;
mod presence;
mod rest;
mod rows;
mod runs;
mod verdict;

pub use command::CheckArgs;
pub use error::CheckError;
pub use verdict::{Breach, Counted, Verdict};

use crate::workload::{self, Workload};
use chrono::{DateTime, Utc};
use database::Database;
use gristmill_common::invariant::Invariant;
use ledger::Ledger;
use rows::Rows;
use std::{path::PathBuf, time::Duration};

/// Where to look, and what the client knows.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// `postgres://…`
    pub database_url: String,
    /// `amqp://…/VHOST`
    pub amqp_url: String,
    /// The broker's management API with credentials, `http://user:password@host:port`. Without it only messages that are
    /// ready are seen at the broker, not those that a consumer holds.
    pub management_url: Option<String>,
    /// `redis://…/NUMBER`
    pub redis_url: String,
    /// Folder of the ledger, see [`crate::workload::Ledger`]. `None`: the tasks kept none, and what needs it is not checked.
    pub ledger: Option<PathBuf>,
    /// Runs that the API answered with 2xx, in any order. They are also taken to be finished: an accepted run that has not
    /// ended is a breach.
    pub accepted: Vec<AcceptedRun>,
    /// How long to wait for what ends by itself.
    pub patience: Duration,
    /// The wall clocks of database or workers were moved while the tasks ran: their times say nothing about order, and
    /// attempts that were killed count for the limits only until their last sign of life.
    pub clocks_moved: bool,
}

/// A run that the API accepted, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcceptedRun {
    pub dag_id: String,
    pub run_id: String,
    /// When the answer was there, by the client's clock.
    pub accepted_at: DateTime<Utc>,
}

/// Checks every invariant. What the tasks of `workload` should have done is known; of others
/// ([`Workload::unknown`]) the database's own record of their endings is taken.
///
/// An error means that the evidence could not be read; a breach is not an error.
pub async fn check(evidence: &Evidence, workload: &Workload) -> Result<Verdict, CheckError> {
    let database = Database::open(&evidence.database_url).await?;
    let mut verdict = Verdict::default();
    let boot_to_wall = limits::boot_to_wall();
    rest::check(evidence, &database, &mut verdict).await?;
    runs::check(evidence, &database, &mut verdict).await?;
    orphans::references(&database, &mut verdict).await?;
    let rows = Rows::read(&database.pool).await?;
    count(&rows, &mut verdict.counted);
    orphans::counters(&rows, &mut verdict);
    attempts::one_ending(&rows, &mut verdict);
    endings::check(&rows, workload, &mut verdict);
    if !evidence.clocks_moved {
        by_clock::rates(&rows, &mut verdict);
    }
    match &evidence.ledger {
        Some(folder) => {
            let ledger = Ledger::read(&workload::Ledger::at(folder.clone()).lines())?;
            let located = attempts::located(&ledger, &rows);
            let counted = &mut verdict.counted;
            counted.live_attempts = ledger.lives.len();
            counted.killed_attempts = ledger
                .lives
                .iter()
                .filter(|life| life.code.is_none())
                .count();
            counted.torn_records = ledger.torn;
            attempts::one_live(&ledger, &mut verdict);
            attempts::ledger_agrees(&ledger, &located, &rows, &mut verdict);
            attempts::nothing_made_up(&ledger, &located, &rows, workload, &mut verdict);
            limits::check(
                evidence,
                &ledger,
                &located,
                &rows,
                boot_to_wall,
                &mut verdict,
            );
            if !evidence.clocks_moved {
                by_clock::waits(&ledger, &located, &rows, boot_to_wall, &mut verdict);
            }
        }
        None => {
            for invariant in [Invariant::OneLiveAttempt, Invariant::LimitsHold] {
                let why = "there is no ledger".to_owned();
                verdict.unchecked.insert(invariant, why);
            }
        }
    }
    Ok(verdict)
}

fn count(rows: &Rows, counted: &mut Counted) {
    counted.runs = rows.runs.len();
    counted.task_instances = rows.instances.iter().filter(|i| i.is_visible()).count();
    counted.attempts = rows.attempts.len();
}

#[cfg(test)]
mod tests;
