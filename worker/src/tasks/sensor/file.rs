//! Looks for files and objects: a path, `file://…` or `s3://…`, with the wildcards of data tasks.

use super::{Blind, Seen};
use crate::run::Execution;
use futures::StreamExt;
use glob::{MatchOptions, Pattern};
use object_store::{ObjectStoreExt as _, path::Path};
use serde_json::{Value, json};

/// Matches that are returned at most.
const MOST: usize = 1000;

const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

pub(super) async fn look(execution: &Execution, template: &str) -> Result<Seen, Blind> {
    let rendered = execution
        .context
        .renderer
        .render(template)
        .map_err(|error| Blind::ForGood(format!("sensor.file: {error}")))?;
    let wanted = rendered.trim();
    let found = match wanted.split_once("://") {
        Some(("s3", place)) => in_bucket(execution, place).await?,
        Some(("file", path)) if path.starts_with('/') => on_disk(path).await?,
        None if wanted.starts_with('/') => on_disk(wanted).await?,
        _ => {
            return Err(Blind::ForGood(format!(
                "sensor.file: {wanted:?} is neither an absolute path nor an URL such as s3://bucket/key or file:///path"
            )));
        }
    };
    Ok(seen(wanted, found))
}

/// A pattern's value is the list of what it matches, a name's the name.
fn seen(wanted: &str, mut found: Vec<String>) -> Seen {
    if found.is_empty() {
        return Seen::NotYet(format!("{wanted} is not there"));
    }
    found.sort_unstable();
    let note = match found.as_slice() {
        [one] => format!("found {one}"),
        many => format!("found {} files: {} …", many.len(), many[0]),
    };
    let value = match is_pattern(wanted) {
        true => json!(found),
        false => Value::String(wanted.to_owned()),
    };
    Seen::Found { value, note }
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The part of a pattern before the first segment that is one.
fn literal_part(pattern: &str) -> &str {
    let first = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    &pattern[..pattern[..first].rfind('/').unwrap_or(0)]
}

/// Names that begin with `.` or `_` are hidden from patterns, as markers and unfinished files of writers are.
fn hidden(path: &str, literal: &str) -> bool {
    path.strip_prefix(literal)
        .unwrap_or(path)
        .split('/')
        .any(|segment| segment.starts_with(['.', '_']))
}

async fn on_disk(path: &str) -> Result<Vec<String>, Blind> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || list(&path))
        .await
        .map_err(|error| Blind::Failed(error.to_string()))?
}

fn list(path: &str) -> Result<Vec<String>, Blind> {
    if !is_pattern(path) {
        return match std::fs::metadata(path) {
            Ok(_) => Ok(vec![path.to_owned()]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(Blind::Failed(format!("sensor.file: {path}: {error}"))),
        };
    }
    let bad = |error| Blind::ForGood(format!("sensor.file: {path:?} is no pattern: {error}"));
    let literal = literal_part(path);
    let paths = glob::glob_with(path, MATCH).map_err(|error| bad(error.to_string()))?;
    let mut found = Vec::new();
    for path in paths {
        // What cannot be read now is not there yet.
        let Ok(path) = path else { continue };
        let path = path.to_string_lossy().into_owned();
        if !hidden(&path, literal) {
            found.push(path);
        }
        if found.len() >= MOST {
            break;
        }
    }
    Ok(found)
}

async fn in_bucket(execution: &Execution, place: &str) -> Result<Vec<String>, Blind> {
    let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
    let failed =
        |error: object_store::Error| Blind::Failed(format!("sensor.file: s3://{bucket}: {error}"));
    if bucket.is_empty() {
        let text = format!("sensor.file: s3://{place} names no bucket");
        return Err(Blind::ForGood(text));
    }
    let path = |key: &str| {
        Path::parse(key.trim_end_matches('/'))
            .map_err(|error| Blind::ForGood(format!("sensor.file: s3://{place}: {error}")))
    };
    let store = execution.worker.stores.bucket(bucket).map_err(failed)?;
    let named = |key: &Path| format!("s3://{bucket}/{key}");
    let is_folder = key.is_empty() || key.ends_with('/');
    if !is_pattern(key) && !is_folder {
        return match store.head(&path(key)?).await {
            Ok(meta) => Ok(vec![named(&meta.location)]),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        };
    }
    // The store lists by whole segments, so the prefix ends before the first one that is a pattern.
    let (literal, matcher) = if is_folder {
        (key.trim_end_matches('/'), None)
    } else {
        let matcher = Pattern::new(key).map_err(|error| {
            Blind::ForGood(format!("sensor.file: {key:?} is no pattern: {error}"))
        })?;
        (literal_part(key), Some(matcher))
    };
    let prefix = match literal {
        "" => None,
        literal => Some(path(literal)?),
    };
    let mut objects = store.list(prefix.as_ref());
    let mut found = Vec::new();
    while let Some(object) = objects.next().await {
        let location = object.map_err(failed)?.location;
        let fits = matcher
            .as_ref()
            .is_none_or(|matcher| matcher.matches_with(location.as_ref(), MATCH));
        if fits && !hidden(location.as_ref(), literal) {
            found.push(named(&location));
        }
        if found.len() >= MOST {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Vec<String> {
        match list(path) {
            Ok(found) => found,
            Err(Blind::Failed(why) | Blind::ForGood(why)) => panic!("{why}"),
            Err(Blind::Interrupted) => panic!("nobody interrupts"),
        }
    }

    #[test]
    fn files_are_found_by_name_and_pattern() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        assert!(names(&at("a.csv")).is_empty());
        assert!(names(&at("*.csv")).is_empty());
        for name in ["a.csv", "b.csv", "_part.csv", ".c.csv"] {
            std::fs::write(at(name), "x").unwrap();
        }
        assert_eq!(names(&at("a.csv")), [at("a.csv")]);
        assert_eq!(names(&at("*.csv")), [at("a.csv"), at("b.csv")]);
        assert!(names(&at("a.csv/below")).is_empty());
        assert!(matches!(list("/x/[a"), Err(Blind::ForGood(_))));
    }

    #[test]
    fn a_pattern_gives_the_list_and_a_name_itself() {
        let Seen::Found { value, .. } =
            seen("/d/*.csv", vec!["/d/b.csv".into(), "/d/a.csv".into()])
        else {
            panic!("found");
        };
        assert_eq!(value, json!(["/d/a.csv", "/d/b.csv"]));
        let Seen::Found { value, note } = seen("/d/a", vec!["/d/a".into()]) else {
            panic!("found");
        };
        assert_eq!((value, note.as_str()), (json!("/d/a"), "found /d/a"));
        assert!(matches!(seen("/d/a", Vec::new()), Seen::NotYet(_)));
    }
}
