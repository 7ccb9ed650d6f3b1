//! Checks of branches, short circuits and `latest_only`.

use super::{
    draft::{Draft, Drafts},
    reader::Reader,
    resolve::Resolved,
};
use crate::template::is_template;
use serde_json::Value;

pub(super) fn check(reader: &mut Reader<'_>, drafts: &Drafts, resolved: &Resolved) {
    for (i, draft) in drafts
        .tasks
        .iter()
        .enumerate()
        .filter(|(_, draft)| draft.is_decider())
    {
        if draft.is_mapped() {
            let message = "a task that decides what follows cannot be mapped: all its instances would decide about the same tasks";
            reader.error_at(&draft.spot, message);
        }
        let followers = drafts.tasks.iter().zip(&resolved.upstream);
        let followers = followers.filter(|(_, upstream)| upstream.contains(&i));
        let followers: Vec<&str> = followers.map(|(task, _)| task.id.as_str()).collect();
        if followers.is_empty() {
            reader.warn_at(&draft.spot, "no task depends on it, so it decides nothing");
        }
        check_choice(reader, draft, &followers);
    }
}

/// A choice that is no template is known already.
fn check_choice(reader: &mut Reader<'_>, draft: &Draft, followers: &[&str]) {
    let choose = draft
        .value
        .get("branch")
        .and_then(|branch| branch.get("choose"));
    let Some(choice) = choose
        .and_then(Value::as_str)
        .filter(|text| !is_template(text))
    else {
        return;
    };
    let choice = choice.trim();
    if choice.is_empty() || follows(&draft.scope, choice, followers) {
        return;
    }
    let message = format!("branch.choose: {choice:?} does not depend on this task");
    let diagnostic = reader.error_at(&draft.spot, message);
    *diagnostic = diagnostic
        .clone()
        .suggest(choice, followers.iter().copied());
    diagnostic.expected = Some(match followers {
        [] => "let the tasks to choose among depend on it.".to_owned(),
        followers => format!("it can choose among: {}.", followers.join(", ")),
    });
}

/// Whether a name stands for a task, or for a group's, that follows: as it is, or as it is called from a scope or one around it.
fn follows(scope: &str, name: &str, followers: &[&str]) -> bool {
    let is = |full: &str| {
        followers.iter().any(|id| {
            let rest = id.strip_prefix(full);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let mut scope = scope;
    while !scope.is_empty() {
        if is(&format!("{scope}.{name}")) {
            return true;
        }
        scope = scope.rsplit_once('.').map_or("", |(outer, _)| outer);
    }
    is(name)
}
