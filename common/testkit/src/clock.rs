//! A process's own wall clock.

use std::{ffi::OsString, fs, os::unix::fs::FileExt, path::PathBuf};

use crate::{
    error::{IoContext, Result},
    roles,
};

/// The wall clock of the processes that are started with its [`Self::environment`], to be moved while they run. Monotonic
/// clocks stay as they are. See the crate `gristmill-testkit-clock`, which has to be built.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// A clock that is right. `file`, which any user may read, takes its offset.
    pub fn new(file: impl Into<PathBuf>) -> Result<Self> {
        let clock = Self {
            file: file.into(),
            library: roles::built(
                "libgristmill_testkit_clock.so",
                "cargo build -p gristmill-testkit-clock",
            )?,
        };
        // Made once and never shortened: it stays mapped.
        clock.step(0)?;
        Ok(clock)
    }

    /// Environment variables of processes that go by this clock.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), self.library.clone().into()),
            ("GRISTMILL_CLOCK_FILE".into(), self.file.clone().into()),
        ]
    }

    /// From now on it is wrong by so many seconds; 0: it is right.
    pub fn step(&self, seconds: i64) -> Result<()> {
        fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&self.file)
            .and_then(|open| open.write_all_at(&(seconds * 1_000_000_000).to_ne_bytes(), 0))
            .context(|| format!("setting the clock {}", self.file.display()))
    }
}
