//! The folder that tasks write into.
//!
//! `lines` takes one record per event, appended by one `write` with `O_APPEND`. Appends to one file are serialised by the
//! kernel, so **the order of the records is the order in which things happened**: no clock is needed to say that two
//! attempts overlapped. The times in the records (seconds of `CLOCK_BOOTTIME`, to a hundredth) are for people, and for
//! comparing with the database's times.
//!
//! A record begins with a newline and ends with ` .`, so that one that was torn by a kill -9 is known and spoils no other:
//!
//! ```text
//! S dag run task map fence try pid boottime - .        the attempt's process has started
//! A dag run task map fence try pid boottime - .        a process of it is alive (in the middle of a sleep, or its daemon)
//! X dag run task map fence try pid boottime other .    at its start, process `other` of an earlier attempt was alive
//! E dag run task map fence try pid boottime code .     its process ends, with this exit code
//! ```
//!
//! `step.sh` is what the tasks source. It uses the shell's builtins alone: a task without a sleep, a daemon or an
//! earlier attempt starts no process but its own shell.

use super::WorkloadError;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Sourced by every shell task, by `sh` (dash or any POSIX shell with 64-bit arithmetic). See [`super::Behaviour`] for the
/// numbers that it is given.
const STEP: &str = r#"# Sourced by the tasks of a load test; see loadtest/src/workload/ledger.rs.
line() {
  read -r T _ < /proc/uptime
  printf '\n%s %s %s %s %s %s %s %s %s %s .' "$1" "$GRISTMILL_DAG_ID" "$GRISTMILL_RUN_ID" "$GRISTMILL_TASK_ID" \
    "$GRISTMILL_MAP_INDEX" "$GRISTMILL_FENCE" "$GRISTMILL_TRY_NUMBER" "$2" "$T" "$3" >> "$L" || exit 70
}
line S $$ -
x=$(((S + (GRISTMILL_MAP_INDEX + 2) * 1640531527) & 4294967295))
x=$((((x ^ (x >> 13)) * 1540483477) & 4294967295))
x=$((x ^ (x >> 15)))
if [ "$GRISTMILL_FENCE" -gt 1 ] && [ "$P" -gt 0 ] && [ $(((x + GRISTMILL_FENCE) % P)) -eq 0 ]; then
  # One grep looks for both, in one reading of each process: what is read a second time may have ended meanwhile.
  q= theirs=
  for l in $(grep -szxFH -e "GRISTMILL_IDEMPOTENCY_KEY=$GRISTMILL_IDEMPOTENCY_KEY" -e "GRISTMILL_FENCE=$GRISTMILL_FENCE" \
    /proc/[0-9]*/environ | tr '\0' '\n') end/environ:; do
    p=${l%%/environ:*}
    if [ "$p" != "$q" ]; then
      if [ "$theirs" = 1 ]; then line X $$ "${q#/proc/}"; fi
      q=$p theirs=
    fi
    case $l in
      *:GRISTMILL_FENCE=*) theirs=0 ;;
      *) theirs=${theirs:-1} ;;
    esac
  done
fi
if [ "$D" = 1 ]; then
  (
    trap '' TERM
    while :; do
      line A 0 -
      sleep 0.05
    done
  ) < /dev/null > /dev/null 2>&1 &
fi
if [ "$W" -gt 0 ]; then
  ms=$((x / 1000 % 1000 * W / 2000))
  half=$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))
  sleep "$half"
  line A $$ -
  sleep "$half"
fi
c=$((x % 1000))
code=0
if [ $c -lt "$F" ]; then code=1
elif [ $c -lt $((F + K)) ]; then code=99
elif [ $c -lt $((F + K + R)) ] && [ "$GRISTMILL_TRY_NUMBER" -le "$N" ]; then code=1
fi
line E $$ $code
exit $code
"#;

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// A ledger in this folder, which may not be there yet.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of records.
    pub fn lines(&self) -> PathBuf {
        self.folder.join("lines")
    }

    fn step(&self) -> PathBuf {
        self.folder.join("step.sh")
    }

    /// What stands behind `.` in a task's command.
    pub(super) fn step_argument(&self) -> Result<String, WorkloadError> {
        let step = self.step();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.+".contains(c);
        match step.to_str() {
            Some(text) if step.is_absolute() && text.chars().all(plain) => Ok(text.to_owned()),
            _ => Err(WorkloadError::LedgerPath(self.folder.clone())),
        }
    }

    /// Makes the folder, an empty file of records that any user may append to, and the step.
    pub(super) fn create(&self) -> Result<(), WorkloadError> {
        use std::os::unix::fs::PermissionsExt;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| WorkloadError::Write { path, error }
        };
        let lines = self.lines();
        let step = format!("L='{}'\n{STEP}", lines.display());
        fs::create_dir_all(&self.folder).map_err(at(&self.folder))?;
        fs::write(&lines, "").map_err(at(&lines))?;
        fs::set_permissions(&lines, fs::Permissions::from_mode(0o666)).map_err(at(&lines))?;
        fs::write(self.step(), step).map_err(at(&self.step()))
    }
}
