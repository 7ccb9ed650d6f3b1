//! A folder that came as an archive: unpacked into a temporary one. Whoever sent it may be careless or hostile.

use crate::error::ApiError;
use axum::body::Bytes;
use gristmill_objects::bundle::{MAX_BYTES, MAX_FILES};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path},
};
use tempfile::TempDir;

/// Unpacks a `tar.zst`. Too large a one is 413, a broken one 400. The folder goes with the value.
pub(crate) async fn unpack(archive: Bytes) -> Result<TempDir, ApiError> {
    tokio::task::spawn_blocking(move || unpack_blocking(&archive))
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))?
}

fn unpack_blocking(archive: &[u8]) -> Result<TempDir, ApiError> {
    let unreadable = |error: io::Error| {
        ApiError::BadRequest(format!("the body is no readable tar.zst archive: {error}"))
    };
    let disk = |error: io::Error| {
        ApiError::Unavailable(format!("cannot write a temporary folder: {error}"))
    };
    let folder = tempfile::Builder::new()
        .prefix("gristmill-deploy-")
        .tempdir()
        .map_err(disk)?;
    let decoder = zstd::Decoder::new(archive).map_err(unreadable)?;
    // Headers and padding too: a bomb stops here.
    let limit = MAX_BYTES + MAX_FILES as u64 * 8 * 1024;
    let mut tar = tar::Archive::new(decoder.take(limit));
    let (mut files, mut bytes) = (0, 0);
    let mut links = Vec::new();
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path: std::path::PathBuf = entry
            .path()
            .map_err(unreadable)?
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        if path.as_os_str().is_empty() {
            continue;
        }
        if !path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(ApiError::BadRequest(format!(
                "the archive holds {path:?}, which leaves its folder"
            )));
        }
        files += 1;
        bytes += entry.size();
        if files > MAX_FILES || bytes > MAX_BYTES {
            return Err(ApiError::TooLarge(format!(
                "the archive holds more than {MAX_FILES} files or {} MiB",
                MAX_BYTES >> 20
            )));
        }
        let target = folder.path().join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => fs::create_dir_all(&target).map_err(disk)?,
            tar::EntryType::Regular => write(&mut entry, &target).map_err(disk)?,
            tar::EntryType::Symlink => {
                let to = entry
                    .link_name()
                    .map_err(unreadable)?
                    .map(std::borrow::Cow::into_owned);
                links.push((target, to.unwrap_or_default()));
            }
            tar::EntryType::XGlobalHeader => {}
            kind => {
                return Err(ApiError::BadRequest(format!(
                    "the archive holds {path:?} of the kind {kind:?}; only files and folders are taken"
                )));
            }
        }
    }
    // Last, so that nothing was written through one. Packing refuses those that lead out of the folder.
    for (link, to) in links {
        make_parent(&link)
            .and_then(|()| symlink(to, &link))
            .map_err(disk)?;
    }
    Ok(folder)
}

fn write<R: Read>(entry: &mut tar::Entry<'_, R>, target: &Path) -> io::Result<()> {
    make_parent(target)?;
    let mut file = File::create_new(target)?;
    io::copy(entry, &mut file)?;
    let executable = entry.header().mode()? & 0o111 != 0;
    file.set_permissions(fs::Permissions::from_mode(if executable {
        0o755
    } else {
        0o644
    }))
}

fn make_parent(target: &Path) -> io::Result<()> {
    target.parent().map_or(Ok(()), fs::create_dir_all)
}
