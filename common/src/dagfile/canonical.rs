//! A specification written out again, in the file's grammar.

use crate::asset::AssetCondition;
use crate::spec::{DagSpec, DataPhase, Schedule, TaskKind, TaskSpec};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Keys of a `data` task that only its plan carries.
const OF_THE_PLAN: [&str; 6] = [
    "depends_on",
    "trigger_rule",
    "depends_on_past",
    "wait_for_downstream",
    "doc_md",
    "inlets",
];

/// Keys of a `data` task that only its commit carries: what it updates, and what is told of its end.
pub(super) const OF_THE_COMMIT: [&str; 4] = ["outlets", "on_success", "on_skipped", "deadlines"];

/// The specification in the grammar of the file, every default written out: `parse_json` of it gives the same
/// specification again.
pub fn to_json(spec: &DagSpec) -> Value {
    let mut dag = object(spec);
    dag.insert("schedule".to_owned(), schedule(&spec.schedule));
    let mut tasks = Map::new();
    let mut groups: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for task in &spec.tasks {
        let mut value = object(task);
        value.remove("task_id");
        match (&task.kind, task.task_id.rsplit_once('.')) {
            (TaskKind::Data(data), Some((id, _))) => match data.phase {
                // The three phases are one task of the file: what the parts have, and some of the plan's keys.
                DataPhase::Plan => {
                    let mut whole = phase(spec, id, "part")
                        .map(object)
                        .unwrap_or_else(|| value.clone());
                    whole.remove("task_id");
                    whole.remove("expand");
                    for key in OF_THE_PLAN {
                        whole.remove(key);
                        if let Some(of_plan) = value.remove(key) {
                            whole.insert(key.to_owned(), of_plan);
                        }
                    }
                    let commit = phase(spec, id, "commit").map(object).unwrap_or_default();
                    for key in OF_THE_COMMIT {
                        if let Some(of_commit) = commit.get(key) {
                            whole.insert(key.to_owned(), of_commit.clone());
                        }
                    }
                    if let Some(Value::Object(data)) = whole.get_mut("data") {
                        data.remove("phase");
                    }
                    tasks.insert(id.to_owned(), Value::Object(whole));
                }
                DataPhase::Part | DataPhase::Commit => {}
            },
            _ => {
                let group = value.remove("mapped_group");
                let member = group.as_ref().and_then(Value::as_str).and_then(|group| {
                    let name = task.task_id.strip_prefix(group)?.strip_prefix('.')?;
                    Some((group, name))
                });
                match member {
                    // Mapped groups stand as what they are: their members are mapped together.
                    Some((group, name)) => {
                        let members: &mut Map<String, Value> =
                            groups.entry(group.to_owned()).or_default();
                        members.insert(name.to_owned(), Value::Object(value));
                    }
                    None => drop(tasks.insert(task.task_id.clone(), Value::Object(value))),
                }
            }
        }
    }
    dag.remove("mapped_groups");
    for (id, members) in groups {
        let mut group = spec.mapped_groups.get(&id).map(object).unwrap_or_default();
        group.insert("tasks".to_owned(), Value::Object(members));
        tasks.insert(id, json!({ "group": group }));
    }
    dag.insert("tasks".to_owned(), Value::Object(tasks));
    Value::Object(dag)
}

/// SHA-256 of the specification, in hex. Comments, layout, the order of keys and tasks and written-out defaults make no
/// difference: the same hash is the same specification.
pub fn spec_hash(spec: &DagSpec) -> String {
    let mut canonical = serde_json::to_value(spec).unwrap_or_default();
    canonical.sort_all_objects();
    hex::encode(Sha256::digest(canonical.to_string().as_bytes()))
}

fn object(value: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        // The specification's types are mappings with string keys: nothing else can come.
        _ => Map::new(),
    }
}

fn schedule(schedule: &Schedule) -> Value {
    match schedule {
        Schedule::Manual => Value::Null,
        Schedule::Cron(expression) => json!(expression),
        Schedule::Every(span) => json!(format!("every {span}")),
        Schedule::Once => json!("@once"),
        Schedule::Continuous => json!("@continuous"),
        Schedule::Crons(expressions) => json!(expressions),
        Schedule::Assets(assets) => {
            let mut written = condition(&assets.when);
            if !assets.cron.is_empty() {
                written["cron"] = json!(assets.cron);
            }
            written
        }
    }
}

fn condition(condition: &AssetCondition) -> Value {
    let list = |parts: &[AssetCondition]| parts.iter().map(self::condition).collect::<Vec<_>>();
    match condition {
        AssetCondition::Asset(name) => json!(name),
        AssetCondition::Any(parts) => json!({ "any": list(parts) }),
        AssetCondition::All(parts) => json!({ "all": list(parts) }),
    }
}

fn phase<'s>(spec: &'s DagSpec, id: &str, name: &str) -> Option<&'s TaskSpec> {
    let is = |task: &&TaskSpec| {
        task.task_id
            .strip_prefix(id)
            .and_then(|rest| rest.strip_prefix('.'))
            == Some(name)
    };
    spec.tasks.iter().find(is)
}
