//! Processes of the product that die or stand still.

use crate::{
    chaos::{fault::RoleId, stage::Stage},
    error::{LoadError, Result},
};
use gristmill_testkit::sys;
use std::{fs, time::Duration};

/// kill -9 of the process alone; its children see their parent die.
pub(super) async fn kill(stage: &Stage, role: RoleId, away: Duration) -> Result<()> {
    let role = &stage.member(role)?.role;
    role.kill().await?;
    tokio::time::sleep(away).await;
    Ok(role.restart().await?)
}

/// SIGSTOP of the process alone.
pub(super) async fn pause(stage: &Stage, role: RoleId, lasts: Duration) -> Result<()> {
    let role = &stage.member(role)?.role;
    role.pause()?;
    tokio::time::sleep(lasts).await;
    Ok(role.resume()?)
}

/// The worker ends by itself then, and the supervisor starts it again.
pub(super) async fn kill_guardian(stage: &Stage, worker: usize) -> Result<()> {
    signal_guardian(stage, worker, libc::SIGKILL).map(drop)
}

pub(super) async fn pause_guardian(stage: &Stage, worker: usize, lasts: Duration) -> Result<()> {
    let guardian = signal_guardian(stage, worker, libc::SIGSTOP)?;
    tokio::time::sleep(lasts).await;
    match guardian {
        // Killed in between by its worker's end, perhaps: that is no error.
        Some(pid) => sys::send_signal(pid, libc::SIGCONT).map_err(LoadError::Signal),
        None => Ok(()),
    }
}

/// The guardian's process id; `None` when the worker has none at this instant.
fn signal_guardian(stage: &Stage, worker: usize, signal: sys::Signal) -> Result<Option<u32>> {
    let member = stage.member(RoleId::Worker(worker))?;
    let guardian = member.role.pid().and_then(|pid| {
        sys::descendants(pid).into_iter().find(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| {
                words
                    .split(|&byte| byte == 0)
                    .any(|word| word.ends_with(b"guardian"))
            })
        })
    });
    if let Some(pid) = guardian {
        sys::send_signal(pid, signal).map_err(LoadError::Signal)?;
    }
    Ok(guardian)
}
