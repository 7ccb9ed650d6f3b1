//! One private server: its process, folder and life.

mod mysql;
mod postgres;
mod rabbitmq;
mod redis;

use std::{
    ffi::OsString,
    fmt,
    fs::OpenOptions,
    future::Future,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use self::{
    mysql::MySqlRecipe, postgres::PostgresRecipe, rabbitmq::RabbitMqRecipe, redis::RedisRecipe,
};
pub(crate) use self::{
    postgres::psql,
    rabbitmq::Management,
    redis::{ask as ask_redis, authenticate as authenticate_redis},
};
use crate::{
    datadir::DataDir,
    error::{IoContext, Result, TestkitError},
    sys::{self, Signal},
    wait::tail,
};

/// A private PostgreSQL server. Superuser `gristmill`, no password, database `postgres`.
pub type Postgres = Server<PostgresRecipe>;
/// A private RabbitMQ node with the management API. User and password `gristmill`, vhost `/`.
pub type RabbitMq = Server<RabbitMqRecipe>;
/// A private MariaDB server. User, password and database `gristmill`.
pub type MySql = Server<MySqlRecipe>;
/// A private Redis server that keeps an append-only file, so that `restart` finds its data again.
pub type Redis = Server<RedisRecipe>;

/// Generous, because a test machine may be busy with a build; a healthy start takes 0.1 s (Redis) to 5 s (RabbitMQ).
const START_DEADLINE: Duration = Duration::from_secs(120);
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// How one kind of server is prepared, started and asked whether it serves.
pub trait Recipe: Sized + Send + Sync + 'static {
    /// Name for messages.
    const NAME: &'static str;
    /// Signal that asks for an orderly stop.
    const STOP_SIGNAL: Signal;
    /// Signal the kernel sends when the test process dies.
    const DEATH_SIGNAL: Signal;

    /// Finds the programs, takes ports and fills `dir`.
    fn prepare(dir: &Path) -> Result<Self>;
    /// A program that must run beside the server and outlives its kills.
    fn companion(&self) -> Option<Command> {
        None
    }
    /// The server in the foreground. Standard streams are set by the caller.
    fn command(&self) -> Command;
    /// Whether it serves requests now. Must return within about a second.
    fn serves(&self) -> impl Future<Output = bool> + Send;
    /// URL of the form that the product takes.
    fn url(&self) -> String;
    /// Removes all data of the stopped server.
    fn wipe(&self) -> Result<()>;
}

/// A server process of our own on a loopback port, with its data in a temporary folder. Both are gone when the value
/// is dropped, and when the test process dies in whatever way.
pub struct Server<R: Recipe> {
    // Order matters: processes are killed (in `drop`) before the folder goes.
    process: Mutex<Option<Child>>,
    companion: Mutex<Option<Child>>,
    recipe: R,
    environment: Vec<(OsString, OsString)>,
    dir: DataDir,
}

impl<R: Recipe> Server<R> {
    /// Starts a fresh server and waits until it serves.
    pub async fn start() -> Result<Self> {
        Self::start_with(Vec::new()).await
    }

    /// Like [`Self::start`], with more environment variables for the server, of all its starts.
    pub async fn start_with(environment: Vec<(OsString, OsString)>) -> Result<Self> {
        let dir = DataDir::new(R::NAME)?;
        let path = dir.path().to_owned();
        let recipe = blocking({
            let path = path.clone();
            move || R::prepare(&path)
        })
        .await?;
        let companion = match recipe.companion() {
            Some(command) => Some(launch(command, &path.join("companion.log"), libc::SIGKILL)?),
            None => None,
        };
        let server = Self {
            process: Mutex::new(None),
            companion: Mutex::new(companion),
            recipe,
            environment,
            dir,
        };
        server.up().await?;
        Ok(server)
    }

    /// URL for clients, as `GRISTMILL_DATABASE_URL`, `GRISTMILL_AMQP_URL` or `GRISTMILL_REDIS_URL` take it. Stays the
    /// same over restarts.
    pub fn url(&self) -> String {
        self.recipe.url()
    }

    /// Whether the server serves requests at this moment.
    pub async fn is_up(&self) -> bool {
        self.recipe.serves().await
    }

    /// Folder of the server's data and log.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Log of the server, all starts one after the other.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Kills the server and its children with SIGKILL and waits until they are gone. Data stays for [`Self::restart`].
    pub async fn kill(&self) -> Result<()> {
        let Some(root) = self.pid() else {
            return Ok(());
        };
        let children = sys::kill_tree(root).context(|| format!("killing {}", R::NAME))?;
        self.gone(&children).await
    }

    /// Stops the server in an orderly way. Data stays for [`Self::restart`].
    pub async fn stop(&self) -> Result<()> {
        let Some(root) = self.pid() else {
            return Ok(());
        };
        sys::send_signal(root, R::STOP_SIGNAL).context(|| format!("stopping {}", R::NAME))?;
        self.gone(&[]).await
    }

    /// Freezes the server and its children (SIGSTOP): connections stay open, nothing answers.
    pub fn pause(&self) -> Result<()> {
        let Some(root) = self.pid() else {
            return Ok(());
        };
        // The parent first, so that it starts no child that we would miss.
        sys::send_signal(root, libc::SIGSTOP)
            .and_then(|()| signal_all(&sys::descendants(root), libc::SIGSTOP))
            .context(|| format!("pausing {}", R::NAME))
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) -> Result<()> {
        let Some(root) = self.pid() else {
            return Ok(());
        };
        signal_all(&sys::descendants(root), libc::SIGCONT)
            .and_then(|()| sys::send_signal(root, libc::SIGCONT))
            .context(|| format!("resuming {}", R::NAME))
    }

    /// Starts the server again on the same port with the same data, and waits until it serves. A running one is killed
    /// with SIGKILL first.
    pub async fn restart(&self) -> Result<()> {
        self.kill().await?;
        self.up().await
    }

    /// Like [`Self::restart`], with all data gone.
    pub async fn restart_empty(&self) -> Result<()> {
        self.kill().await?;
        self.recipe.wipe()?;
        self.up().await
    }

    pub(crate) fn recipe(&self) -> &R {
        &self.recipe
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn up(&self) -> Result<()> {
        let mut command = self.recipe.command();
        command.envs(self.environment.iter().cloned());
        let child = launch(command, &self.log(), R::DEATH_SIGNAL)?;
        *self.process() = Some(child);
        let start = Instant::now();
        loop {
            if self.recipe.serves().await {
                return Ok(());
            }
            let exited = match self.process().as_mut() {
                Some(child) => child
                    .try_wait()
                    .context(|| format!("waiting for {}", R::NAME))?,
                None => None,
            };
            let what = match exited {
                Some(status) => format!("ended while starting ({status})"),
                None if start.elapsed() > START_DEADLINE => {
                    format!("did not serve within {} s", START_DEADLINE.as_secs())
                }
                None => {
                    tokio::time::sleep(Duration::from_millis(25)).await;
                    continue;
                }
            };
            return Err(self.not_ready(what));
        }
    }

    fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
    }

    /// Waits for the end of the server process and of `others`.
    async fn gone(&self, others: &[u32]) -> Result<()> {
        let ended = || match self.process().as_mut().map(Child::try_wait) {
            None | Some(Ok(Some(_)) | Err(_)) => others.iter().all(|&pid| !sys::is_alive(pid)),
            Some(Ok(None)) => false,
        };
        let start = Instant::now();
        while !ended() {
            if start.elapsed() > STOP_DEADLINE {
                return Err(
                    self.not_ready(format!("did not end within {} s", STOP_DEADLINE.as_secs()))
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.process().take();
        Ok(())
    }

    fn not_ready(&self, what: String) -> TestkitError {
        TestkitError::NotReady {
            server: R::NAME,
            what,
            log: self.log(),
            tail: tail(&self.log(), 30),
        }
    }
}

fn signal_all(pids: &[u32], signal: Signal) -> std::io::Result<()> {
    pids.iter()
        .try_for_each(|&pid| sys::send_signal(pid, signal))
}

impl<R: Recipe> fmt::Debug for Server<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(R::NAME)
            .field("url", &self.recipe.url())
            .field("dir", &self.dir.path())
            .finish_non_exhaustive()
    }
}

impl<R: Recipe> Drop for Server<R> {
    fn drop(&mut self) {
        // Best effort: whatever survives gets its death signal when this process ends. An orderly stop where it is
        // quick, so that PostgreSQL leaves no shared memory segment behind.
        let _ = self.resume();
        if let Some(root) = self.pid() {
            let _ = sys::send_signal(root, R::DEATH_SIGNAL);
        }
        let companion = self
            .companion
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = companion.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(mut child) = self.process().take() {
            let _ = child.wait();
        }
    }
}

/// Starts `command` with both output streams appended to `log`.
fn launch(mut command: Command, log: &Path, death_signal: Signal) -> Result<Child> {
    let context = || format!("starting {}", command.get_program().to_string_lossy());
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .context(context)?;
    let copy = file.try_clone().context(context)?;
    let name = context();
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    sys::spawn(command, death_signal).context(|| name)
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
        .context(|| "helper thread".into())?
}
