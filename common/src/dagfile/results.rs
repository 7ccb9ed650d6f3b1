//! Checks of `artifacts`, `inputs` and `cache`; writes full task ids where `inputs` names a task as its group does.

use super::{
    diagnostic::Spot,
    draft::Drafts,
    reader::Reader,
    resolve::{Resolved, Target},
    texts::is_upstream,
};
use crate::template::is_template;
use serde_json::{Value, json};

pub(super) fn check(reader: &mut Reader<'_>, drafts: &mut Drafts, resolved: &Resolved) {
    for task in 0..drafts.tasks.len() {
        let inputs = inputs(reader, drafts, resolved, task);
        let draft = &mut drafts.tasks[task];
        let is = |kinds: &[&str]| kinds.iter().any(|kind| draft.value.contains_key(*kind));
        let given = |key: &str| draft.value.get(key).filter(|value| !value.is_null());
        let spot = |key: &str| below(&draft.spot, key);
        for key in ["artifacts", "inputs"] {
            if given(key).is_some() && !is(&["shell"]) {
                let message = format!("{key} are files of a command: only shell tasks have them");
                reader.error_at(&spot(key), message);
            }
        }
        if given("cache").is_some() && !is(&["shell", "http", "sql"]) {
            let message = "only what a worker runs has a cache: shell, http and sql tasks";
            reader.error_at(&spot("cache"), message);
        }
        for path in given("artifacts")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let path = path.as_str().unwrap_or_default();
            let leaves = path.starts_with('/') || path.split('/').any(|part| part == "..");
            if !is_template(path) && (path.is_empty() || leaves) {
                let diagnostic = reader.error_at(
                    &spot("artifacts"),
                    format!("{path:?} is no path below the attempt's folder"),
                );
                diagnostic.expected = Some(
                    "write the files below $GRISTMILL_ARTIFACTS, and name them from there, such as report.html or plots/*.png.".to_owned(),
                );
            }
        }
        if let Some(inputs) = inputs {
            draft.value.insert("inputs".to_owned(), json!(inputs));
        }
    }
}

/// The full ids of a task's inputs.
fn inputs(
    reader: &mut Reader<'_>,
    drafts: &Drafts,
    resolved: &Resolved,
    task: usize,
) -> Option<Vec<String>> {
    let draft = &drafts.tasks[task];
    let names = draft.value.get("inputs")?.as_array()?;
    let spot = below(&draft.spot, "inputs");
    let mut ids = Vec::with_capacity(names.len());
    for name in names.iter().filter_map(Value::as_str) {
        match drafts.lookup(&draft.scope, name) {
            Some(Target::Task(found)) => {
                let other = &drafts.tasks[found];
                if !is_upstream(resolved, task, found) {
                    let message =
                        format!("{name:?} is not upstream of this task: add it to depends_on");
                    reader.error_at(&spot, message);
                } else if !other.value.contains_key("artifacts") {
                    let message = format!("{name:?} has no artifacts to fetch");
                    reader.error_at(&spot, message);
                }
                ids.push(other.id.clone());
            }
            Some(Target::Group(group)) => {
                let message =
                    format!("{group:?} is a group; name those of its tasks that have artifacts");
                reader.error_at(&spot, message);
            }
            None => {
                let diagnostic = reader.error_at(&spot, format!("there is no task {name:?}"));
                let mut candidates: Vec<&str> = drafts.names(&draft.scope).collect();
                candidates.sort_unstable();
                *diagnostic = diagnostic.clone().suggest(name, candidates);
            }
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

fn below(spot: &Spot, key: &str) -> Spot {
    let separator = if spot.path.starts_with('/') { '/' } else { '.' };
    Spot {
        path: format!("{}{separator}{key}", spot.path),
        ..spot.clone()
    }
}
