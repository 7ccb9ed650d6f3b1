//! Bundles: deterministic, verified, bounded.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bytes::Bytes;
use gristmill_objects::ObjectStore;
use gristmill_objects::bundle::{
    BundleCache, BundleError, CacheLimits, Digest, MAX_BYTES, MAX_FILES, pack, store_bundle,
};
use sha2::{Digest as _, Sha256};
use tempfile::{TempDir, tempdir};

use crate::support::{beds, local};

fn write(dir: &Path, name: &str, content: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn sample() -> TempDir {
    let dir = tempdir().unwrap();
    write(dir.path(), "dag.yaml", "dag_id: x");
    write(dir.path(), "lib/deep/er/clean.sh", "#!/bin/sh\n");
    let script = dir.path().join("lib/deep/er/clean.sh");
    fs::set_permissions(script, fs::Permissions::from_mode(0o700)).unwrap();
    symlink("deep/er/clean.sh", dir.path().join("lib/link.sh")).unwrap();
    dir
}

/// A cache whose folder may be removed although its bundles are read-only.
struct Cache {
    cache: BundleCache,
    dir: TempDir,
}

fn cache(limits: CacheLimits) -> Cache {
    let dir = tempdir().unwrap();
    Cache {
        cache: BundleCache::new(dir.path().join("cache"), limits),
        dir,
    }
}

impl Cache {
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("cache")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        fn unlock(dir: &Path) {
            let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    unlock(&entry.path());
                }
            }
        }
        unlock(self.dir.path());
    }
}

#[test]
fn packing_is_deterministic() {
    let first = pack(sample().path()).unwrap();
    let other = sample();
    write(other.path(), ".git/HEAD", "ref");
    write(other.path(), "lib/.env", "SECRET=1");
    fs::create_dir(other.path().join("empty")).unwrap();
    let old = fs::File::open(other.path().join("dag.yaml")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    let second = pack(other.path()).unwrap();
    assert_eq!(first.digest, second.digest);
    assert_eq!(first.archive, second.archive);
    assert_eq!((first.files, first.bytes), (3, 19));
    write(other.path(), "dag.yaml", "dag_id: y");
    assert_ne!(pack(other.path()).unwrap().digest, first.digest);
}

#[test]
fn the_executable_bit_counts_and_no_other() {
    let dir = sample();
    let digest = pack(dir.path()).unwrap().digest;
    let file = dir.path().join("dag.yaml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(pack(dir.path()).unwrap().digest, digest);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(pack(dir.path()).unwrap().digest, digest);
}

#[test]
fn links_out_of_the_folder_are_refused() {
    let outside = tempdir().unwrap();
    write(outside.path(), "secret", "s");
    for target in [
        "/etc/passwd",
        "../../../../../../../etc/passwd",
        "missing",
        ".hidden",
        // Looks as if it stayed inside; behind `sub/up`, which leads to the root, `..` does not.
        "sub/up/../passwd",
    ] {
        let dir = sample();
        write(dir.path(), ".hidden", "h");
        write(dir.path(), "passwd", "p");
        write(dir.path(), "sub/x", "x");
        symlink("..", dir.path().join("sub/up")).unwrap();
        symlink(target, dir.path().join("bad")).unwrap();
        let error = pack(dir.path()).unwrap_err();
        assert!(
            matches!(error, BundleError::Refused { .. }),
            "{target}: {error}"
        );
        assert!(error.to_string().contains("bad"), "{error}");
    }
}

#[test]
fn sizes_are_bounded() {
    let dir = tempdir().unwrap();
    let big = fs::File::create(dir.path().join("big")).unwrap();
    big.set_len(MAX_BYTES + 1).unwrap();
    let error = pack(dir.path()).unwrap_err();
    assert!(matches!(error, BundleError::TooLarge { .. }), "{error}");
    big.set_len(MAX_BYTES).unwrap();
    pack(dir.path()).unwrap();

    let dir = tempdir().unwrap();
    for n in 0..=MAX_FILES {
        fs::File::create(dir.path().join(n.to_string())).unwrap();
    }
    let error = pack(dir.path()).unwrap_err();
    assert!(matches!(error, BundleError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_bundle_arrives_read_only_as_it_was() {
    for bed in beds() {
        let dir = sample();
        let digest = store_bundle(&bed.store, dir.path()).await.unwrap();
        assert_eq!(store_bundle(&bed.store, dir.path()).await.unwrap(), digest);
        let cache = cache(CacheLimits::default());
        let bundle = cache.cache.fetch(&bed.store, &digest).await.unwrap();
        let script = bundle.path().join("lib/link.sh");
        assert_eq!(fs::read_to_string(&script).unwrap(), "#!/bin/sh\n");
        let mode = |name: &str| {
            let metadata = fs::symlink_metadata(bundle.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode("lib/deep/er/clean.sh"), 0o555);
        assert_eq!(mode("dag.yaml"), 0o444);
        assert_eq!((mode("lib/deep"), mode("")), (0o555, 0o555));
        // From now on it comes from the cache.
        bed.store.delete(&digest.key()).await.unwrap();
        cache.cache.fetch(&bed.store, &digest).await.unwrap();
        let nothing: Digest = "0".repeat(64).parse().unwrap();
        let error = cache.cache.fetch(&bed.store, &nothing).await.unwrap_err();
        assert!(
            matches!(&error, BundleError::Store(store) if store.is_not_found()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn many_fetches_at_once_give_one_bundle() {
    let bed = local();
    let digest = store_bundle(&bed.store, sample().path()).await.unwrap();
    let shared = cache(CacheLimits::default());
    let mut fetches = tokio::task::JoinSet::new();
    for n in 0..16 {
        // Half of them as another process: with a queue of its own.
        let cache = match n % 2 {
            0 => shared.cache.clone(),
            _ => BundleCache::new(shared.dir.path().join("cache"), CacheLimits::default()),
        };
        let store = bed.store.clone();
        fetches.spawn(async move { cache.fetch(&store, &digest).await.unwrap() });
    }
    let bundles = fetches.join_all().await;
    assert!(bundles.iter().all(|b| b.path() == bundles[0].path()));
    assert_eq!(
        shared.names(),
        [digest.to_string(), format!("{digest}.lock")]
    );
}

#[tokio::test]
async fn the_cache_drops_what_is_unused_and_keeps_what_is() {
    let bed = local();
    let limits = CacheLimits {
        max_bundles: 2,
        max_bytes: u64::MAX,
    };
    let cache = cache(limits);
    let mut held = Vec::new();
    let mut digests = Vec::new();
    for n in 0..4 {
        let dir = tempdir().unwrap();
        write(dir.path(), "n", &n.to_string());
        let digest = store_bundle(&bed.store, dir.path()).await.unwrap();
        let bundle = cache.cache.fetch(&bed.store, &digest).await.unwrap();
        digests.push(digest);
        // The first stays in use.
        if n == 0 {
            held.push(bundle);
        }
    }
    let there = |digest: &Digest| cache.names().contains(&digest.to_string());
    assert!(there(&digests[0]), "a bundle in use was evicted");
    assert!(there(&digests[3]));
    assert!(!there(&digests[1]));
    assert_eq!(fs::read_to_string(held[0].path().join("n")).unwrap(), "0");
    // What was evicted can be fetched again.
    cache.cache.fetch(&bed.store, &digests[1]).await.unwrap();
}

#[tokio::test]
async fn a_bundle_at_hand_that_somebody_removed_is_fetched_again() {
    let bed = local();
    let cache = cache(CacheLimits::default());
    let dir = tempdir().unwrap();
    write(dir.path(), "n", "1");
    let digest = store_bundle(&bed.store, dir.path()).await.unwrap();
    let first = cache.cache.fetch(&bed.store, &digest).await.unwrap();
    let path = first.path().to_owned();
    let again = cache.cache.fetch(&bed.store, &digest).await.unwrap();
    assert_eq!(again.path(), path);
    drop((first, again));
    fs::rename(&path, cache.dir.path().join("removed")).unwrap();
    let anew = cache.cache.fetch(&bed.store, &digest).await.unwrap();
    assert_eq!(fs::read_to_string(anew.path().join("n")).unwrap(), "1");
}

/// Stores an archive under the digest of its content, as an attacker with access to the store could.
async fn store_archive(
    store: &ObjectStore,
    fill: impl FnOnce(&mut tar::Builder<Vec<u8>>),
) -> Digest {
    let mut tar = tar::Builder::new(Vec::new());
    fill(&mut tar);
    let bytes = tar.into_inner().unwrap();
    let digest: Digest = hex::encode(Sha256::digest(&bytes)).parse().unwrap();
    let archive = zstd::encode_all(bytes.as_slice(), 1).unwrap();
    store.put(&digest.key(), archive.into()).await.unwrap();
    digest
}

fn raw_header(path: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    // Past the checks of the builder.
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    header
}

#[tokio::test]
async fn hostile_archives_are_refused() {
    let bed = local();
    let cache = cache(CacheLimits::default());
    let mut digests = Vec::new();
    for path in ["../evil", "/evil", "a/../../evil"] {
        let header = raw_header(path, 1);
        digests
            .push(store_archive(&bed.store, |tar| tar.append(&header, &b"x"[..]).unwrap()).await);
    }
    // A file written through a link, and a link that leaves.
    digests.push(
        store_archive(&bed.store, |tar| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, "out", "../..").unwrap();
            let header = raw_header("out/evil", 1);
            tar.append(&header, &b"x"[..]).unwrap();
        })
        .await,
    );
    digests.push(
        store_archive(&bed.store, |tar| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, "out", "/etc").unwrap();
        })
        .await,
    );
    // A bomb: kilobytes that become more than a bundle may hold.
    digests.push(
        store_archive(&bed.store, |tar| {
            let size = MAX_BYTES + 1;
            let header = raw_header("bomb", size);
            tar.append(&header, std::io::Read::take(std::io::repeat(0), size))
                .unwrap();
        })
        .await,
    );
    for digest in &digests {
        let error = cache.cache.fetch(&bed.store, digest).await.unwrap_err();
        assert!(
            matches!(error, BundleError::Corrupt { .. } | BundleError::Io { .. }),
            "{error}"
        );
        assert!(!cache.names().contains(&digest.to_string()));
    }
    assert!(!cache.dir.path().join("evil").exists());
    assert!(!cache.dir.path().join("cache/evil").exists());
    assert!(
        cache.names().iter().all(|name| name.ends_with(".lock")),
        "{:?}",
        cache.names()
    );
}

#[tokio::test]
async fn a_damaged_archive_is_refused() {
    let bed = local();
    let digest = store_bundle(&bed.store, sample().path()).await.unwrap();
    let other = tempdir().unwrap();
    write(other.path(), "dag.yaml", "dag_id: forged");
    let forged = pack(other.path()).unwrap().archive;
    let cache = cache(CacheLimits::default());
    for archive in [forged, Bytes::from_static(b"not zstd"), Bytes::new()] {
        bed.store.put(&digest.key(), archive).await.unwrap();
        let error = cache.cache.fetch(&bed.store, &digest).await.unwrap_err();
        assert!(matches!(error, BundleError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(&digest.to_string()));
    }
}

#[test]
fn digests_are_hex() {
    let text = "ab".repeat(32);
    assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
    for wrong in ["", "ab", "../../etc/passwd", &"zz".repeat(32)] {
        assert!(wrong.parse::<Digest>().is_err());
    }
}
