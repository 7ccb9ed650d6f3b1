//! The connection to the database. The SQL stands beside the check that it is for.

use super::CheckError;
use sqlx::{PgPool, postgres::PgPoolOptions};

/// The deployment's database, read only.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pub(super) pool: PgPool,
}

impl Database {
    pub(super) async fn open(url: &str) -> Result<Self, CheckError> {
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::query("SET default_transaction_read_only = on")
                        .execute(connection)
                        .await
                        .map(drop)
                })
            })
            .connect(url)
            .await?;
        Ok(Self { pool })
    }
}
