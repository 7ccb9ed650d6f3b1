//! What can go wrong while starting or steering a test server.

use std::{fmt, io, path::PathBuf};

/// Result of every fallible testkit call.
pub type Result<T, E = TestkitError> = std::result::Result<T, E>;

/// Failure of a testkit call.
///
/// `Debug` prints the same text as `Display`, so that `unwrap()` in a test shows the advice and not a struct dump.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TestkitError {
    /// A server program is not installed.
    #[error(
        "{server}: the program `{program}` is not installed (looked in {looked_in}).\n  \
         Install it with: apt-get install -y --no-install-recommends {package}\n  \
         or name a running server: {variable}={example}"
    )]
    MissingProgram {
        /// Server that needs the program.
        server: &'static str,
        /// Program that was looked for.
        program: &'static str,
        /// Where it was looked for.
        looked_in: &'static str,
        /// Debian package that holds it.
        package: &'static str,
        /// Environment variable that names a running server instead.
        variable: &'static str,
        /// Example value of that variable.
        example: &'static str,
    },

    /// A server ended, or did not answer, before its deadline.
    #[error("{server} {what}; the end of its log ({}):\n{tail}", log.display())]
    NotReady {
        /// Server that was started.
        server: &'static str,
        /// What happened, for example `exited with status 1 while starting`.
        what: String,
        /// Log file of the server.
        log: PathBuf,
        /// Last lines of that log.
        tail: String,
    },

    /// A helper command (`initdb`, `psql`) failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// Command line as run.
        command: String,
        /// Exit status in words.
        status: String,
        /// What it wrote to standard error.
        stderr: String,
    },

    /// A request to a server was refused or could not be understood.
    #[error("{server} at {address}: {what}")]
    Request {
        /// Server that was asked.
        server: &'static str,
        /// Host and port.
        address: String,
        /// What it answered, and what to do.
        what: String,
    },

    /// A `GRISTMILL_TEST_…` variable holds something unusable.
    #[error("{variable}={value:?} cannot be used: {why}")]
    BadVariable {
        /// Name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },

    /// A condition did not come true in time.
    #[error("waited {waited_s} s in vain for {what}{context}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        waited_s: f32,
        /// The last thing seen, or the end of a log; may be empty.
        context: String,
    },

    /// An operating system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl fmt::Debug for TestkitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names what was being done when an I/O call failed.
pub(crate) trait IoContext<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| TestkitError::Io {
            what: what(),
            source,
        })
    }
}
