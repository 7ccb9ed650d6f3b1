//! Checks callbacks and deadlines, of the DAG and of tasks; and the templates of those of the DAG, which no task has.

use super::{
    diagnostic::Spot,
    draft::Drafts,
    node::{Node, Tree},
    reader::{Reader, Text},
};
use crate::template::{analysis, env::ROOTS, is_template};
use serde_json::{Map, Value};

/// The keys that hold callbacks themselves.
pub(super) const EVENTS: [&str; 4] = ["on_success", "on_failure", "on_retry", "on_skipped"];
/// A delivery takes no longer.
const LONGEST_TIMEOUT: f64 = 60.0;

pub(super) fn check(
    reader: &mut Reader<'_>,
    root: &Node,
    dag: &Map<String, Value>,
    drafts: &Drafts,
) {
    check_holder(reader, dag, &|reader, key| {
        let at = match &root.tree {
            Tree::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        };
        reader.within(key, |reader| reader.spot(at.and_then(|entry| entry.at)))
    });
    for draft in &drafts.tasks {
        check_holder(reader, &draft.value, &|_, _| draft.spot.clone());
        let waiting = draft
            .value
            .get("approval")
            .and_then(|approval| approval.get("on_waiting"));
        for callback in list(waiting) {
            check_callback(reader, callback, "approval.on_waiting", &draft.spot);
        }
    }
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn check_holder(
    reader: &mut Reader<'_>,
    value: &Map<String, Value>,
    spot_of: &dyn Fn(&mut Reader<'_>, &str) -> Spot,
) {
    for event in EVENTS {
        for callback in list(value.get(event)) {
            let spot = spot_of(reader, event);
            check_callback(reader, callback, event, &spot);
        }
    }
    let spot = &spot_of(reader, "deadlines");
    for (n, deadline) in list(value.get("deadlines")).enumerate() {
        let what = format!("deadlines[{n}]");
        let given = |key: &str| deadline.get(key).is_some_and(|value| !value.is_null());
        if !given("reference") && !given("at") {
            let message = format!("{what}: name a `reference`, or a fixed time with `at`");
            reader.error_at(spot, message);
        }
        for callback in list(deadline.get("call")) {
            check_callback(reader, callback, &format!("{what}.call"), spot);
        }
    }
}

fn check_callback(reader: &mut Reader<'_>, callback: &Value, what: &str, spot: &Spot) {
    let text = |key: &str| callback.get(key).and_then(Value::as_str);
    let (webhook, connection) = (text("webhook"), text("connection"));
    if let Some(url) = webhook
        && !is_template(url)
        && url.contains("://")
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        let message = format!("{what}: the webhook {url:?} is no http:// or https:// URL");
        reader.error_at(spot, message);
    }
    match (webhook, connection) {
        (None, None) => {
            let message = format!("{what}: a callback needs a `webhook`, or a `connection`");
            reader.error_at(spot, message);
        }
        (Some(url), None) if !is_template(url) && !url.contains("://") => {
            let message = format!(
                "{what}: the webhook {url:?} is no absolute URL, and there is no `connection` that gives a host"
            );
            reader.error_at(spot, message);
        }
        _ => {}
    }
    let seconds = callback
        .get("timeout")
        .and_then(|span| serde_json::from_value::<crate::span::Span>(span.clone()).ok())
        .map(|span| span.duration().as_secs_f64());
    if seconds.is_some_and(|seconds| !(0.001..=LONGEST_TIMEOUT).contains(&seconds)) {
        let message = format!("{what}: the timeout of a delivery is at most 1m, and more than 0");
        reader.error_at(spot, message);
    }
}

/// The templates of a DAG's own callbacks: they see the run.
pub(super) fn check_texts(reader: &mut Reader<'_>, dag: &Map<String, Value>, texts: &[Text]) {
    for text in texts {
        let is_ours = |key: &String| key == "deadlines" || EVENTS.contains(&key.as_str());
        if !text.pointer.first().is_some_and(is_ours) {
            continue;
        }
        let Some(content) = super::texts::find(dag, &text.pointer).map(str::to_owned) else {
            continue;
        };
        if !is_template(&content) {
            continue;
        }
        match analysis::analyse(&content) {
            Err(error) => {
                let spot = reader.within_text(text, &content, error.offset.unwrap_or(0));
                reader.error_at(&spot, error.message);
            }
            Ok(found) => {
                for (problem, offset) in &found.problems {
                    let spot = reader.within_text(text, &content, *offset);
                    reader.error_at(&spot, problem.clone());
                }
                for reference in &found.references {
                    let root = reference.root.as_str();
                    let of_a_task = matches!(
                        root,
                        "conn"
                            | "var"
                            | "map"
                            | "map_index"
                            | "task"
                            | "task_instance"
                            | "ti"
                            | "try_number"
                    );
                    if root == "event" || (ROOTS.contains(&root) && !of_a_task) {
                        continue;
                    }
                    let spot = reader.within_text(text, &content, reference.at.start);
                    let message = format!(
                        "`{root}` is undefined: a callback of a DAG sees the run, `params` and `event`"
                    );
                    reader.error_at(&spot, message);
                }
            }
        }
    }
}
