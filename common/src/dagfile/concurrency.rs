//! Checks the template of a DAG's `concurrency.key`: a scheduler renders it before the run starts.

use super::reader::{Reader, Text};
use crate::template::{analysis, is_template};
use serde_json::{Map, Value};

/// What is known of a run before it starts.
const ROOTS: [&str; 13] = [
    "dag",
    "dag_run",
    "data_interval_end",
    "data_interval_start",
    "ds",
    "ds_nodash",
    "logical_date",
    "macros",
    "params",
    "run_id",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
];

/// `texts` are those of the top level, which no task has.
pub(super) fn check(reader: &mut Reader<'_>, dag: &Map<String, Value>, texts: &[Text]) {
    let Some(key) = dag
        .get("concurrency")
        .and_then(|shared| shared["key"].as_str())
    else {
        return;
    };
    let Some(text) = texts.iter().find(|text| {
        text.pointer
            .first()
            .is_some_and(|first| first == "concurrency")
    }) else {
        return;
    };
    if !is_template(key) {
        return;
    }
    let analysis = match analysis::analyse(key) {
        Ok(analysis) => analysis,
        Err(error) => {
            let spot = reader.within_text(text, key, error.offset.unwrap_or(0));
            reader.error_at(&spot, error.message);
            return;
        }
    };
    for (problem, offset) in &analysis.problems {
        let spot = reader.within_text(text, key, *offset);
        reader.error_at(&spot, problem.clone());
    }
    let params = dag.get("params").and_then(Value::as_object);
    for reference in &analysis.references {
        let root = reference.root.as_str();
        let spot = reader.within_text(text, key, reference.at.start);
        if !ROOTS.contains(&root) {
            let message = format!(
                "`{root}` is not known before a run starts: a key sees {}",
                ROOTS.join(", ")
            );
            reader.error_at(&spot, message);
            continue;
        }
        let undeclared = reference.fields.first().filter(|name| {
            root == "params"
                && !(reference.called && reference.fields.len() == 1)
                && !params.is_some_and(|params| params.contains_key(*name))
        });
        if let Some(name) = undeclared {
            let message =
                format!("`params.{name}` is undefined: declare it under `params` of the DAG");
            reader.error_at(&spot, message);
        }
    }
}
