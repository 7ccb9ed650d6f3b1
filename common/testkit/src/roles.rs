//! Processes of the shipped binary under test.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    error::{IoContext, Result, TestkitError},
    sys::{self, Signal},
    wait::{self, tail},
};

/// Folder with built binaries, when they are not beside the test's own target folder.
pub const BIN_DIR: &str = "GRISTMILL_BIN_DIR";
/// How long a dropped role's killed descendants are waited for.
const GONE: Duration = Duration::from_secs(10);

/// Path of a built workspace binary: from `GRISTMILL_BIN_DIR`, else from the target folder of the running test.
///
/// Cargo builds the binaries of a package only for that package's own tests, so a missing file is an error that says
/// how to build it.
pub fn binary(name: &str) -> Result<PathBuf> {
    built(name, &format!("cargo build --bin {name}"))
}

/// Path of a built file, or an error that says how to build it.
pub(crate) fn built(name: &str, how: &str) -> Result<PathBuf> {
    let folder = match env::var_os(BIN_DIR) {
        Some(folder) => PathBuf::from(folder),
        None => {
            // target/debug/deps/TEST-HASH → target/debug
            let test = env::current_exe().context(|| "finding the test's own path".into())?;
            test.ancestors()
                .skip(1)
                .find(|folder| folder.file_name().is_none_or(|n| n != "deps"))
                .map(Path::to_owned)
                .unwrap_or_default()
        }
    };
    let file = folder.join(name);
    if file.is_file() {
        return Ok(file);
    }
    Err(TestkitError::BadVariable {
        variable: BIN_DIR,
        value: folder.display().to_string(),
        why: format!("it has no `{name}`; build it first (`{how}`) or set {BIN_DIR}"),
    })
}

/// Settings shared by the processes of one test: environment, folder for logs.
#[derive(Debug, Clone)]
pub struct Setup {
    program: PathBuf,
    logs: PathBuf,
    environment: BTreeMap<OsString, OsString>,
}

impl Setup {
    /// Processes of `program` that write `NAME.log` into `logs`.
    pub fn new(program: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            logs: logs.into(),
            environment: BTreeMap::new(),
        }
    }

    /// Adds a variable to the environment, which is otherwise that of the test.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Folder of the logs.
    pub fn folder(&self) -> &Path {
        &self.logs
    }

    /// Starts `program ARGS…` as `name`, in a process group of its own. It dies with the test.
    pub fn start(&self, name: &str, args: &[&str]) -> Result<Role> {
        let role = Role {
            name: name.to_owned(),
            setup: self.clone(),
            args: args.iter().map(|&a| a.to_owned()).collect(),
            child: Mutex::new(None),
        };
        role.launch()?;
        Ok(role)
    }

    /// Runs `program ARGS…` to its end; for client commands. Gives exit status, standard output and standard error.
    pub async fn run(&self, args: &[&str]) -> Result<std::process::Output> {
        tokio::process::Command::new(&self.program)
            .args(args)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .output()
            .await
            .context(|| format!("running {}", self.program.display()))
    }
}

/// One process of the binary under test. Killed with its descendants when dropped.
#[derive(Debug)]
pub struct Role {
    name: String,
    setup: Setup,
    args: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Role {
    /// Process id, while there is a process.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// File that takes standard output and standard error, of all starts one after the other.
    pub fn log(&self) -> PathBuf {
        self.setup.logs.join(format!("{}.log", self.name))
    }

    /// What the log holds now.
    pub fn log_text(&self) -> String {
        let bytes = std::fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal to this process alone, not to its children.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self.pid() {
            Some(pid) => sys::send_signal(pid, signal)
                .context(|| format!("signal {signal} to {}", self.name)),
            None => Ok(()),
        }
    }

    /// `kill -9` of this process alone (its children see their parent die), and waits until it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.wait(Duration::from_secs(30)).await.map(drop)
    }

    /// `kill -9` of this process and all that it started, as when its machine dies, and waits until all are gone.
    pub async fn kill_tree(&self) -> Result<()> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        let descendants =
            sys::kill_tree(pid).context(|| format!("killing {} and its children", self.name))?;
        self.wait(GONE).await?;
        wait::until(
            &format!("the end of what {} had started", self.name),
            GONE,
            async || {
                descendants
                    .iter()
                    .all(|&pid| !sys::is_alive(pid))
                    .then_some(())
            },
        )
        .await
    }

    /// SIGTERM; see [`Self::wait`] for the end.
    pub fn terminate(&self) -> Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// SIGSTOP to this process alone.
    pub fn pause(&self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    /// SIGCONT to this process alone.
    pub fn resume(&self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// SIGSTOP to this process and all that it started, as when its machine freezes.
    pub fn pause_tree(&self) -> Result<()> {
        // The parent first, so that it starts no child that we would miss.
        self.pause()?;
        self.signal_descendants(libc::SIGSTOP)
    }

    /// Ends a [`Self::pause_tree`].
    pub fn resume_tree(&self) -> Result<()> {
        self.signal_descendants(libc::SIGCONT)?;
        self.resume()
    }

    fn signal_descendants(&self, signal: Signal) -> Result<()> {
        let pids = self.pid().map(sys::descendants).unwrap_or_default();
        pids.into_iter()
            .try_for_each(|pid| sys::send_signal(pid, signal))
            .context(|| format!("signal {signal} to the children of {}", self.name))
    }

    /// Kills what still runs, and starts the same command again.
    pub async fn restart(&self) -> Result<()> {
        self.kill().await?;
        self.launch()
    }

    /// Like [`Self::restart`], with other environment variables from now on; an empty value removes one.
    pub async fn restart_with(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        self.kill().await?;
        for (name, value) in variables {
            if value.is_empty() {
                self.setup.environment.remove(&OsString::from(name));
            } else {
                self.setup.environment.insert(name.into(), value.into());
            }
        }
        self.launch()
    }

    /// Whether the process is there (a stopped one is, an exited one is not).
    pub fn is_running(&self) -> bool {
        matches!(self.child().as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Waits for the exit; `None` when no process was started or its end was already taken.
    pub async fn wait(&self, deadline: Duration) -> Result<Option<ExitStatus>> {
        let ended = wait::until(
            &format!("the end of {}", self.name),
            deadline,
            async || match self.child().as_mut().map(Child::try_wait) {
                None | Some(Err(_)) => Some(None),
                Some(Ok(Some(status))) => Some(Some(status)),
                Some(Ok(None)) => None,
            },
        )
        .await
        .map_err(|e| self.with_log(e))?;
        self.child().take();
        Ok(ended)
    }

    /// Waits until the log holds `text`; an exit of the process before that is an error at once.
    pub async fn wait_for_log(&self, text: &str, deadline: Duration) -> Result<()> {
        self.wait_until(&format!("{text:?} in its log"), deadline, async || {
            self.log_text().contains(text)
        })
        .await
    }

    /// Waits until `GET url` (plain HTTP on loopback) answers with `status`.
    pub async fn wait_for_http(&self, url: &str, status: u16, deadline: Duration) -> Result<()> {
        self.wait_until(&format!("{url} to answer {status}"), deadline, async || {
            http_status(url).await == Some(status)
        })
        .await
    }

    /// Waits until `condition` holds; an exit of the process before that is an error at once.
    pub async fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            // Asked first: a process that exits right after the event still counts.
            let running = self.is_running();
            if condition().await {
                return Ok(());
            }
            if !running || start.elapsed() > deadline {
                let ended = if running {
                    ""
                } else {
                    " (the process has ended)"
                };
                return Err(self.with_log(TestkitError::TimedOut {
                    what: format!("{} of {}{ended}", what, self.name),
                    waited_s: start.elapsed().as_secs_f32(),
                    context: String::new(),
                }));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self) -> Result<()> {
        let log = self.log();
        let context = || format!("starting {} ({})", self.name, self.setup.program.display());
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .context(context)?;
        let copy = file.try_clone().context(context)?;
        let mut command = Command::new(&self.setup.program);
        command
            .args(&self.args)
            .envs(&self.setup.environment)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy);
        let child = sys::spawn(command, libc::SIGKILL).context(context)?;
        *self.child() = Some(child);
        Ok(())
    }

    fn with_log(&self, error: TestkitError) -> TestkitError {
        match error {
            TestkitError::TimedOut { what, waited_s, .. } => TestkitError::TimedOut {
                what,
                waited_s,
                context: format!(
                    "; the end of {}:\n{}",
                    self.log().display(),
                    tail(&self.log(), 30)
                ),
            },
            other => other,
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let Some(mut child) = self.child().take() else {
            return;
        };
        // Best effort: the test is over.
        if let Ok(None) = child.try_wait() {
            let descendants = sys::kill_tree(child.id()).unwrap_or_default();
            let _ = child.wait();
            // The next test must not meet them; the kernel needs an instant for each.
            let start = Instant::now();
            while descendants.iter().any(|&pid| sys::is_alive(pid)) && start.elapsed() < GONE {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Status code of `GET url`; `None` when nothing answers within two seconds.
pub async fn http_status(url: &str) -> Option<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let url = url::Url::parse(url).ok()?;
    let address = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(&address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = [0; 12]; // "HTTP/1.1 200"
        stream.read_exact(&mut answer).await.ok()?;
        std::str::from_utf8(&answer[9..]).ok()?.parse().ok()
    };
    tokio::time::timeout(Duration::from_secs(2), exchange)
        .await
        .ok()?
}
