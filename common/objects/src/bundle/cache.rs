//! The worker's folder of unpacked bundles.
//!
//! `<digest>/` is a bundle, read-only; it appears by a rename, so whoever sees it sees all of it. `<digest>.lock` holds
//! its size and is locked shared by everyone who uses the bundle, exclusively by who evicts it; its time of change is
//! the last use, to the minute. The kernel drops the locks of a process that dies.
//!
//! A process holds on to the bundles that it used last, so that the next task of the same version asks the file system
//! for next to nothing. Before it evicts, it lets go of those that no task uses.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Mutex;

use super::unpack::{remove_tree, unpack};
use super::{BundleError, Digest, blocking};
use crate::ObjectStore;

/// What a crash left half done is removed after this.
const STALE: Duration = Duration::from_secs(3600);
/// The time of the last use is noted this often.
const NOTE_EVERY: Duration = Duration::from_secs(60);
/// Bundles that a process holds on to while no task uses them.
const AT_HAND: usize = 16;

/// How much a cache keeps of what is not in use.
#[derive(Debug, Clone, Copy)]
pub struct CacheLimits {
    /// Bundles.
    pub max_bundles: usize,
    /// Bytes of their files together.
    pub max_bytes: u64,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            max_bundles: 64,
            max_bytes: 2 << 30,
        }
    }
}

/// A folder of unpacked bundles, which processes may share. Clones share the queue for downloads.
#[derive(Debug, Clone)]
pub struct BundleCache {
    dir: PathBuf,
    limits: CacheLimits,
    /// One download at a time: a burst of tasks of one new version fetches it once.
    download: Arc<Mutex<()>>,
    at_hand: Arc<Lock<AtHand>>,
}

/// A bundle in use: it is not evicted while this lives. Hold it for as long as the task's processes live.
#[derive(Debug)]
pub struct Bundle(Arc<Held>);

/// A bundle and the shared lock on it.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    lock: File,
}

impl Bundle {
    /// The unpacked, read-only folder.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// The bundles that this process used last, each with the time when that was noted.
#[derive(Debug, Default)]
struct AtHand(HashMap<Digest, (Arc<Held>, Instant)>);

impl AtHand {
    fn get(&mut self, digest: &Digest) -> Option<Arc<Held>> {
        let (held, noted) = self.0.get_mut(digest)?;
        // Nobody of ours removes what is locked; somebody with a shell may.
        if !held.path.is_dir() {
            self.0.remove(digest);
            return None;
        }
        if noted.elapsed() > NOTE_EVERY {
            *noted = Instant::now();
            // Best effort: it only orders evictions.
            let _ = held.lock.set_modified(SystemTime::now());
        }
        Some(Arc::clone(held))
    }

    fn put(&mut self, digest: Digest, held: &Arc<Held>) {
        if self.0.len() >= AT_HAND {
            self.let_go();
        }
        if self.0.len() < AT_HAND {
            self.0.insert(digest, (Arc::clone(held), Instant::now()));
        }
    }

    /// Gives up the locks of those that no task uses.
    fn let_go(&mut self) {
        self.0.retain(|_, (held, _)| Arc::strong_count(held) > 1);
    }
}

impl BundleCache {
    /// A cache in `dir`, which is made when needed.
    pub fn new(dir: impl Into<PathBuf>, limits: CacheLimits) -> Self {
        Self {
            dir: dir.into(),
            limits,
            download: Arc::default(),
            at_hand: Arc::default(),
        }
    }

    fn at_hand(&self) -> std::sync::MutexGuard<'_, AtHand> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unpacked bundle, fetched and verified if it is not here yet.
    pub async fn fetch(&self, store: &ObjectStore, digest: &Digest) -> Result<Bundle, BundleError> {
        if let Some(held) = self.at_hand().get(digest) {
            return Ok(Bundle(held));
        }
        let (dir, digest) = (self.dir.clone(), *digest);
        let (lock, path) = blocking(move || lock_shared(&dir, &digest)).await?;
        let mut held = Held { path, lock };
        if !held.path.is_dir() {
            held = self.download(store, digest, held).await?;
        }
        let held = Arc::new(held);
        self.at_hand().put(digest, &held);
        Ok(Bundle(held))
    }

    async fn download(
        &self,
        store: &ObjectStore,
        digest: Digest,
        held: Held,
    ) -> Result<Held, BundleError> {
        let _turn = self.download.lock().await;
        if held.path.is_dir() {
            return Ok(held);
        }
        let archive = store.get(&digest.key()).await?;
        self.at_hand().let_go();
        let (dir, limits) = (self.dir.clone(), self.limits);
        blocking(move || {
            install(&dir, &held.path, &archive, &digest, &held.lock)?;
            evict(&dir, limits).map_err(BundleError::io(&dir))?;
            Ok(held)
        })
        .await
    }
}

/// Takes the shared lock and notes the use.
fn lock_shared(dir: &Path, digest: &Digest) -> Result<(File, PathBuf), BundleError> {
    fs::create_dir_all(dir).map_err(BundleError::io(dir))?;
    let path = dir.join(digest.to_string());
    let name = dir.join(format!("{digest}.lock"));
    let io = |error| BundleError::io(&name)(error);
    loop {
        let lock = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&name)
            .map_err(io)?;
        lock.lock_shared().map_err(io)?;
        // Between the opening and the lock it may have been evicted; then this is the lock of nothing.
        let same = fs::metadata(&name).is_ok_and(|now| {
            lock.metadata()
                .is_ok_and(|mine| mine.ino() == now.ino() && mine.dev() == now.dev())
        });
        if same {
            lock.set_modified(SystemTime::now()).map_err(io)?;
            return Ok((lock, path));
        }
    }
}

/// Unpacks beside the place and renames into it.
fn install(
    dir: &Path,
    path: &Path,
    archive: &[u8],
    digest: &Digest,
    mut lock: &File,
) -> Result<(), BundleError> {
    let draft = tempfile::Builder::new()
        .prefix(".unpack-")
        .tempdir_in(dir)
        .map_err(BundleError::io(dir))?;
    let draft = draft.keep();
    let installed = unpack(archive, digest, &draft).and_then(|bytes| {
        match fs::rename(&draft, path) {
            Ok(()) => {
                writeln!(lock, "{bytes}").map_err(BundleError::io(path))?;
                Ok(true)
            }
            // Another process was faster; its copy is as good.
            Err(_) if path.is_dir() => Ok(false),
            Err(source) => Err(BundleError::io(path)(source)),
        }
    });
    if !matches!(installed, Ok(true)) {
        // Best effort: what stays is swept as stale.
        let _ = remove_tree(&draft);
    }
    installed.map(drop)
}

/// Removes the longest unused bundles until the rest is within the limits, and what crashes left.
fn evict(dir: &Path, limits: CacheLimits) -> io::Result<()> {
    let mut bundles = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let used = entry.metadata()?.modified()?;
        if name.starts_with(".unpack-") || name.starts_with(".evict-") {
            if used.elapsed().is_ok_and(|age| age > STALE) {
                remove_tree(&entry.path())?;
            }
        } else if let Some(digest) = name.strip_suffix(".lock") {
            bundles.push((used, dir.join(digest), entry.path()));
        }
    }
    // The newest first: they stay, as far as the limits go.
    bundles.sort_by(|a, b| b.cmp(a));
    let (mut count, mut bytes) = (0, 0);
    for (_, path, lock) in bundles {
        count += 1;
        bytes += size(&lock);
        if count > limits.max_bundles || bytes > limits.max_bytes {
            remove_unused(dir, &path, &lock)?;
        }
    }
    Ok(())
}

/// The size that the lock file notes; 0 while it is being fetched.
fn size(lock: &Path) -> u64 {
    let mut text = String::new();
    let read = File::open(lock).and_then(|mut file| {
        file.rewind()?;
        file.read_to_string(&mut text)
    });
    let first = read.ok().and_then(|_| text.lines().next()?.parse().ok());
    first.unwrap_or(0)
}

/// Removes a bundle unless somebody uses it.
fn remove_unused(dir: &Path, path: &Path, lock: &Path) -> io::Result<()> {
    let held = File::open(lock)?;
    if held.try_lock().is_err() {
        return Ok(());
    }
    let Some(name) = path.file_name() else {
        return Ok(());
    };
    // Out of the way in one step: a crash in the middle must not leave half a bundle under its name.
    let doomed = dir.join(format!(
        ".evict-{}-{}",
        name.to_string_lossy(),
        rand::random::<u32>()
    ));
    match fs::rename(path, &doomed) {
        Ok(()) => remove_tree(&doomed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::remove_file(lock)
}
