//! Temporary folders that vanish even when the test process is killed.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use tempfile::TempDir;

use crate::error::{IoContext, Result};

/// A temporary folder, removed when dropped, and by a waiting shell when this process dies without dropping it (a
/// `static`, a `kill -9`).
#[derive(Debug)]
pub struct DataDir {
    folder: Option<TempDir>,
    /// The shell waits for the end of this pipe.
    pipe: Option<ChildStdin>,
    reaper: Child,
}

/// Servers get their own death signal at the same moment, and may write for another instant.
const REAP: &str = r#"trap '' INT TERM HUP
read -r _
tries=0
until rm -rf "$0" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || exit 1
    sleep 0.5
done"#;

impl DataDir {
    /// Makes a folder whose name holds `label`.
    pub fn new(label: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("gristmill-{label}-"))
            .tempdir()
            .context(|| format!("making a temporary folder for {label}"))?;
        // Not by `sys::spawn`: this child must outlive us.
        let mut reaper = Command::new("/bin/sh")
            .args(["-c", REAP])
            .arg(folder.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context(|| "starting /bin/sh".into())?;
        Ok(Self {
            pipe: reaper.stdin.take(),
            folder: Some(folder),
            reaper,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder
            .as_ref()
            .map_or_else(|| Path::new("/"), TempDir::path)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Failing to remove is the shell's business, which tries again.
        drop(self.folder.take());
        drop(self.pipe.take());
        let _ = self.reaper.wait();
    }
}
