//! A deployment of its own for each test, what its tasks wrote down while they ran, and what has to hold in the end.

mod checks;
mod client;
mod deployment;
mod ledger;
mod servers;
mod step;

pub(crate) use client::{Client, Run};
pub(crate) use deployment::{Deployment, Shape};
pub(crate) use ledger::Ledger;
pub(crate) use servers::Servers;
pub(crate) use step::{Steps, step};

use gristmill_testkit::DataDir;
use std::time::Duration;

/// For what takes a moment on an idle machine and tens of seconds on a busy one.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// For runs that have to outlast the loss of a worker or a server.
pub(crate) const LATER: Duration = Duration::from_secs(150);

/// Whether the full forms of tests that wait for a long time were asked for.
pub(crate) fn long_tests() -> bool {
    std::env::var("GRISTMILL_LONG_TESTS").is_ok_and(|value| value == "1")
}

/// Where a test's failed processes left their logs is worth more than a clean folder: the folder stays when the test
/// panics and `GRISTMILL_TEST_KEEP` names a place to copy it to.
pub(crate) fn keep_if_asked(dir: &DataDir) {
    if !std::thread::panicking() {
        return;
    }
    let Some(place) = std::env::var_os("GRISTMILL_TEST_KEEP") else {
        return;
    };
    // Best effort: the test has failed already.
    let _ = std::process::Command::new("cp")
        .arg("-r")
        .arg(dir.path())
        .arg(place)
        .status();
}
