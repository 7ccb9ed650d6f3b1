//! SQL statements and commits, counted where they run.

use crate::client::Client;
use gristmill_testkit::shared;

/// Statements without those that only open and close transactions, and the next transaction id: an id is spent by every
/// transaction that writes, so its advance is the number of commits that reach the disk. (`pg_stat_database` lags by
/// up to ten seconds and counts transactions that only read.)
const COUNT: &str = "SELECT COALESCE(sum(s.calls), 0)::bigint, pg_snapshot_xmax(pg_current_snapshot()), \
    COALESCE(sum(s.total_exec_time), 0), COALESCE(sum(s.shared_blks_hit + s.shared_blks_read), 0)::bigint \
    FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
    WHERE d.datname = current_database() \
      AND s.query !~* '^\\s*(begin|start transaction|commit|rollback|savepoint|release|set |discard|listen|deallocate)'";

/// Names under which a process exposes its own counts in `/metrics`.
const STATEMENTS_METRIC: &str = "gristmill_sql_statements_total";
const COMMITS_METRIC: &str = "gristmill_sql_commits_total";

/// Counts so far.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    pub statements: f64,
    pub commits: f64,
    /// Milliseconds within statements, and blocks of tables and indexes that they touched; PostgreSQL only.
    pub statement_ms: Option<f64>,
    pub blocks: Option<f64>,
}

/// Where statements are counted.
#[derive(Debug)]
pub enum Statements {
    /// By PostgreSQL's `pg_stat_statements`: those of all processes, the few that the load's own requests cause among them.
    Database(String),
    /// By the process itself.
    Metrics(Client),
    /// Nowhere: the server lacks the extension, or is not ours to ask.
    Nowhere,
}

impl Statements {
    /// Counts in the database at `url`, where the extension can be made.
    pub async fn of_database(url: &str) -> Self {
        match shared::sql(url, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await {
            Ok(_) => Self::Database(url.to_owned()),
            Err(error) => {
                eprintln!("SQL statements are not counted: {error}");
                Self::Nowhere
            }
        }
    }

    /// Counts by the process behind `client`.
    pub fn of_metrics(client: Client) -> Self {
        Self::Metrics(client)
    }

    /// Counts so far, if they can be had.
    pub async fn count(&self) -> Option<Counts> {
        match self {
            Self::Database(url) => parse(&shared::sql(url, COUNT).await.ok()?),
            Self::Metrics(client) => Some(Counts {
                statements: client.counter(STATEMENTS_METRIC).await?,
                commits: client.counter(COMMITS_METRIC).await?,
                statement_ms: None,
                blocks: None,
            }),
            Self::Nowhere => None,
        }
    }
}

fn parse(row: &str) -> Option<Counts> {
    let mut columns = row.trim().split('|').map(|column| column.parse().ok());
    let mut next = || columns.next().flatten();
    Some(Counts {
        statements: next()?,
        commits: next()?,
        statement_ms: next(),
        blocks: next(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_a_row_of_psql() {
        let counts = parse("12|345|6.5|78\n").unwrap();
        assert_eq!((counts.statements, counts.commits), (12.0, 345.0));
        assert_eq!(
            (counts.statement_ms, counts.blocks),
            (Some(6.5), Some(78.0))
        );
        assert!(parse("").is_none());
    }
}
