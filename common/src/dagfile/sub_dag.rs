//! `sub_dag`: another DAG file, composed in as a group.
//!
//! The file has to be right by itself. Its tasks become members of the group, with the values that are given here in the place of
//! its parameters; what it says of its own runs (schedule, limits, …) plays no part.

use super::{
    draft::{Defaults, Draft, Drafts, Group},
    node::{Entry, Mark, Node, Style, Tree},
    parse_within,
    reader::{Reader, Role, Text},
    texts::{find, find_mut},
    yaml,
};
use crate::{
    params::check_params,
    spec::DagSpec,
    template::analysis::{self, analyse, analyse_expression},
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, sync::Arc};

/// Files in files at most.
const MAX_DEPTH: usize = 5;
/// Bytes of all files that one DAG is composed of at most, each as often as it is used.
const MAX_BYTES: usize = 8 << 20;

/// The folder that a DAG file is in, as far as others of it are composed in.
pub trait Folder {
    /// A file by its path within the folder (`parts/load.yaml`), at most one byte more than
    /// [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES). Why not, if it cannot be read.
    fn read(&self, path: &str) -> Result<Vec<u8>, String>;
}

/// No folder: a DAG file that was sent alone.
struct Alone;

impl Folder for Alone {
    fn read(&self, _: &str) -> Result<Vec<u8>, String> {
        Err("this DAG file came alone: deploy the folder that both are in".to_owned())
    }
}

/// Which file is read, and on behalf of which.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub(super) folder: &'a dyn Folder,
    /// Paths from the DAG's file to the one that is being read.
    pub(super) files: Vec<String>,
}

impl Place<'_> {
    pub(super) fn alone(file: &str) -> Self {
        Self {
            folder: &Alone,
            files: vec![file.to_owned()],
        }
    }
}

impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.files).finish()
    }
}

/// The path of `file` as a file at `by` names it; `None` if it leads out of the folder.
fn relative(by: &str, file: &str) -> Option<String> {
    if file.starts_with('/') || file.contains('\\') {
        return None;
    }
    let mut parts: Vec<&str> = by.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

impl Reader<'_> {
    /// A task with `sub_dag`: the file's tasks become members of the group `id`.
    pub(super) fn sub_dag(
        &mut self,
        entry: &Entry,
        keys: &[Entry],
        id: &str,
        scope: &str,
        drafts: &mut Drafts,
    ) {
        self.group_keys(keys, "sub_dag");
        let group = Group {
            spot: self.spot(entry.at),
            scope: scope.to_owned(),
            mapping: Map::new(),
            texts: Vec::new(),
            depends_on: self.names(keys),
        };
        let Some(key) = keys.iter().find(|key| key.key == "sub_dag") else {
            return;
        };
        let value = self.task_key(key).unwrap_or_default();
        self.templates.clear();
        let composed = self.within("sub_dag", |reader| reader.composed(&value, key.value.at));
        let Some((spec, root, path)) = composed else {
            // Others may depend on it; that is no further problem.
            drafts.add(self, Draft::new(id.to_owned(), scope, group.spot));
            return;
        };
        if drafts.ids.contains_key(id) || drafts.groups.contains_key(id) {
            let message = format!("there are two tasks or groups of the id {id:?}");
            self.error(entry.at, message);
        }
        let given = value.get("params").and_then(Value::as_object);
        let given = given.cloned().unwrap_or_default();
        let params = self.within("sub_dag", |reader| {
            reader.values(&spec, given, key.value.at)
        });
        drafts.groups.insert(id.to_owned(), group);
        let (first, groups) = (drafts.tasks.len(), group_ids(drafts));
        let Tree::Map(entries) = &root.tree else {
            return;
        };
        let find_key = |name: &str| {
            let mut entries = entries.iter();
            entries.find(|entry| entry.key == name).map(|e| &e.value)
        };
        self.place.files.push(path);
        self.within("sub_dag", |reader| {
            // A file means the same wherever it is used: it takes no defaults from around it.
            let none = Defaults::default();
            let defaults = reader.within("default_args", |reader| {
                Defaults::read(reader, find_key("default_args"), &none)
            });
            if let Some(tasks) = find_key("tasks") {
                reader.within("tasks", |reader| reader.tasks(tasks, id, &defaults, drafts));
            }
        });
        self.place.files.pop();
        for draft in &mut drafts.tasks[first..] {
            give(&draft.texts, &mut draft.value, &params);
        }
        for (inner, group) in &mut drafts.groups {
            if !groups.contains(inner) {
                give(&group.texts, &mut group.mapping, &params);
            }
        }
    }

    /// Reads the file that a `sub_dag` names: what it is by itself, and its tree.
    fn composed(&mut self, value: &Value, at: Mark) -> Option<(DagSpec, Node, String)> {
        let file = value.get("file")?.as_str()?;
        let by = self.place.files.last().cloned().unwrap_or_default();
        let Some(path) = relative(&by, file) else {
            let message = format!("the file {file:?} is not within the folder that is deployed");
            self.error_within("file", at, message);
            return None;
        };
        if self.place.files.contains(&path) {
            let circle = [&self.place.files[..], std::slice::from_ref(&path)].concat();
            let message = format!("the files are in each other: {}", circle.join(" → "));
            self.error_within("file", at, message);
            return None;
        }
        if self.place.files.len() > MAX_DEPTH {
            let message = format!("a DAG has at most {MAX_DEPTH} levels of files in files");
            self.error_within("file", at, message);
            return None;
        }
        let bytes = match self.place.folder.read(&path) {
            Ok(bytes) => bytes,
            Err(why) => {
                self.error_within("file", at, format!("cannot read {path:?}: {why}"));
                return None;
            }
        };
        self.composed_bytes += bytes.len();
        if self.composed_bytes > MAX_BYTES {
            let message = format!("the files of a DAG have at most {MAX_BYTES} bytes together");
            self.error_within("file", at, message);
            return None;
        }
        let mut place = self.place.clone();
        place.files.push(path.clone());
        let spec = match parse_within(place, &path, &bytes) {
            Ok(parsed) => parsed.spec,
            Err(problems) => {
                let is_error = |d: &&super::Diagnostic| d.severity == super::Severity::Error;
                let errors: Vec<_> = problems.iter().filter(is_error).collect();
                let first = errors.first().map(ToString::to_string).unwrap_or_default();
                let more = match errors.len() {
                    0 | 1 => String::new(),
                    n => format!(" (and {} more)", n - 1),
                };
                let message = format!("the file is not right by itself: {first}{more}");
                self.error_within("file", at, message);
                return None;
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let root = yaml::load(&path, text.trim_start_matches('\u{feff}')).ok()?;
        Some((spec, moved(&root, at), path))
    }

    /// What stands for each of the file's parameters: an expression, over what is known here.
    fn values(
        &mut self,
        spec: &DagSpec,
        given: Map<String, Value>,
        at: Mark,
    ) -> Vec<(String, String)> {
        let mut expressions = Vec::new();
        let is_made = |value: &Value| has_template(value);
        let literal: Map<String, Value> = given
            .iter()
            .filter(|(_, value)| !is_made(value))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let violations = check_params(spec, &literal).err().unwrap_or_default();
        for violation in violations {
            // What is made when the DAG runs is not known yet.
            if !given.get(&violation.param).is_some_and(is_made) {
                self.error_within("params", at, violation.to_string());
            }
        }
        for name in given.keys().filter(|name| !spec.params.contains_key(*name)) {
            if given.get(name).is_some_and(is_made) {
                let message = format!("the file has no parameter {name:?}");
                self.error_within("params", at, message);
            }
        }
        self.check_pulls(spec, &given, at);
        for (name, schema) in &spec.params {
            let default = schema.get("default");
            let expression = match (given.get(name), default) {
                (Some(value), _) => expression(value),
                (None, Some(default)) => Ok(literal_expression(default)),
                (None, None) => continue,
            };
            match expression {
                Ok(expression) => expressions.push((name.clone(), expression)),
                Err(message) => {
                    self.within("params", |reader| reader.error_within(name, at, message));
                }
            }
        }
        expressions
    }
}

impl Reader<'_> {
    /// A value may pull from tasks around the file, unless one in it has the same name.
    fn check_pulls(&mut self, spec: &DagSpec, given: &Map<String, Value>, at: Mark) {
        let mut texts = Vec::new();
        given.values().for_each(|value| texts_in(value, &mut texts));
        let pulls = texts
            .iter()
            .filter_map(|text| analyse(text).ok())
            .flat_map(|analysis| analysis.pulls);
        for pull in pulls {
            let is_it = |id: &str| {
                id.strip_prefix(&pull.task_id)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            if spec.tasks.iter().any(|task| is_it(&task.task_id)) {
                let message = format!(
                    "ti.xcom_pull: a task of the file has the name {:?} too, so it is not clear which is meant: name one of them otherwise",
                    pull.task_id
                );
                self.error_within("params", at, message);
            }
        }
    }
}

fn texts_in<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts_in(item, texts)),
        Value::Object(map) => map.values().for_each(|item| texts_in(item, texts)),
        _ => {}
    }
}

fn group_ids(drafts: &Drafts) -> BTreeSet<String> {
    drafts.groups.keys().cloned().collect()
}

/// A tree of another file, all of which stands where it is used.
fn moved(node: &Node, at: Mark) -> Node {
    let tree = match &node.tree {
        Tree::Scalar(scalar) => {
            let mut scalar = scalar.clone();
            scalar.style = Style::Other;
            Tree::Scalar(scalar)
        }
        Tree::Seq(items) => Tree::Seq(Arc::new(items.iter().map(|n| moved(n, at)).collect())),
        Tree::Map(entries) => {
            let entry = |entry: &Entry| Entry {
                key: entry.key.clone(),
                at,
                value: moved(&entry.value, at),
            };
            Tree::Map(Arc::new(entries.iter().map(entry).collect()))
        }
    };
    Node { at, tree }
}

fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => crate::template::is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(map) => map.values().any(has_template),
        _ => false,
    }
}

/// A value as an expression of the template language, which takes JSON but for `null`.
fn literal_expression(value: &Value) -> String {
    // Without templates in it nothing can be wrong.
    build(value, &|text| Ok(Value::from(text).to_string())).unwrap_or_default()
}

fn expression(value: &Value) -> Result<String, String> {
    build(value, &|text| match analysis::only_expression(text) {
        _ if !crate::template::is_template(text) => Ok(Value::from(text).to_string()),
        Some((_, inner)) => Ok(format!("({})", inner.trim())),
        None => Err(format!(
            "the value {text:?} has to be exactly one `{{{{ … }}}}`, such as {{{{ 'day-' ~ ds }}}}"
        )),
    })
}

fn build(value: &Value, text: &dyn Fn(&str) -> Result<String, String>) -> Result<String, String> {
    Ok(match value {
        Value::Null => "none".to_owned(),
        Value::String(of) => text(of)?,
        Value::Array(items) => {
            let items: Result<Vec<String>, String> =
                items.iter().map(|item| build(item, text)).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| {
                Ok(format!(
                    "{}: {}",
                    Value::from(key.as_str()),
                    build(value, text)?
                ))
            };
            let pairs: Result<Vec<String>, String> = map.iter().map(pair).collect();
            format!("{{{}}}", pairs?.join(", "))
        }
        other => other.to_string(),
    })
}

/// Puts the values of the parameters into the templates of a task or group.
fn give(texts: &[Text], value: &mut Map<String, Value>, params: &[(String, String)]) {
    for text in texts {
        let Some(written) = find(value, &text.pointer).and_then(|old| given(text, old, params))
        else {
            continue;
        };
        if let Some(place) = find_mut(value, &text.pointer) {
            *place = Value::String(written);
        }
    }
}

/// A template with the values in the place of `params`; `None` if it does not look at any.
fn given(text: &Text, content: &str, params: &[(String, String)]) -> Option<String> {
    const NAME: &str = "params";
    let analysis = match text.role {
        Role::Expression(names) => analyse_expression(content, names),
        _ if crate::template::is_template(content) => analyse(content),
        _ => return None,
    };
    let mut references = analysis.ok()?.references;
    references.retain(|reference| {
        let there = content.get(reference.at.start..).unwrap_or_default();
        reference.root == NAME && there.starts_with(NAME)
    });
    references.sort_by_key(|reference| std::cmp::Reverse(reference.at.start));
    references.dedup_by_key(|reference| reference.at.start);
    let mut written = content.to_owned();
    for reference in &references {
        let is_method = reference.called && reference.fields.len() == 1;
        let only = reference.fields.first().filter(|_| !is_method);
        let wanted = params
            .iter()
            .filter(|(name, _)| only.is_none_or(|only| only == name));
        let pairs: Vec<String> = wanted
            .map(|(name, value)| format!("{}: {value}", Value::from(name.as_str())))
            .collect();
        let start = reference.at.start;
        let values = format!("({{{}}})", pairs.join(", "));
        written.replace_range(start..start + NAME.len(), &values);
    }
    (!references.is_empty()).then_some(written)
}
