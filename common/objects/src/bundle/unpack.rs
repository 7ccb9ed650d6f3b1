//! Unpacking an archive that may be damaged or hostile.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{BundleError, Digest, MAX_BYTES, MAX_FILES};

/// Unpacks into an existing empty folder, read-only; answers the bytes of all files. On an error the folder holds
/// rubbish; the caller drops it.
pub(super) fn unpack(archive: &[u8], digest: &Digest, into: &Path) -> Result<u64, BundleError> {
    let corrupt = |reason: String| BundleError::Corrupt {
        digest: *digest,
        reason,
    };
    let unreadable = |error: io::Error| corrupt(error.to_string());
    let into = into.canonicalize().map_err(BundleError::io(into))?;
    let decoder = zstd::Decoder::new(archive).map_err(unreadable)?;
    // Headers, long names and padding: a bomb stops here, long before the disk is full.
    let limit = MAX_BYTES + MAX_FILES as u64 * 8 * 1024;
    let mut tar = tar::Archive::new(Hashing {
        inner: decoder.take(limit),
        hash: Sha256::new(),
    });

    let mut links = Vec::new();
    let (mut files, mut bytes) = (0, 0);
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        if !is_plain(&path) {
            return Err(corrupt(format!("it holds {path:?}")));
        }
        files += 1;
        bytes += entry.size();
        if files > MAX_FILES || bytes > MAX_BYTES {
            return Err(corrupt("it is larger than a bundle may be".into()));
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular => write(&mut entry, &into, &path)?,
            tar::EntryType::Symlink => {
                let target = entry.link_name().map_err(unreadable)?;
                let target = target.ok_or_else(|| corrupt(format!("{path:?} links nowhere")))?;
                links.push((path, target.into_owned()));
            }
            other => return Err(corrupt(format!("{path:?} is of the kind {other:?}"))),
        }
    }
    // The digest covers the archive's end too, which the entries do not.
    let mut hashing = tar.into_inner();
    io::copy(&mut hashing, &mut io::sink()).map_err(unreadable)?;
    let found = Digest(hashing.hash.finalize().into());
    if found != *digest {
        return Err(corrupt(format!("its content has the digest {found}")));
    }
    // Last, so that no file was written through one.
    for (path, target) in &links {
        link(&into, path, target)?;
    }
    for (path, _) in &links {
        let inside = into
            .join(path)
            .canonicalize()
            .is_ok_and(|resolved| resolved.starts_with(&into));
        if !inside {
            return Err(corrupt(format!("the link {path:?} leaves the bundle")));
        }
    }
    lock_folders(&into).map_err(BundleError::io(&into))?;
    Ok(bytes)
}

/// Only names: no root, no `..`, no `.`.
fn is_plain(path: &Path) -> bool {
    path.components().next().is_some()
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

fn write<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    into: &Path,
    path: &Path,
) -> Result<(), BundleError> {
    let target = into.join(path);
    let io = BundleError::io(&target);
    let mut written = || {
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        // A second entry of one name is an archive that `pack` did not make.
        let mut file = File::create_new(&target)?;
        io::copy(entry, &mut file)?;
        let mode = if entry.header().mode()? & 0o111 != 0 {
            0o555
        } else {
            0o444
        };
        file.set_permissions(Permissions::from_mode(mode))
    };
    written().map_err(io)
}

fn link(into: &Path, path: &Path, target: &Path) -> Result<(), BundleError> {
    let place: PathBuf = into.join(path);
    let made = || {
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        symlink(target, &place)
    };
    made().map_err(BundleError::io(&place))
}

/// Takes the write permission from all folders, the deepest first.
fn lock_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            lock_folders(&entry.path())?;
        }
    }
    fs::set_permissions(folder, Permissions::from_mode(0o555))
}

/// Gives the write permission back and removes the tree.
pub(super) fn remove_tree(folder: &Path) -> io::Result<()> {
    fn unlock(folder: &Path) -> io::Result<()> {
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                unlock(&entry.path())?;
            }
        }
        Ok(())
    }
    unlock(folder)?;
    fs::remove_dir_all(folder)
}

/// Hashes what passes.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
