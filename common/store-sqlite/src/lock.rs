//! One process owns a database file: an exclusive `flock` on `<path>.lock`, which the kernel frees however its holder ends.

use gristmill_store::{StoreError, StoreResult};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Held as long as the store is.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

/// The holder writes one line about itself; longer than any process id and path is no such line.
const MAX_HOLDER: u64 = 8 * 1024;

impl FileLock {
    pub(crate) fn acquire(database: &Path) -> StoreResult<Self> {
        let path = lock_path(database);
        let failed =
            |error| StoreError::Unavailable(format!("cannot lock {}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(database, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let home = std::path::absolute(database).map_err(failed)?;
        write!(file, "process {} ({})", std::process::id(), home.display()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn held(database: &Path, file: &mut File) -> StoreError {
    let mut holder = String::new();
    // Best effort: the holder may be between taking the lock and writing its line.
    let read = file.take(MAX_HOLDER).read_to_string(&mut holder);
    let holder = match read {
        Ok(n) if n > 0 => holder,
        _ => "another process".to_owned(),
    };
    StoreError::Unavailable(format!(
        "{} is in use by {holder}: stop that process, or choose another home",
        database.display()
    ))
}
