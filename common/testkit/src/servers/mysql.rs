//! MySQL, as MariaDB: a database that tasks talk to, none of the product's own.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::Recipe;
use crate::{
    error::{IoContext, Result, TestkitError},
    port::ReservedPort,
    program,
    sys::{self, Signal},
};

/// How a private MariaDB is run: a database and a user of their own.
#[derive(Debug)]
pub struct MySqlRecipe {
    server: PathBuf,
    data: PathBuf,
    /// Statements of every start.
    init: PathBuf,
    port: ReservedPort,
    /// Account to run as when we are root, which MariaDB refuses.
    account: Option<(u32, u32)>,
}

impl Recipe for MySqlRecipe {
    const NAME: &'static str = "mysql";
    const STOP_SIGNAL: Signal = libc::SIGTERM;
    const DEATH_SIGNAL: Signal = libc::SIGKILL;

    fn prepare(dir: &Path) -> Result<Self> {
        let folders = [PathBuf::from("/usr/sbin")];
        let server = program::find("mariadbd", &folders).ok_or_else(|| missing("mariadbd"))?;
        let account = match sys::is_root() {
            true => Some(program::account("mysql").ok_or_else(|| missing("mysql"))?),
            false => None,
        };
        let recipe = Self {
            server,
            data: dir.join("data"),
            init: dir.join("init.sql"),
            port: ReservedPort::new()?,
            account,
        };
        if let Some((uid, gid)) = account {
            chown(dir, Some(uid), Some(gid))
                .context(|| format!("giving {} to the mysql account", dir.display()))?;
        }
        let statements = "CREATE DATABASE IF NOT EXISTS gristmill;\n\
             CREATE USER IF NOT EXISTS gristmill IDENTIFIED BY 'gristmill';\n\
             GRANT ALL ON *.* TO gristmill;\n";
        fs::write(&recipe.init, statements)
            .context(|| format!("writing {}", recipe.init.display()))?;
        recipe.initialise()?;
        Ok(recipe)
    }

    fn command(&self) -> Command {
        let mut command = self.tool(&self.server);
        command
            .arg("--no-defaults")
            .arg(argument("--datadir", &self.data))
            .arg(argument("--init-file", &self.init))
            .arg(argument("--socket", &self.data.join("socket")))
            .arg(argument("--pid-file", &self.data.join("pid")))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve"])
            .arg(format!("--port={}", self.port.number()));
        command
    }

    async fn serves(&self) -> bool {
        let address = format!("127.0.0.1:{}", self.port.number());
        // It speaks first: a packet's head, then the version of the protocol.
        let greeting = async {
            let mut stream = TcpStream::connect(&address).await.ok()?;
            let mut head = [0; 5];
            stream.read_exact(&mut head).await.ok()?;
            Some(head[4])
        };
        matches!(
            timeout(Duration::from_secs(1), greeting).await,
            Ok(Some(10))
        )
    }

    fn url(&self) -> String {
        let port = self.port.number();
        format!("mysql://gristmill:gristmill@127.0.0.1:{port}/gristmill")
    }

    fn wipe(&self) -> Result<()> {
        fs::remove_dir_all(&self.data).context(|| format!("emptying {}", self.data.display()))?;
        self.initialise()
    }
}

impl MySqlRecipe {
    fn initialise(&self) -> Result<()> {
        let install = program::find("mariadb-install-db", &[])
            .ok_or_else(|| missing("mariadb-install-db"))?;
        let mut command = self.tool(&install);
        command
            .args(["--no-defaults", "--skip-test-db"])
            .arg("--auth-root-authentication-method=normal")
            .arg(argument("--datadir", &self.data));
        program::run(command).map(drop)
    }

    /// A program, run as the account that the server accepts.
    fn tool(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }
}

fn argument(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

fn missing(program: &'static str) -> TestkitError {
    TestkitError::MissingProgram {
        server: MySqlRecipe::NAME,
        program,
        looked_in: "PATH and /usr/sbin",
        package: "mariadb-server",
        variable: crate::env::MYSQL_URL,
        example: "mysql://gristmill:gristmill@127.0.0.1:3306/gristmill",
    }
}
