//! Files that a task leaves for others, and those that it gets from its upstreams.

use crate::run::Execution;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use gristmill_common::row::ARTIFACTS;
use gristmill_objects::artifacts::{self, Artifact, MAX_BYTES, MAX_FILES};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that are read at one time.
const PIECE: usize = 256 * 1024;
/// In an attempt's folder beside what the task itself writes.
const OWN: [&str; 3] = ["xcom.json", "files", "inputs"];

/// The folder that inputs are put into.
pub(super) fn inputs_folder(scratch: &Path) -> PathBuf {
    scratch.join("inputs")
}

/// Puts what a task's `artifacts` name into the object store; gives the list that becomes its XCom.
pub(super) async fn keep(execution: &Execution, scratch: &Path) -> Result<Vec<Artifact>, String> {
    let message = &execution.message;
    let renderer = &execution.context.renderer;
    let patterns = message
        .task
        .artifacts
        .iter()
        .map(|pattern| {
            let pattern = renderer
                .render(pattern)
                .map_err(|error| error.to_string())?;
            let pattern = pattern
                .trim()
                .trim_start_matches("./")
                .trim_end_matches('/')
                .to_owned();
            match artifacts::is_inside(&pattern) {
                true => Ok(pattern),
                false => Err(format!("{pattern:?} is no path below the attempt's folder")),
            }
        })
        .collect::<Result<Vec<String>, String>>()?;
    let root = scratch.to_owned();
    let found = tokio::task::spawn_blocking(move || find(&root, &patterns))
        .await
        .map_err(|error| error.to_string())??;
    let mut kept = Vec::with_capacity(found.len());
    let (run, dispatch) = (message.run.pk.0, message.dispatch);
    let mut total = 0;
    for (name, path) in found {
        let object = artifacts::key(run, dispatch.ti.0, dispatch.fence.0, &name);
        let problem = |error: &dyn std::fmt::Display| format!("cannot keep {name:?}: {error}");
        let file = tokio::fs::File::open(&path)
            .await
            .map_err(|error| problem(&error))?;
        let size = execution
            .worker
            .objects
            .stream_put(&object, pieces(file))
            .await
            .map_err(|error| problem(&error))?;
        total += size;
        if total > MAX_BYTES {
            return Err(too_large());
        }
        let map_index = Some(message.map_index).filter(|index| *index >= 0);
        kept.push(Artifact {
            name,
            size,
            object,
            map_index,
        });
    }
    let note = format!("Kept {} files, {total} bytes", kept.len());
    execution.log.note(&note).await;
    Ok(kept)
}

fn too_large() -> String {
    format!(
        "the artifacts are more than {MAX_BYTES} bytes: write large data into an object store or a database, and return where it is"
    )
}

/// The files that patterns name, by their names. A pattern that names none is an error.
fn find(root: &Path, patterns: &[String]) -> Result<BTreeMap<String, PathBuf>, String> {
    let text = |error: io::Error| format!("cannot look for the artifacts: {error}");
    let root = root.canonicalize().map_err(text)?;
    let mut found = BTreeMap::new();
    let mut total = 0;
    for pattern in patterns {
        let whole = format!(
            "{}/{pattern}",
            glob::Pattern::escape(&root.to_string_lossy())
        );
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..glob::MatchOptions::default()
        };
        let paths = glob::glob_with(&whole, options)
            .map_err(|error| format!("the pattern {pattern:?} cannot be used: {error}"))?;
        let mut any = false;
        let mut waiting: Vec<PathBuf> = paths.filter_map(Result::ok).collect();
        while let Some(path) = waiting.pop() {
            // Where a link leads: out of the folder it leads to nothing.
            let Some(real) = path
                .canonicalize()
                .ok()
                .filter(|real| real.starts_with(&root))
            else {
                continue;
            };
            let name = path
                .strip_prefix(&root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            let first = name.split('/').next().unwrap_or_default();
            if OWN.contains(&first) {
                continue;
            }
            let meta = fs::metadata(&real).map_err(text)?;
            if meta.is_dir() && !path.is_symlink() {
                let entries = fs::read_dir(&path).map_err(text)?;
                waiting.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
            } else if meta.is_file() && artifacts::is_inside(&name) {
                any = true;
                if found.insert(name, real).is_none() {
                    total += meta.len();
                }
            }
            if found.len() > MAX_FILES {
                return Err(format!(
                    "the artifacts are more than {MAX_FILES} files: pack them into one"
                ));
            }
            if total > MAX_BYTES {
                return Err(too_large());
            }
        }
        if !any {
            return Err(format!(
                "no file is called {pattern:?} in $GRISTMILL_ARTIFACTS; there is {}",
                there(&root)
            ));
        }
    }
    Ok(found)
}

/// What is in a folder, for messages.
fn there(root: &Path) -> String {
    let entries = fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !OWN.contains(&name.as_str()))
        .take(20)
        .collect();
    names.sort_unstable();
    match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.join(", "),
    }
}

fn pieces(file: tokio::fs::File) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures::stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let read = (&mut file)
            .take(PIECE as u64)
            .read_to_end(&mut piece)
            .await?;
        Ok((read > 0).then(|| (Bytes::from(piece), file)))
    })
}

/// Fetches the artifacts of a task's `inputs` into its folder: `inputs/TASK/NAME`, of a mapped one `inputs/TASK/INDEX/NAME`.
pub(super) async fn fetch(execution: &Execution, scratch: &Path) -> Result<(), String> {
    let inputs = &execution.message.task.inputs;
    if inputs.is_empty() {
        return Ok(());
    }
    let folder = inputs_folder(scratch);
    let (mut files, mut bytes) = (0, 0);
    for input in inputs {
        let of_task = folder.join(input);
        let cannot = |error: &dyn std::fmt::Display| {
            format!("inputs: cannot fetch the artifacts of {input}: {error}")
        };
        tokio::fs::create_dir_all(&of_task)
            .await
            .map_err(|error| cannot(&error))?;
        for artifact in execution.context.inputs.get(input).into_iter().flatten() {
            if !artifacts::is_inside(&artifact.name) {
                return Err(cannot(&format!("{:?} is no file's name", artifact.name)));
            }
            let path = match artifact.map_index {
                Some(index) => of_task.join(index.to_string()).join(&artifact.name),
                None => of_task.join(&artifact.name),
            };
            let fetched = download(execution, artifact, &path).await;
            bytes += fetched.map_err(|error| cannot(&error))?;
            files += 1;
        }
    }
    let note = format!(
        "Fetched {files} files of {}, {bytes} bytes",
        inputs.join(", ")
    );
    execution.log.note(&note).await;
    Ok(())
}

async fn download(execution: &Execution, artifact: &Artifact, path: &Path) -> Result<u64, String> {
    if let Some(parent) = path.parent() {
        let made = tokio::fs::create_dir_all(parent).await;
        made.map_err(|error| error.to_string())?;
    }
    let objects = &execution.worker.objects;
    let mut stream = objects
        .stream_get(&artifact.object)
        .await
        .map_err(|error| error.to_string())?;
    let mut file = tokio::fs::File::create(path)
        .await
        .map_err(|error| error.to_string())?;
    let mut size = 0;
    while let Some(piece) = stream.try_next().await.map_err(|error| error.to_string())? {
        size += piece.len() as u64;
        file.write_all(&piece)
            .await
            .map_err(|error| error.to_string())?;
    }
    file.flush().await.map_err(|error| error.to_string())?;
    if size != artifact.size {
        return Err(format!(
            "{:?} has {size} bytes, {} were kept",
            artifact.name, artifact.size
        ));
    }
    Ok(size)
}

/// Copies files of another run to be this attempt's own, whatever becomes of that run.
pub(super) async fn copy(
    execution: &Execution,
    files: Vec<Artifact>,
) -> Result<Vec<Artifact>, String> {
    let message = &execution.message;
    let (run, dispatch) = (message.run.pk.0, message.dispatch);
    let objects = &execution.worker.objects;
    let mut copies = Vec::with_capacity(files.len());
    for file in files {
        let object = artifacts::key(run, dispatch.ti.0, dispatch.fence.0, &file.name);
        let content = objects.stream_get(&file.object).await;
        let content = content.map_err(|error| error.to_string())?;
        let size = objects.stream_put(&object, content.boxed()).await;
        let size = size.map_err(|error| error.to_string())?;
        copies.push(Artifact {
            object,
            size,
            ..file
        });
    }
    Ok(copies)
}

/// The key of the XCom that lists a task's files.
pub(super) const KEY: &str = ARTIFACTS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_files_of_the_attempt_and_no_others() {
        let around = tempfile::tempdir().unwrap();
        let root = around.path().join("scratch [1]");
        let write = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for path in [
            "a.csv",
            "b.csv",
            "c.txt",
            "plots/1.png",
            "plots/deep/2.png",
            "xcom.json",
            "files/f",
            "inputs/t/i",
        ] {
            write(path);
        }
        fs::write(around.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(around.path().join("secret"), root.join("link")).unwrap();
        let names = |patterns: &[&str]| -> Result<Vec<String>, String> {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            Ok(find(&root, &patterns)?.into_keys().collect())
        };
        assert_eq!(names(&["*.csv"]).unwrap(), ["a.csv", "b.csv"]);
        assert_eq!(
            names(&["plots", "a.csv", "a.*"]).unwrap(),
            ["a.csv", "plots/1.png", "plots/deep/2.png"]
        );
        assert_eq!(
            names(&["**/*.png"]).unwrap(),
            ["plots/1.png", "plots/deep/2.png"]
        );
        assert_eq!(
            names(&["*"]).unwrap(),
            ["a.csv", "b.csv", "c.txt", "plots/1.png", "plots/deep/2.png"]
        );
        let error = names(&["*.parquet"]).unwrap_err();
        assert!(
            error.contains("\"*.parquet\"") && error.contains("a.csv, b.csv"),
            "{error}"
        );
        for pattern in ["link", "xcom.json", "inputs/**"] {
            assert!(names(&[pattern]).is_err(), "{pattern}");
        }
        assert!(names(&["[a"]).unwrap_err().contains("cannot be used"));
    }
}
