//! A folder of an attempt's own, gone when the attempt has ended.

use std::{
    io,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// The folder; dropping it deletes it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn make(work_dir: &Path, attempt: Uuid, fence: i64) -> io::Result<Self> {
        let folder = work_dir.join("scratch").join(format!("{attempt}-{fence}"));
        std::fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The file that a task may write its return value to.
    pub(crate) fn xcom_file(&self) -> PathBuf {
        self.0.join("xcom.json")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Most tasks leave nothing in it.
        let removed = std::fs::remove_dir(&self.0).or_else(|_| std::fs::remove_dir_all(&self.0));
        if let Err(error) = removed {
            tracing::warn!(folder = %self.0.display(), %error, "cannot delete a scratch folder");
        }
    }
}
