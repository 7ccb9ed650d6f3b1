//! The DAG file: YAML 1.2 or JSON in, a normalised [`DagSpec`] out, or everything that is wrong with it, each problem with
//! its place. The grammar is in `docs/dag-format.md`; the table behind it in [`grammar`](self).
//!
//! The way of a file: text → tree of located values (`yaml`, `json`) → plain values, checked by the grammar's tables
//! (`reader`) → drafts of tasks, groups flattened and defaults merged (`draft`) → edges and order (`resolve`) → templates
//! checked (`texts`) → specification (`assemble`).

use crate::spec::DagSpec;
use serde_json::Value;

mod assemble;
mod callbacks;
mod canonical;
mod concurrency;
mod deciders;
mod diagnostic;
mod draft;
mod grammar;
mod json;
mod lints;
mod node;
mod reader;
mod resolve;
mod results;
mod retries;
mod schema;
mod setups;
mod sub_dag;
mod texts;
mod yaml;

pub use canonical::{spec_hash, to_json};
pub use diagnostic::{Diagnostic, Severity};
pub use schema::schema;
pub use sub_dag::Folder;

use diagnostic::Spot;
use reader::Reader;
use sub_dag::Place;

/// Largest DAG file that is read.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// A DAG file that is right, and what may nevertheless not be meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub spec: DagSpec,
    pub warnings: Vec<Diagnostic>,
}

/// Reads a DAG file. `file_name` is for the messages only. On failure every problem that can be found is given, and the
/// warnings too.
pub fn parse(file_name: &str, text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    parse_within(Place::alone(file_name), file_name, text.as_bytes())
}

/// Reads a DAG file's bytes.
pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> Result<Parsed, Vec<Diagnostic>> {
    parse_within(Place::alone(file_name), file_name, bytes)
}

/// Reads the file at `path` of a folder, whose other files it may compose in. Messages call it `file_name`.
pub fn parse_in(
    folder: &dyn Folder,
    path: &str,
    file_name: &str,
    bytes: &[u8],
) -> Result<Parsed, Vec<Diagnostic>> {
    let files = vec![path.to_owned()];
    parse_within(Place { folder, files }, file_name, bytes)
}

fn parse_within(
    place: Place<'_>,
    file_name: &str,
    bytes: &[u8],
) -> Result<Parsed, Vec<Diagnostic>> {
    check_size(file_name, bytes.len())?;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let message = format!(
            "the file is not UTF-8: the byte at {} does not belong",
            error.valid_up_to()
        );
        vec![Diagnostic::error(file_name, &Spot::default(), message)]
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root = yaml::load(file_name, text)?;
    assemble::assemble(Reader::new(file_name, text, false, place), &root)
}

/// A YAML text's plain value, within a DAG file's bounds: for files beside DAGs. An error is the line to look at, and nothing
/// of the text.
pub fn plain_value(text: &str) -> Result<Value, u32> {
    if text.len() > MAX_FILE_BYTES {
        return Err(1);
    }
    match yaml::load("", text) {
        Ok(root) => Ok(root.to_json()),
        Err(problems) => Err(problems.first().and_then(|p| p.line).unwrap_or(1)),
    }
}

/// Reads a DAG given as JSON, as the API takes it: the same grammar, places are JSON pointers. The size is the caller's to
/// bound.
pub fn parse_json(value: &Value) -> Result<Parsed, Vec<Diagnostic>> {
    let root = json::load("dag", value).map_err(|diagnostic| vec![*diagnostic])?;
    assemble::assemble(Reader::new("dag", "", true, Place::alone("dag")), &root)
}

fn check_size(file: &str, bytes: usize) -> Result<(), Vec<Diagnostic>> {
    if bytes <= MAX_FILE_BYTES {
        return Ok(());
    }
    let message = format!("the file has {bytes} bytes; a DAG file has at most {MAX_FILE_BYTES}");
    Err(vec![Diagnostic::error(file, &Spot::default(), message)])
}

/// Whether a file in a folder of DAGs is read as one: `*.yaml`, `*.yml`, `*.dag.json`, unless its name begins with `.` or
/// `_`. `name` may be a path; its last part counts.
pub fn is_dag_file_name(name: &str) -> bool {
    let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let ending = [".yaml", ".yml", ".dag.json"]
        .iter()
        .any(|ending| name.len() > ending.len() && name.ends_with(ending));
    ending && !name.starts_with(['.', '_'])
}

#[cfg(test)]
mod tests;
