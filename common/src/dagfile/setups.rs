//! Setups and teardowns: who is one, and what may follow a setup. The rules are Airflow's.

use super::{
    draft::{Draft, Drafts, Name},
    reader::Reader,
    resolve::{Resolved, Target},
};
use serde_json::{Value, json};

const RULE_OF_TEARDOWNS: &str = "all_done_setup_success";

/// Before names are resolved: the setups that teardowns name become setups, and teardowns get their rule.
pub(super) fn mark(reader: &mut Reader<'_>, drafts: &mut Drafts) {
    let mut setups = Vec::new();
    for (i, draft) in drafts
        .tasks
        .iter()
        .enumerate()
        .filter(|(_, draft)| draft.is_teardown())
    {
        let named: Vec<usize> = draft
            .setups
            .iter()
            .filter_map(|name| setup_named(reader, drafts, draft, name))
            .collect();
        setups.push((i, named));
    }
    for (teardown, named) in setups {
        let ids: Vec<String> = named
            .iter()
            .map(|setup| drafts.tasks[*setup].id.clone())
            .collect();
        for setup in named {
            drafts.tasks[setup]
                .value
                .insert("setup".to_owned(), json!(true));
        }
        mark_teardown(reader, &mut drafts.tasks[teardown], &ids);
    }
}

fn setup_named(
    reader: &mut Reader<'_>,
    drafts: &Drafts,
    teardown: &Draft,
    name: &Name,
) -> Option<usize> {
    match drafts.lookup(&teardown.scope, &name.name)? {
        Target::Task(task) => Some(task),
        Target::Group(group) => {
            let message = format!(
                "{group:?} is a group; a teardown cleans up after tasks: name those that are its setups"
            );
            reader.error_at(&name.spot, message);
            None
        }
    }
}

fn mark_teardown(reader: &mut Reader<'_>, draft: &mut Draft, setups: &[String]) {
    let own_rule = draft.own.iter().any(|key| key == "trigger_rule");
    let rule = draft.value.get("trigger_rule").and_then(Value::as_str);
    if own_rule && rule != Some(RULE_OF_TEARDOWNS) {
        let message =
            format!("a teardown's trigger rule is {RULE_OF_TEARDOWNS}: leave `trigger_rule` out");
        reader.error_at(&draft.spot, message);
    }
    draft
        .value
        .insert("trigger_rule".to_owned(), json!(RULE_OF_TEARDOWNS));
    if let Some(Value::Object(teardown)) = draft.value.get_mut("teardown") {
        teardown.remove("setups");
        if !setups.is_empty() {
            teardown.insert("setups".to_owned(), json!(setups));
        }
    }
}

/// Once it is known who follows whom.
pub(super) fn check(reader: &mut Reader<'_>, drafts: &Drafts, resolved: &Resolved) {
    for (draft, upstream) in drafts.tasks.iter().zip(&resolved.upstream) {
        if draft.is_setup() && draft.is_teardown() {
            reader.error_at(&draft.spot, "a task is a setup or a teardown, not both");
        }
        if draft.is_teardown() && !upstream.iter().any(|up| drafts.tasks[*up].is_setup()) {
            reader.warn_at(
                &draft.spot,
                "the teardown has no setup: it runs once its upstreams have ended, however they did",
            );
        }
        let rule = draft.value.get("trigger_rule").and_then(Value::as_str);
        let rule = rule.filter(|rule| *rule != "all_success");
        let setup = upstream
            .iter()
            .map(|up| &drafts.tasks[*up])
            .find(|up| up.is_setup());
        if let (Some(rule), Some(setup), false) = (rule, setup, draft.is_teardown()) {
            let message = format!(
                "{:?} is a setup, and what follows it directly runs only if it succeeded: the trigger rule here has to be all_success, not {rule}",
                setup.id
            );
            reader.error_at(&draft.spot, message);
        }
    }
}
