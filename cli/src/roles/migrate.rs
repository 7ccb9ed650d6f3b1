//! `gristmill migrate`.

use super::{RoleResult, connect, secret};
use clap::Args;
use std::time::{Duration, Instant};

/// Migrates the database of `GRISTMILL_DATABASE_URL`.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// How long to wait for a database that is not there yet
    #[arg(long, default_value = "60s")]
    wait: gristmill_common::span::Span,
}

pub(super) async fn run(args: MigrateArgs) -> RoleResult {
    let store = connect::store(2).await?;
    let until = Instant::now() + args.wait.duration();
    let mut said = false;
    loop {
        match store.migrate().await {
            Ok(()) => break,
            Err(error) if error.is_transient() && Instant::now() < until => {
                if !said {
                    eprintln!("waiting for the database: {error}");
                    said = true;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("The database is at this version's schema.");
    if let Some(password) =
        gristmill_api::ensure_admin(&*store, secret::from_env("GRISTMILL_ADMIN_PASSWORD")?).await?
    {
        println!(
            "Made the first user: admin, password {password} (shown once; set GRISTMILL_ADMIN_PASSWORD to choose it)."
        );
    }
    Ok(())
}
