//! Finding the files of a source.

use std::path::{Path as FsPath, PathBuf};

use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::request::Slice;
use crate::store::{Location, Stores};

const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Lists the files that `path` (a file, a folder ending in `/`, or a glob) means, as whole-file slices in the order of
/// their names. Empty files are left out. Names that start with `.` or `_` are hidden from folders and globs, as
/// markers and attempts of other writers are.
pub async fn list(stores: &Stores, path: &str) -> Result<Vec<Slice>> {
    let mut files = match Location::parse(path)? {
        Location::Local(absolute) => {
            let relative = !(path.starts_with('/') || path.contains("://"));
            let pattern = path.to_owned();
            tokio::task::spawn_blocking(move || list_local(&pattern, &absolute, relative))
                .await
                .map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))??
        }
        Location::S3 { bucket, key } => list_s3(stores, &bucket, &key).await?,
    };
    if files.is_empty() {
        return Err(Error::new(
            ErrorKind::NoFiles,
            format!("no file matches {path:?}"),
        ));
    }
    files.sort_by(|a, b| a.url.cmp(&b.url));
    files.retain(|file| file.size > 0);
    Ok(files)
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn bad_pattern(pattern: &str, error: &dyn std::fmt::Display) -> Error {
    Error::spec(format!("{pattern:?} is not a valid pattern: {error}"))
}

fn list_local(given: &str, absolute: &FsPath, relative: bool) -> Result<Vec<Slice>> {
    let text = absolute.to_string_lossy();
    let current = std::env::current_dir()?;
    let paths: Vec<PathBuf> = if is_glob(given) {
        // Only the given part is a pattern: the bundle's own folder may have any name.
        let pattern = match absolute.strip_prefix(&current) {
            Ok(inside) if relative => {
                let base = Pattern::escape(&current.to_string_lossy());
                format!("{base}/{}", inside.display())
            }
            _ => text.to_string(),
        };
        glob::glob_with(&pattern, MATCH)
            .map_err(|e| bad_pattern(given, &e))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(std::io::Error::from)?
            .into_iter()
            .filter(|p| !hidden(&p.to_string_lossy(), literal_part(&text)))
            .collect()
    } else if given.ends_with('/') || absolute.is_dir() {
        match std::fs::read_dir(absolute) {
            Ok(entries) => entries
                .map(|entry| entry.map(|e| e.path()))
                .collect::<std::io::Result<Vec<_>>>()?
                .into_iter()
                .filter(|p| !hidden(&p.to_string_lossy(), &text))
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        }
    } else {
        vec![absolute.to_owned()]
    };
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let size = match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() => meta.len(),
            Ok(_) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::from(error).context(path.display())),
        };
        // A relative path stays relative: the bundle lies elsewhere on every worker.
        let url = match path.strip_prefix(&current) {
            Ok(inside) if relative => inside.display().to_string(),
            _ => format!("file://{}", path.display()),
        };
        files.push(Slice {
            url,
            start: 0,
            end: size,
            size,
            e_tag: None,
        });
    }
    Ok(files)
}

/// The part of a pattern before the first segment that is one.
fn literal_part(pattern: &str) -> &str {
    let first = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    let end = pattern[..first].rfind('/').unwrap_or(0);
    &pattern[..end]
}

/// Whether a segment of `path` below the literal part of the pattern is hidden.
fn hidden(path: &str, literal: &str) -> bool {
    path.strip_prefix(literal)
        .unwrap_or(path)
        .split('/')
        .any(|segment| segment.starts_with(['.', '_']))
}

async fn list_s3(stores: &Stores, bucket: &str, key: &str) -> Result<Vec<Slice>> {
    let at = |key: &str| Location::S3 {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    };
    let store = stores.open(&at(key))?;
    let to_slice = |meta: object_store::ObjectMeta| Slice {
        url: at(meta.location.as_ref()).to_string(),
        start: 0,
        end: meta.size,
        size: meta.size,
        e_tag: meta.e_tag,
    };
    let folder = key.is_empty() || key.ends_with('/');
    if !is_glob(key) && !folder {
        use object_store::ObjectStoreExt as _;
        return match store.head(&at(key).path()?).await {
            Ok(meta) => Ok(vec![to_slice(meta)]),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        };
    }
    let pattern = if folder {
        format!("{key}*")
    } else {
        key.to_owned()
    };
    let matcher = Pattern::new(&pattern).map_err(|e| bad_pattern(&pattern, &e))?;
    // The store lists by whole segments, so the prefix ends before the first one that is a pattern.
    let literal = literal_part(&pattern);
    let prefix: Option<Path> = match literal {
        "" => None,
        literal => Some(at(literal).path()?),
    };
    let below = pattern[literal.len()..].trim_start_matches('/');
    let found = if below.contains('/') {
        store.list(prefix.as_ref()).try_collect::<Vec<_>>().await?
    } else {
        store.list_with_delimiter(prefix.as_ref()).await?.objects
    };
    Ok(found
        .into_iter()
        .filter(|meta| {
            let key = meta.location.as_ref();
            !hidden(key, literal) && matcher.matches_with(key, MATCH)
        })
        .map(to_slice)
        .collect())
}
