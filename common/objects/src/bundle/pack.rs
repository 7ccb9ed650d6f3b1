//! Packing a folder.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{BundleError, Digest, MAX_BYTES, MAX_FILES};

/// A packed folder.
#[derive(Debug, Clone)]
pub struct Packed {
    /// What it is stored under.
    pub digest: Digest,
    /// tar, compressed by zstd.
    pub archive: Bytes,
    /// Files and links in it.
    pub files: usize,
    /// Their bytes, uncompressed.
    pub bytes: u64,
}

/// Packs a folder; blocks on the disk. Needs memory for the compressed archive and the largest file.
pub fn pack(dir: &Path) -> Result<Packed, BundleError> {
    let root = dir.canonicalize().map_err(BundleError::io(dir))?;
    let mut paths = Vec::new();
    collect(&root, &root, &mut paths)?;
    // Sorted as bytes, whatever order the file system has.
    paths.sort();

    let encoder = zstd::Encoder::new(Vec::new(), 3).map_err(BundleError::io(&root))?;
    let mut tar = tar::Builder::new(Hashing {
        inner: encoder,
        hash: Sha256::new(),
    });
    let mut bytes = 0;
    for path in &paths {
        bytes += append(&mut tar, &root, path, MAX_BYTES - bytes)?;
    }
    let hashing = tar.into_inner().map_err(BundleError::io(&root))?;
    let digest = Digest(hashing.hash.finalize().into());
    let archive = hashing.inner.finish().map_err(BundleError::io(&root))?;
    Ok(Packed {
        digest,
        archive: archive.into(),
        files: paths.len(),
        bytes,
    })
}

/// Gathers the relative paths of all files and links.
fn collect(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), BundleError> {
    for entry in fs::read_dir(dir).map_err(BundleError::io(dir))? {
        let entry = entry.map_err(BundleError::io(dir))?;
        let path = entry.path();
        let refused = |reason: &str| BundleError::Refused {
            path: path.clone(),
            reason: reason.into(),
        };
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| refused("its name is not UTF-8"))?;
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(BundleError::io(&path))?;
        if kind.is_dir() {
            collect(root, &path, found)?;
        } else if kind.is_file() || kind.is_symlink() {
            if found.len() == MAX_FILES {
                return Err(BundleError::TooLarge { dir: root.into() });
            }
            let relative = path.strip_prefix(root).unwrap_or(&path);
            found.push(relative.to_owned());
        } else {
            return Err(refused("it is neither a file, a folder nor a link"));
        }
    }
    Ok(())
}

/// Appends one file or link; answers its bytes.
fn append(
    tar: &mut tar::Builder<impl Write>,
    root: &Path,
    relative: &Path,
    room: u64,
) -> Result<u64, BundleError> {
    let path = root.join(relative);
    let metadata = path.symlink_metadata().map_err(BundleError::io(&path))?;
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    if metadata.is_symlink() {
        let target = link_target(root, &path)?;
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, relative, target)
            .map_err(BundleError::io(&path))?;
        return Ok(0);
    }
    // Read before its header is written: a file that grows meanwhile would tear the archive.
    let mut content = Vec::new();
    let file = File::open(&path).map_err(BundleError::io(&path))?;
    file.take(room + 1)
        .read_to_end(&mut content)
        .map_err(BundleError::io(&path))?;
    let size = content.len() as u64;
    if size > room {
        return Err(BundleError::TooLarge { dir: root.into() });
    }
    let executable = metadata.permissions().mode() & 0o111 != 0;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_size(size);
    tar.append_data(&mut header, relative, content.as_slice())
        .map_err(BundleError::io(&path))?;
    Ok(size)
}

/// Where a link leads, if that is a place inside the bundle.
fn link_target(root: &Path, link: &Path) -> Result<PathBuf, BundleError> {
    let refused = |reason: String| BundleError::Refused {
        path: link.to_owned(),
        reason,
    };
    let target = fs::read_link(link).map_err(BundleError::io(link))?;
    let shown = target.display();
    if target.is_absolute() {
        return Err(refused(format!("it links to {shown}, an absolute path")));
    }
    // Resolved by the system: `..` behind other links is not what it looks like.
    let resolved = link
        .canonicalize()
        .map_err(|error| refused(format!("it links to {shown}: {error}")))?;
    let Ok(inside) = resolved.strip_prefix(root) else {
        return Err(refused(format!("it links to {shown}, outside the folder")));
    };
    let hidden = |part: &std::ffi::OsStr| part.to_string_lossy().starts_with('.');
    if inside.iter().any(hidden) {
        return Err(refused(format!(
            "it links to {shown}, which is hidden and so left out"
        )));
    }
    Ok(target)
}

/// Hashes what passes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
