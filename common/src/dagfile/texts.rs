//! Checks what templates refer to, and writes full task ids where a pull names a task as its group does.

use super::{
    diagnostic::{Diagnostic, Spot},
    draft::{Drafts, MapVariables},
    reader::{Reader, Role, Text},
    resolve::{Resolved, Target},
};
use crate::template::{
    TemplateError,
    analysis::{self, Analysis, Reference},
    env::{FIELDS, ROOTS},
    is_template,
};
use serde_json::{Map, Value};

/// What the templates of one task can see.
struct Scope<'a> {
    params: &'a Map<String, Value>,
    map: MapVariables,
    /// Id of the group from which tasks are named; empty at the top.
    names: String,
    /// The tasks that the templates are rendered for.
    pullers: Vec<usize>,
}

pub(super) fn check(
    reader: &mut Reader<'_>,
    drafts: &mut Drafts,
    resolved: &Resolved,
    params: &Map<String, Value>,
) {
    for task in 0..drafts.tasks.len() {
        let texts = std::mem::take(&mut drafts.tasks[task].texts);
        let scope = Scope {
            params,
            map: drafts.map_variables(&drafts.tasks[task]),
            names: drafts.tasks[task].scope.clone(),
            pullers: vec![task],
        };
        for text in &texts {
            let value = &drafts.tasks[task].value;
            if let Some(written) = check_text(reader, (drafts, resolved), text, value, &scope)
                && let Some(place) = find_mut(&mut drafts.tasks[task].value, &text.pointer)
            {
                *place = Value::String(written);
            }
        }
    }
    let groups: Vec<String> = drafts.groups.keys().cloned().collect();
    for id in groups {
        let Some(group) = drafts.groups.get_mut(&id) else {
            continue;
        };
        let (texts, names) = (std::mem::take(&mut group.texts), group.scope.clone());
        let mut mapping = group.mapping.clone();
        let is_member = |task: &usize| drafts.tasks[*task].mapped_group.as_ref() == Some(&id);
        let scope = Scope {
            params,
            map: MapVariables::NotMapped,
            names,
            pullers: (0..drafts.tasks.len()).filter(is_member).collect(),
        };
        for text in &texts {
            if let Some(written) = check_text(reader, (drafts, resolved), text, &mapping, &scope)
                && let Some(place) = find_mut(&mut mapping, &text.pointer)
            {
                *place = Value::String(written);
            }
        }
        if let Some(group) = drafts.groups.get_mut(&id) {
            group.mapping = mapping;
        }
    }
}

/// Checks one template; gives it with full task ids, if that makes a difference.
fn check_text(
    reader: &mut Reader<'_>,
    known: (&Drafts, &Resolved),
    text: &Text,
    value: &Map<String, Value>,
    scope: &Scope<'_>,
) -> Option<String> {
    let content = find(value, &text.pointer)?;
    if !matches!(text.role, Role::Expression(_)) && !is_template(content) {
        return None;
    }
    let analysis = analyse(reader, text, content)?;
    for (problem, offset) in &analysis.problems {
        let spot = reader.within_text(text, content, *offset);
        reader.error_at(&spot, problem.clone());
    }
    for reference in &analysis.references {
        check_reference(reader, text, content, reference, scope);
    }
    let written = check_pulls(reader, known, text, content, &analysis, scope);
    (written != content).then_some(written)
}

pub(super) fn find<'v>(value: &'v Map<String, Value>, pointer: &[String]) -> Option<&'v str> {
    let (first, rest) = pointer.split_first()?;
    let step = |value: &'v Value, part: &String| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    };
    rest.iter().try_fold(value.get(first)?, step)?.as_str()
}

pub(super) fn find_mut<'v>(
    value: &'v mut Map<String, Value>,
    pointer: &[String],
) -> Option<&'v mut Value> {
    let (first, rest) = pointer.split_first()?;
    rest.iter()
        .try_fold(value.get_mut(first)?, |value, part| match value {
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
            other => other.get_mut(part),
        })
}

fn analyse(reader: &mut Reader<'_>, text: &Text, content: &str) -> Option<Analysis> {
    let result = match text.role {
        Role::Expression(names) => {
            if let Some((_, inner)) = analysis::only_expression(content) {
                let message = format!(
                    "this is an expression already: write {} without the braces",
                    inner.trim()
                );
                reader.error_at(&text.spot, message);
                return None;
            }
            analysis::analyse_expression(content, names)
        }
        Role::Template | Role::Expand => analysis::analyse(content),
    };
    if text.role == Role::Expand && result.is_ok() && analysis::only_expression(content).is_none() {
        let message =
            "a template that gives a list has to be exactly one `{{ … }}`, with nothing around it";
        reader.error_at(&text.spot, message);
    }
    match result {
        Ok(analysis) => Some(analysis),
        Err(TemplateError {
            message,
            line,
            offset,
        }) => {
            let start_of_line = |line: usize| {
                content
                    .split_inclusive('\n')
                    .take(line - 1)
                    .map(str::len)
                    .sum()
            };
            let offset = offset.or_else(|| line.filter(|line| *line > 0).map(start_of_line));
            let spot = reader.within_text(text, content, offset.unwrap_or(0));
            reader.error_at(&spot, message);
            None
        }
    }
}

fn check_reference(
    reader: &mut Reader<'_>,
    text: &Text,
    content: &str,
    reference: &Reference,
    scope: &Scope<'_>,
) {
    let root = reference.root.as_str();
    let mut undefined = |name: String,
                         written: &str,
                         candidates: &mut dyn Iterator<Item = &str>,
                         hint: Option<String>| {
        let spot: Spot = reader.within_text(text, content, reference.at.start);
        let diagnostic: &mut Diagnostic = reader.error_at(&spot, format!("`{name}` is undefined"));
        *diagnostic = diagnostic.clone().suggest(written, candidates);
        diagnostic.expected = hint;
    };
    let first = reference.fields.first().map(String::as_str);
    // Methods of mappings: `params.get('x')`.
    let is_method = reference.called && reference.fields.len() == 1;
    let in_callback = text.pointer.iter().any(|key| is_callback(key));
    if in_callback && root == "event" {
        return;
    }
    if in_callback && matches!(root, "var" | "conn") {
        let hint = "a scheduler renders callbacks, and it puts no secrets into them: name a `connection`, which gives host and credentials.".to_owned();
        return undefined(root.to_owned(), "", &mut std::iter::empty(), Some(hint));
    }
    if !ROOTS.contains(&root) {
        let names = ROOTS.iter().copied().chain(match text.role {
            Role::Expression(names) => names.iter().copied(),
            _ => [].iter().copied(),
        });
        let hint = scope
            .params
            .contains_key(root)
            .then(|| format!("it is a parameter: write `params.{root}`."));
        return undefined(root.to_owned(), root, &mut names.into_iter(), hint);
    }
    let in_queue = text.pointer.first().is_some_and(|key| key == "queue");
    if in_queue && !matches!(root, "params" | "map") {
        let hint = "a queue's template sees `params` and `map` only.".to_owned();
        return undefined(root.to_owned(), "", &mut std::iter::empty(), Some(hint));
    }
    if is_of_making(text) && matches!(root, "var" | "conn" | "try_number") {
        let hint = "it is rendered when the instance is made: the run, `params`, `map` and `map_index` are known.";
        return undefined(
            root.to_owned(),
            "",
            &mut std::iter::empty(),
            Some(hint.to_owned()),
        );
    }
    // What the scheduler renders sees no secrets: only workers may open them.
    let by_scheduler = match text.pointer.first().map(String::as_str) {
        Some("branch" | "short_circuit" | "trigger_dag" | "approval") => true,
        Some("sensor") => text
            .pointer
            .get(1)
            .is_some_and(|key| key == "time" || key == "asset"),
        _ => false,
    };
    if by_scheduler && matches!(root, "var" | "conn") {
        let hint = "a scheduler decides this, and it knows no variables or connections: let an upstream return the value, or use a parameter.".to_owned();
        return undefined(root.to_owned(), "", &mut std::iter::empty(), Some(hint));
    }
    match root {
        "params" => {
            if let Some(name) = first.filter(|name| !is_method && !scope.params.contains_key(*name))
            {
                let hint = format!(
                    "declare it under `params` of the DAG, {}.",
                    known(scope.params.keys().map(String::as_str))
                );
                undefined(
                    format!("params.{name}"),
                    name,
                    &mut scope.params.keys().map(String::as_str),
                    Some(hint),
                );
            }
        }
        "map" => {
            match (&scope.map, first) {
                _ if text.role == Role::Expand => {
                    let hint = "the lists are needed to make the map variables.".to_owned();
                    undefined("map".to_owned(), "", &mut std::iter::empty(), Some(hint));
                }
                (MapVariables::NotMapped, _) => {
                    let hint = "only tasks with `expand`, `expand_zip` or `expand_kwargs` have map variables.".to_owned();
                    undefined("map".to_owned(), "", &mut std::iter::empty(), Some(hint));
                }
                (MapVariables::Known(names), Some(name)) if !is_method && !names.contains(name) => {
                    let hint = format!(
                        "the map variables are those that the task is mapped over, {}.",
                        known(names.iter().map(String::as_str))
                    );
                    undefined(
                        format!("map.{name}"),
                        name,
                        &mut names.iter().map(String::as_str),
                        Some(hint),
                    );
                }
                _ => {}
            }
        }
        _ => {
            let fields = FIELDS
                .iter()
                .find(|(object, _)| *object == root)
                .map(|(_, fields)| *fields);
            if let (Some(fields), Some(name)) = (fields, first)
                && !fields.contains(&name)
            {
                let hint = format!("`{root}` has: {}.", fields.join(", "));
                undefined(
                    format!("{root}.{name}"),
                    name,
                    &mut fields.iter().copied(),
                    Some(hint),
                );
            }
        }
    }
}

/// Whether a scheduler renders the text when it makes the instance: its name, and the key of a limit that it shares.
fn is_of_making(text: &Text) -> bool {
    let key = text.pointer.first().map(String::as_str);
    matches!(key, Some("map_index_template" | "concurrency"))
}

fn is_callback(key: &str) -> bool {
    key == "deadlines" || key == "on_waiting" || super::callbacks::EVENTS.contains(&key)
}

fn known<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "which has none".to_owned()
    } else {
        format!("which has: {}", names.join(", "))
    }
}

/// Checks the pulls by constant names; gives the text with full task ids.
fn check_pulls(
    reader: &mut Reader<'_>,
    (drafts, resolved): (&Drafts, &Resolved),
    text: &Text,
    content: &str,
    analysis: &Analysis,
    scope: &Scope<'_>,
) -> String {
    let mut edits = Vec::new();
    let of_making = is_of_making(text);
    let in_callback = text.pointer.iter().any(|key| is_callback(key));
    for pull in &analysis.pulls {
        let spot = reader.within_text(text, content, pull.at.start);
        if in_callback {
            let message =
                "ti.xcom_pull: callbacks see no values of tasks, but `event`, the run and `params`";
            reader.error_at(&spot, message);
            continue;
        }
        if of_making {
            let message = "ti.xcom_pull: this is rendered when the instance is made, without values of other tasks: pull in the list, and use `map`";
            reader.error_at(&spot, message);
            continue;
        }
        match drafts.lookup(&scope.names, &pull.task_id) {
            None => {
                let diagnostic = reader.error_at(
                    &spot,
                    format!("ti.xcom_pull: there is no task {:?}", pull.task_id),
                );
                let mut candidates: Vec<&str> = drafts.names(&scope.names).collect();
                candidates.sort_unstable();
                *diagnostic = diagnostic.clone().suggest(&pull.task_id, candidates);
            }
            Some(Target::Group(group)) => {
                reader.error_at(
                    &spot,
                    format!("ti.xcom_pull: {group:?} is a group; pull from one of its tasks"),
                );
            }
            Some(Target::Task(task)) => {
                let waits = |puller: &usize| {
                    !pull_is_written_by(drafts, *puller) || is_upstream(resolved, *puller, task)
                };
                if scope.pullers.contains(&task) {
                    reader.error_at(
                        &spot,
                        "ti.xcom_pull: a task has no value of its own before it ran",
                    );
                } else if !scope.pullers.iter().all(waits) {
                    let message = format!(
                        "ti.xcom_pull: {:?} is not upstream of this task, so its value may not be there yet: add it to depends_on",
                        pull.task_id
                    );
                    reader.warn_at(&spot, message);
                }
                let id = &drafts.tasks[task].id;
                if *id != pull.task_id {
                    edits.push((pull.at.clone(), id.clone()));
                }
            }
        }
    }
    edits.sort_by_key(|(at, _)| std::cmp::Reverse(at.start));
    let mut written = content.to_owned();
    for (at, id) in edits {
        if written.is_char_boundary(at.start) && written.is_char_boundary(at.end) {
            written.replace_range(at, &format!("'{id}'"));
        }
    }
    written
}

/// The later phases of a `data` task see the same texts as its plan, whose upstreams are what the author wrote.
fn pull_is_written_by(drafts: &Drafts, task: usize) -> bool {
    let phase = drafts.tasks[task]
        .value
        .get("data")
        .and_then(|data| data.get("phase"))
        .and_then(Value::as_str);
    phase.is_none_or(|phase| phase == "plan")
}

pub(super) fn is_upstream(resolved: &Resolved, task: usize, wanted: usize) -> bool {
    let mut seen = vec![false; resolved.upstream.len()];
    let mut stack = vec![task];
    while let Some(at) = stack.pop() {
        if resolved.upstream[at].contains(&wanted) {
            return true;
        }
        for up in &resolved.upstream[at] {
            if !std::mem::replace(&mut seen[*up], true) {
                stack.push(*up);
            }
        }
    }
    false
}
