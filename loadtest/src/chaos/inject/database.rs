//! A database that is there and refuses to write.

use crate::{
    chaos::stage::Stage,
    error::{LoadError, Result},
};
use std::time::{Duration, Instant};

/// How long a statement that begins or ends a fault is tried: other faults hit the same server.
const PATIENCE: Duration = Duration::from_secs(90);

/// Every new transaction may only read (SQLSTATE 25006). What managed PostgreSQL services do when the disk is nearly full.
pub(super) async fn read_only(stage: &Stage, lasts: Duration) -> Result<()> {
    let set = |to: &'static str| async move {
        tries(stage, &format!("ALTER SYSTEM {to}")).await?;
        tries(stage, "SELECT pg_reload_conf()").await
    };
    set("SET default_transaction_read_only = on").await?;
    tokio::time::sleep(lasts).await;
    set("RESET default_transaction_read_only").await
}

/// Some of the writing statements fail with SQLSTATE 53100, as when a file cannot grow: some tables have room in their
/// pages yet and some have not, so a transaction may fail at any of its statements, at its first or its last.
///
/// A trigger does it. A real disk that is full hits PostgreSQL's own log at once, and then the server restarts, which is
/// the kill's case.
pub(super) async fn disk_full(stage: &Stage, percent: u32, lasts: Duration) -> Result<()> {
    tries(stage, &full_sql(percent)).await?;
    tokio::time::sleep(lasts).await;
    tries(
        stage,
        "SET lock_timeout = '2s'; DROP FUNCTION IF EXISTS chaos_disk_full() CASCADE",
    )
    .await
}

fn full_sql(percent: u32) -> String {
    format!(
        "SET lock_timeout = '2s';
CREATE OR REPLACE FUNCTION chaos_disk_full() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF random() * 100 < {percent} THEN
        RAISE EXCEPTION 'could not extend file of %: No space left on device', TG_TABLE_NAME
            USING ERRCODE = 'disk_full';
    END IF;
    RETURN NULL;
END $body$;
DO $body$
DECLARE t regclass;
BEGIN
    FOR t IN SELECT oid::regclass FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname NOT LIKE '%migration%'
        ORDER BY relname LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER chaos_disk_full BEFORE INSERT OR UPDATE ON %s
            FOR EACH STATEMENT EXECUTE FUNCTION chaos_disk_full()', t);
    END LOOP;
END $body$"
    )
}

/// Runs a statement (or several, as one transaction) until it has worked.
async fn tries(stage: &Stage, statement: &str) -> Result<()> {
    let servers = stage.servers()?;
    let start = Instant::now();
    loop {
        match servers.sql(statement).await {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(LoadError::FaultStatement {
                    statement: statement.to_owned(),
                    why: error.to_string(),
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}
