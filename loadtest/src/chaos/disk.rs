//! The file system of logs and bundles, which can be full.

use crate::error::{LoadError, Result};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// What the store may hold while it is not full. Only what is written takes memory.
const ROOM: &str = "4g";
/// Set for the copy of this program that has mounts of its own.
const OWN_MOUNTS: &str = "GRISTMILL_CHAOS_OWN_MOUNTS";

/// A folder on a file system of its own where mounting is allowed: then it is really full (ENOSPC). Elsewhere a file is put
/// in the place of its folder of logs, so that no log can be begun (ENOTDIR); those that are open go on.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    mounted: bool,
}

/// Starts this program anew in a mount namespace of its own, where that is allowed: its mounts then end with it, however it
/// ends. Returns in the copy, and where it is not allowed.
pub(crate) fn enter_own_mounts() {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]);
        command
    };
    let allowed = unshare()
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success());
    if let Ok(program) = std::env::current_exe()
        && allowed
    {
        // Returns only if it fails, and then the faults do without.
        let _ = unshare()
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(OWN_MOUNTS, "1")
            .exec();
    }
}

impl Disk {
    /// Makes the folder, and mounts a file system there if [`enter_own_mounts`] has made sure that it goes with us.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(LoadError::Folder)?;
        let mounted = std::env::var_os(OWN_MOUNTS).is_some()
            && mount(
                &["-t", "tmpfs", "-o", &format!("size={ROOM}"), "chaos"],
                &folder,
            )
            .is_ok();
        Ok(Self { folder, mounted })
    }

    /// Whether a full disk is a real one.
    pub(crate) fn is_real(&self) -> bool {
        self.mounted
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// From now on nothing can be written.
    pub(crate) fn fill(&self) -> Result<()> {
        if !self.mounted {
            let (logs, away) = self.logs();
            return match logs.is_dir() {
                true => fs::rename(&logs, &away)
                    .and_then(|()| fs::write(&logs, ""))
                    .map_err(LoadError::Folder),
                false => Ok(()),
            };
        }
        // Others write meanwhile: then a file system as small as what was used is refused.
        let mut last = Ok(());
        for _ in 0..20 {
            let used = rustix::fs::statvfs(&self.folder)
                .map(|now| (now.f_blocks - now.f_bfree) * now.f_frsize)
                .map_err(|error| LoadError::Folder(error.into()))?;
            last = mount(
                &["-o", &format!("remount,size={}", used.max(4096))],
                &self.folder,
            );
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// There is room again.
    pub(crate) fn restore(&self) -> Result<()> {
        if self.mounted {
            return mount(&["-o", &format!("remount,size={ROOM}")], &self.folder);
        }
        let (logs, away) = self.logs();
        match away.is_dir() {
            true => fs::remove_file(&logs)
                .and_then(|()| fs::rename(&away, &logs))
                .map_err(LoadError::Folder),
            false => Ok(()),
        }
    }

    fn logs(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("logs"), self.folder.join("logs.away"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Its folder can be removed then. Should it fail, the end of the namespace does it.
            let _ = Command::new("umount")
                .arg("--lazy")
                .arg(&self.folder)
                .output();
        }
    }
}

fn mount(arguments: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new("mount").args(arguments).arg(folder).output();
    let output = output.map_err(|error| LoadError::Disk(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(LoadError::Disk(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_testkit::DataDir;

    #[test]
    fn without_a_mount_no_log_can_be_begun_until_there_is_room() {
        let dir = DataDir::new("disk").unwrap();
        let disk = Disk::new(dir.path().join("store")).unwrap();
        let log = dir.path().join("store/logs/run/log");
        let write =
            || fs::create_dir_all(log.parent().unwrap()).and_then(|()| fs::write(&log, "line"));
        write().unwrap();
        disk.fill().unwrap();
        assert!(write().is_err());
        disk.fill().unwrap();
        disk.restore().unwrap();
        disk.restore().unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "line");
        write().unwrap();
    }
}
