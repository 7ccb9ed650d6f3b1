//! From a tree to a specification.

use super::{
    Parsed, callbacks, concurrency, deciders,
    diagnostic::{Diagnostic, Severity},
    draft::{Defaults, Draft, Drafts},
    grammar::DAG,
    lints,
    node::{Node, Tree},
    reader::Reader,
    resolve::Resolved,
    results, retries, setups, texts,
};
use crate::spec::{DagSpec, TaskSpec};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

pub(super) fn assemble(mut reader: Reader<'_>, root: &Node) -> Result<Parsed, Vec<Diagnostic>> {
    let spec = read(&mut reader, root);
    let mut seen = HashSet::new();
    // The phases of a `data` task and the heirs of a default find the same problem again.
    reader
        .diagnostics
        .retain(|d| seen.insert((d.line, d.column, d.path.clone(), d.message.clone())));
    reader.diagnostics.sort_by_key(|d| (d.line, d.column));
    let failed = reader
        .diagnostics
        .iter()
        .any(|d| d.severity == Severity::Error);
    match spec {
        Some(spec) if !failed => Ok(Parsed {
            spec,
            warnings: reader.diagnostics,
        }),
        _ => Err(reader.diagnostics),
    }
}

fn read(reader: &mut Reader<'_>, root: &Node) -> Option<DagSpec> {
    let Tree::Map(entries) = &root.tree else {
        reader.mismatch(root, "a DAG (a mapping with dag_id and tasks)");
        return None;
    };
    let find = |name: &str| {
        entries
            .iter()
            .find(|entry| entry.key == name)
            .map(|entry| &entry.value)
    };
    // Dates are read in the time zone, wherever in the file it stands.
    if let Some(Tree::Scalar(scalar)) = find("timezone").map(|node| &node.tree)
        && let Ok(timezone) = scalar.text.parse()
    {
        reader.timezone = timezone;
    }
    let mut dag = reader.fragment(root, &DAG)?;
    let of_the_dag = std::mem::take(&mut reader.templates);
    concurrency::check(reader, &dag, &of_the_dag);
    callbacks::check_texts(reader, &dag, &of_the_dag);
    let none = Defaults::default();
    let defaults = reader.within("default_args", |reader| {
        Defaults::read(reader, find("default_args"), &none)
    });
    let mut drafts = Drafts::default();
    if let Some(tasks) = find("tasks") {
        reader.within("tasks", |reader| {
            reader.tasks(tasks, "", &defaults, &mut drafts)
        });
    }
    setups::mark(reader, &mut drafts);
    let resolved = drafts.resolve(reader);
    setups::check(reader, &drafts, &resolved);
    deciders::check(reader, &drafts, &resolved);
    retries::check(reader, &drafts);
    callbacks::check(reader, root, &dag, &drafts);
    results::check(reader, &mut drafts, &resolved);
    let params = dag
        .get("params")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    texts::check(reader, &mut drafts, &resolved, &params);
    lints::check(reader, root, &dag, &drafts, &resolved);
    if reader
        .diagnostics
        .iter()
        .any(|d| d.severity == Severity::Error)
    {
        return None;
    }
    dag.remove("format");
    if dag.get("schedule").is_some_and(Value::is_null) {
        dag.remove("schedule");
    }
    dag.insert("tasks".to_owned(), json!([]));
    let groups = drafts.groups.iter();
    let mapped: Map<String, Value> = groups
        .filter(|(_, group)| !group.mapping.is_empty())
        .map(|(id, group)| (id.clone(), json!(group.mapping)))
        .collect();
    if !mapped.is_empty() {
        dag.insert("mapped_groups".to_owned(), Value::Object(mapped));
    }
    let mut spec: DagSpec = convert(reader, Value::Object(dag))?;
    spec.tasks = tasks(reader, drafts, resolved)?;
    Some(spec)
}

fn tasks(reader: &mut Reader<'_>, drafts: Drafts, resolved: Resolved) -> Option<Vec<TaskSpec>> {
    let ids: Vec<String> = drafts.tasks.iter().map(|draft| draft.id.clone()).collect();
    let value = |mut draft: Draft| {
        if let Some(group) = draft.mapped_group {
            draft.value.insert("mapped_group".to_owned(), json!(group));
        }
        Some(draft.value)
    };
    let mut values: Vec<Option<Map<String, Value>>> = drafts.tasks.into_iter().map(value).collect();
    let mut tasks = Vec::with_capacity(values.len());
    for task in resolved.order? {
        let mut value = values[task].take()?;
        let mut upstream: Vec<&String> =
            resolved.upstream[task].iter().map(|up| &ids[*up]).collect();
        upstream.sort_unstable();
        value.insert("task_id".to_owned(), json!(ids[task]));
        value.insert("depends_on".to_owned(), json!(upstream));
        tasks.push(convert(reader, Value::Object(value))?);
    }
    Some(tasks)
}

/// The tables admit only what the specification's types hold; should one ever not, its author is told, not the log.
fn convert<T: serde::de::DeserializeOwned>(reader: &mut Reader<'_>, value: Value) -> Option<T> {
    match serde_json::from_value(value) {
        Ok(converted) => Some(converted),
        Err(error) => {
            reader.error(
                None,
                format!("this cannot be held in a specification: {error}"),
            );
            None
        }
    }
}
