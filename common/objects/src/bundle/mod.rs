//! Bundles: the files of a DAG folder as part of a DAG version, content-addressed.
//!
//! The same files give the same digest wherever and whenever they are packed: entries are sorted and carry no times or
//! owners, only whether a file is executable. Left out are hidden files and folders (`.git` among them) and empty
//! folders. What would not be the same on a worker is refused: symbolic links that leave the folder, sockets and
//! devices.

mod cache;
mod pack;
mod unpack;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::cache::{Bundle, BundleCache, CacheLimits};
pub use self::pack::{Packed, pack};
use crate::{ObjectError, ObjectStore};

/// Most bytes of all files of a bundle together.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Most files (and links) of a bundle.
pub const MAX_FILES: usize = 10_000;

/// SHA-256 of a bundle's archive before its compression. Shown and parsed as 64 lower-case hex characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The object's key in the store.
    pub fn key(&self) -> String {
        format!("bundles/{self}.tar.zst")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Digest {
    type Err = BundleError;

    fn from_str(text: &str) -> Result<Self, BundleError> {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(_) => Err(BundleError::BadDigest { text: text.into() }),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = BundleError;

    fn try_from(text: String) -> Result<Self, BundleError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Why a bundle cannot be packed, fetched or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The folder's files are more than a bundle may hold.
    #[error(
        "{} holds more than {MAX_FILES} files or {} MiB, too much for a bundle; \
         keep data out of the DAG folder (hidden files do not count)",
        dir.display(), MAX_BYTES >> 20
    )]
    TooLarge {
        /// The folder.
        dir: PathBuf,
    },
    /// A file that cannot be part of a bundle.
    #[error("{} cannot be part of a bundle: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The local disk failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// An archive that was not made by [`pack`] from this digest's files. Nothing of it is kept.
    #[error("bundle {digest} is damaged: {reason}")]
    Corrupt {
        /// The bundle.
        digest: Digest,
        /// How that was seen.
        reason: String,
    },
    /// Not 64 hex characters.
    #[error("{text:?} is not a bundle's digest: expected 64 hex characters")]
    BadDigest {
        /// What was given.
        text: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ObjectError),
}

impl BundleError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| BundleError::Io { path, source }
    }
}

/// Packs a folder and uploads it, unless the store has it already.
pub async fn store_bundle(store: &ObjectStore, dir: &Path) -> Result<Digest, BundleError> {
    let dir = dir.to_owned();
    let packed = blocking(move || pack(&dir)).await?;
    let key = packed.digest.key();
    // The usual deploy changes nothing: do not send megabytes to learn that.
    if store.head(&key).await?.is_none() {
        store.put_if_absent(&key, packed.archive).await?;
    }
    Ok(packed.digest)
}

/// Fetches a bundle into a cache folder; see [`BundleCache::fetch`], whose guard this gives up: only for uses so short
/// that the cache's bound cannot matter.
pub async fn fetch_bundle(
    store: &ObjectStore,
    digest: &Digest,
    cache_dir: &Path,
) -> Result<PathBuf, BundleError> {
    let cache = BundleCache::new(cache_dir, CacheLimits::default());
    let bundle = cache.fetch(store, digest).await?;
    Ok(bundle.path().to_owned())
}

/// Runs disk work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, BundleError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
