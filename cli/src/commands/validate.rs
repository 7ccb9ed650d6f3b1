//! `gristmill dags validate`: checks DAG files here, without a server.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use gristmill_api::FolderOnDisk;
use gristmill_common::dagfile::{self, Diagnostic, Severity, is_dag_file_name};
use serde::Serialize;

use super::console::Console;
use super::exit::{CommandError, Outcome};
use super::output::Output;

/// What was found in one file.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    /// Absent if the file is not right.
    dag_id: Option<String>,
    valid: bool,
    diagnostics: Vec<Diagnostic>,
}

/// Checks a file, or every DAG file below a folder, and prints every problem.
pub(super) fn validate(
    console: &Console,
    path: &Path,
    output: Output,
) -> Result<Outcome, CommandError> {
    let files = dag_files(path)?;
    if files.is_empty() {
        return Err(CommandError::Usage(format!(
            "there is no DAG file in {}: their names end in .yaml, .yml or .dag.json, and begin neither with . nor with _",
            path.display()
        )));
    }
    let mut checked = Vec::with_capacity(files.len());
    for file in &files {
        checked.push(check(path, file)?);
    }
    find_twins(&mut checked);
    let bad = checked.iter().filter(|file| !file.valid).count();
    if output.is_json() {
        console.json(&serde_json::json!(checked))?;
    } else {
        for file in &checked {
            for diagnostic in &file.diagnostics {
                console.line(&diagnostic.to_string())?;
            }
            if let Some(dag_id) = file.dag_id.as_deref().filter(|_| file.valid) {
                console.line(&format!("{}: DAG {dag_id} is valid", file.file))?;
            }
        }
    }
    if bad > 0 {
        console.note(&format!("{bad} of {} files are not valid", checked.len()));
        return Err(CommandError::BadInput);
    }
    Ok(Outcome::Done)
}

/// The file itself whatever its name; of a folder all DAG files, sorted.
fn dag_files(path: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let metadata = fs::metadata(path).map_err(unreadable(path))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    collect(path, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), CommandError> {
    for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
        let entry = entry.map_err(unreadable(dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        // `file_type` does not follow links: a link to a folder above would never end.
        let kind = entry.file_type().map_err(unreadable(&path))?;
        if kind.is_dir() && !name.starts_with('.') {
            collect(&path, files)?;
        } else if !kind.is_dir() && is_dag_file_name(&name) {
            files.push(path);
        }
    }
    Ok(())
}

/// A file of a folder, or alone: then the files that it composes in may be anywhere around it.
fn check(given: &Path, path: &Path) -> Result<Checked, CommandError> {
    let mut bytes = Vec::new();
    // One byte more than is allowed is enough to be refused.
    let limit = dagfile::MAX_FILE_BYTES as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(unreadable(path))?;
    let file = path.display().to_string();
    let root = match given.is_dir() {
        true => given.to_owned(),
        false => PathBuf::from("/"),
    };
    let absolute = path.canonicalize().map_err(unreadable(path))?;
    let within = match given.is_dir() {
        true => path.strip_prefix(given).unwrap_or(path),
        false => absolute.strip_prefix("/").unwrap_or(path),
    };
    let (folder, within) = (FolderOnDisk(root), within.display().to_string());
    let (dag_id, diagnostics) = match dagfile::parse_in(&folder, &within, &file, &bytes) {
        Ok(parsed) => (Some(parsed.spec.dag_id), parsed.warnings),
        Err(diagnostics) => (None, diagnostics),
    };
    Ok(Checked {
        file,
        valid: dag_id.is_some(),
        dag_id,
        diagnostics,
    })
}

/// Two files of one DAG: neither is valid beside the other.
fn find_twins(checked: &mut [Checked]) {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    for file in checked {
        let Some(dag_id) = file.dag_id.clone() else {
            continue;
        };
        let Some(other) = first.get(&dag_id) else {
            first.insert(dag_id, file.file.clone());
            continue;
        };
        file.valid = false;
        file.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            file: file.file.clone(),
            line: None,
            column: None,
            path: "dag_id".to_owned(),
            message: format!("DAG {dag_id:?} is in {other} already"),
            expected: None,
            suggestion: None,
        });
    }
}

pub(super) fn unreadable(path: &Path) -> impl Fn(io::Error) -> CommandError + use<> {
    let path = path.to_owned();
    move |error| CommandError::Usage(format!("cannot read {}: {error}", path.display()))
}
