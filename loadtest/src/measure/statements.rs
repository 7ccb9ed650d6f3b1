//! SQL statements and commits, counted where they run.

use crate::client::Client;
use gristmill_testkit::Database;
use std::sync::Arc;

/// Statements without those that only open and close transactions, and the next transaction id: an id is spent by every
/// transaction that writes, so its advance is the number of commits that reach the disk. (`pg_stat_database` lags by
/// up to ten seconds and counts transactions that only read.)
const COUNT: &str = "SELECT COALESCE(sum(s.calls), 0)::bigint, pg_snapshot_xmax(pg_current_snapshot()) \
    FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
    WHERE d.datname = current_database() \
      AND s.query !~* '^\\s*(begin|start transaction|commit|rollback|savepoint|release|set |discard|listen|deallocate)'";

/// Names under which a process exposes its own counts in `/metrics`.
const STATEMENTS_METRIC: &str = "gristmill_sql_statements_total";
const COMMITS_METRIC: &str = "gristmill_sql_commits_total";

/// Counts so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) statements: f64,
    pub(crate) commits: f64,
}

/// Where statements are counted.
#[derive(Debug)]
pub(crate) enum Statements {
    /// By PostgreSQL's `pg_stat_statements`: those of all processes, the few that the load's own requests cause among them.
    Database(Arc<Database>),
    /// By the process itself.
    Metrics(Client),
    /// Nowhere: the server lacks the extension.
    Nowhere,
}

impl Statements {
    /// Counts at `database`, where the extension can be made.
    pub(crate) async fn of_database(database: Arc<Database>) -> Self {
        match database
            .sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            .await
        {
            Ok(_) => Self::Database(database),
            Err(error) => {
                eprintln!("SQL statements are not counted: {error}");
                Self::Nowhere
            }
        }
    }

    /// Counts by the process behind `client`.
    pub(crate) fn of_metrics(client: Client) -> Self {
        Self::Metrics(client)
    }

    /// Counts so far, if they can be had.
    pub(crate) async fn count(&self) -> Option<Counts> {
        match self {
            Self::Database(database) => parse(&database.sql(COUNT).await.ok()?),
            Self::Metrics(client) => Some(Counts {
                statements: client.counter(STATEMENTS_METRIC).await?,
                commits: client.counter(COMMITS_METRIC).await?,
            }),
            Self::Nowhere => None,
        }
    }
}

fn parse(row: &str) -> Option<Counts> {
    let (statements, commits) = row.trim().split_once('|')?;
    Some(Counts {
        statements: statements.parse().ok()?,
        commits: commits.parse().ok()?,
    })
}
