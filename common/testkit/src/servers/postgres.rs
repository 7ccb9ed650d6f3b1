//! PostgreSQL.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use super::Recipe;
use crate::{
    error::{IoContext, Result, TestkitError},
    port::ReservedPort,
    program,
    sys::{self, Signal},
};

/// How a private PostgreSQL is run: durability as in production, trust on loopback.
#[derive(Debug)]
pub struct PostgresRecipe {
    programs: PathBuf,
    data: PathBuf,
    port: ReservedPort,
    /// Account to run as when we are root, which PostgreSQL refuses.
    account: Option<(u32, u32)>,
}

impl Recipe for PostgresRecipe {
    const NAME: &'static str = "postgres";
    /// "Fast shutdown": ends sessions, writes a checkpoint.
    const STOP_SIGNAL: Signal = libc::SIGINT;
    /// "Immediate shutdown": no checkpoint, but shared memory is given back.
    const DEATH_SIGNAL: Signal = libc::SIGQUIT;

    fn prepare(dir: &Path) -> Result<Self> {
        let server =
            program::find("initdb", &program_folders()).ok_or_else(|| missing("initdb"))?;
        let programs = server.parent().map(Path::to_owned).unwrap_or_default();
        let account = match sys::is_root() {
            true => Some(program::account("postgres").ok_or_else(|| missing("postgres"))?),
            false => None,
        };
        let recipe = Self {
            data: dir.join("data"),
            port: ReservedPort::new()?,
            programs,
            account,
        };
        if let Some((uid, gid)) = account {
            chown(dir, Some(uid), Some(gid))
                .context(|| format!("giving {} to the postgres account", dir.display()))?;
        }
        recipe.initialise()?;
        Ok(recipe)
    }

    fn command(&self) -> Command {
        let mut command = self.tool("postgres");
        let port = self.port.number().to_string();
        command.arg("-D").arg(&self.data).args(["-p", &port]);
        let mut settings = vec![
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=400",
            "log_lock_waits=on",
            // In the data folder, so that `kill -9` leaves nothing in /dev/shm.
            "dynamic_shared_memory_type=mmap",
            "log_line_prefix=%m [%p] %d ",
        ];
        if self.has_statement_statistics() {
            settings.push("shared_preload_libraries=pg_stat_statements");
        }
        for setting in settings {
            command.args(["-c", setting]);
        }
        command
    }

    async fn serves(&self) -> bool {
        let mut command = tokio::process::Command::new(self.programs.join("pg_isready"));
        command
            .args(["-q", "-t", "1", "-h", "127.0.0.1", "-p"])
            .arg(self.port.number().to_string());
        command.status().await.is_ok_and(|status| status.success())
    }

    fn url(&self) -> String {
        let port = self.port.number();
        format!("postgres://gristmill@127.0.0.1:{port}/postgres")
    }

    fn wipe(&self) -> Result<()> {
        fs::remove_dir_all(&self.data).context(|| format!("emptying {}", self.data.display()))?;
        self.initialise()
    }
}

impl PostgresRecipe {
    fn initialise(&self) -> Result<()> {
        let mut command = self.tool("initdb");
        // --no-sync concerns only this new folder; the running server syncs as always.
        command.arg("-D").arg(&self.data).args([
            "--username=gristmill",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-instructions",
            "--no-sync",
        ]);
        program::run(command).map(drop)
    }

    /// `name` from the server's folder, run as the account PostgreSQL accepts.
    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir("/").env_remove("LC_ALL");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// `pg_stat_statements` counts statements for benchmarks; some packagings ship it apart.
    fn has_statement_statistics(&self) -> bool {
        let library = Path::new("../lib/pg_stat_statements.so");
        self.programs.join(library).is_file()
    }
}

/// Runs SQL statements, each in a transaction of its own, on the database that `url` names.
pub(crate) fn psql(url: &str, statements: &[String]) -> Result<String> {
    let program = program::find("psql", &program_folders()).ok_or_else(|| missing("psql"))?;
    let mut command = Command::new(program);
    command
        .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
        .args(["--set=ON_ERROR_STOP=1", "--no-password"])
        .env("PGCONNECT_TIMEOUT", "10")
        .current_dir("/");
    for statement in statements {
        command.args(["--command", statement]);
    }
    command.arg(url);
    program::run(command)
}

/// Debian keeps each major version in a folder of its own; the newest first.
fn program_folders() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

fn missing(program: &'static str) -> TestkitError {
    TestkitError::MissingProgram {
        server: PostgresRecipe::NAME,
        program,
        looked_in: "/usr/lib/postgresql/*/bin and PATH",
        package: "postgresql",
        variable: crate::env::DATABASE_URL,
        example: "postgres://user:password@127.0.0.1:5432/postgres",
    }
}
