//! Tasks on their way from the file to the specification: groups are flattened, `data` tasks are three, defaults are
//! merged; names are not resolved yet.

use super::{
    canonical::OF_THE_COMMIT,
    diagnostic::Spot,
    grammar::{GROUP, GROUP_MAPPING, TASK, Ty},
    node::{Entry, Node, Tree},
    reader::{DEFAULT, Reader, Text},
};
use crate::{ids::valid_name, spec::DataPhase};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Tasks that a DAG may have, the phases of `data` tasks counted.
pub(super) const MAX_TASKS: usize = 10_000;

/// The keys that make a task a mapped one; at most one of them is there.
pub(super) const MAPPING_KEYS: [&str; 3] = ["expand", "expand_zip", "expand_kwargs"];

/// What is known about a task's map variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MapVariables {
    NotMapped,
    Known(BTreeSet<String>),
    /// They come with a list that is made when the DAG runs.
    Any,
}

/// One task.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) id: String,
    /// Where its key stands.
    pub(super) spot: Spot,
    /// Id of the group that it is in; empty at the top.
    pub(super) scope: String,
    /// Its keys, by the grammar, defaults included; without `depends_on`.
    pub(super) value: Map<String, Value>,
    /// Keys that it gives itself.
    pub(super) own: Vec<String>,
    pub(super) depends_on: Vec<Name>,
    /// Of a teardown: the setups that it names.
    pub(super) setups: Vec<Name>,
    /// Id of the mapped group that it is in.
    pub(super) mapped_group: Option<String>,
    pub(super) texts: Vec<Text>,
}

/// A name as the file writes it.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) spot: Spot,
}

#[derive(Debug)]
pub(super) struct Group {
    /// Where its key stands.
    pub(super) spot: Spot,
    pub(super) scope: String,
    /// What it is mapped over, as the grammar has it: empty, or one of [`MAPPING_KEYS`].
    pub(super) mapping: Map<String, Value>,
    pub(super) texts: Vec<Text>,
    pub(super) depends_on: Vec<Name>,
}

#[derive(Debug, Default)]
pub(super) struct Drafts {
    pub(super) tasks: Vec<Draft>,
    /// Task id to position in `tasks`.
    pub(super) ids: HashMap<String, usize>,
    pub(super) groups: BTreeMap<String, Group>,
    /// Id of a `data` task to the position of its commit.
    pub(super) data: HashMap<String, usize>,
    too_many: bool,
}

/// Values for keys that a task does not give itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    values: Map<String, Value>,
    texts: Vec<Text>,
}

impl Defaults {
    /// Reads `default_args`; what they do not give comes from `outer`.
    pub(super) fn read(reader: &mut Reader<'_>, node: Option<&Node>, outer: &Self) -> Self {
        let mut defaults = Self::default();
        let Some(entries) = node.and_then(|node| reader.entries(node, &Ty::DefaultArgs.expected()))
        else {
            return outer.clone();
        };
        for entry in entries {
            let Some(key) = TASK.key(&entry.key).filter(|key| key.built) else {
                reader.within(&entry.key, |reader| reader.known(entry, &TASK, DEFAULT));
                continue;
            };
            if !key.inherited {
                let message = format!("`{}` cannot have a default: give it to each task", key.name);
                reader.error_within(&entry.key, entry.at, message);
            } else if let Some(value) = reader.task_key(entry) {
                defaults.values.insert(entry.key.clone(), value);
            }
        }
        defaults.texts = std::mem::take(&mut reader.templates);
        let inner = std::mem::take(&mut defaults.values);
        defaults.texts.extend(outer.texts.clone());
        defaults.values = outer.values.clone();
        for (key, value) in inner {
            match (defaults.values.get_mut(&key), value) {
                (Some(Value::Object(env)), Value::Object(own)) if key == "env" => env.extend(own),
                (_, value) => drop(defaults.values.insert(key, value)),
            }
        }
        defaults
    }

    fn fill(&self, draft: &mut Draft, kind: &str) {
        let mut texts = |path: &[&str]| {
            let of_key = |text: &&Text| {
                text.pointer
                    .iter()
                    .map(String::as_str)
                    .eq(path.iter().copied())
            };
            draft.texts.extend(self.texts.iter().find(of_key).cloned());
        };
        for (key, value) in &self.values {
            match (key.as_str(), value) {
                ("env", Value::Object(defaults)) => {
                    if kind != "shell" {
                        continue;
                    }
                    let env = draft.value.entry("env").or_insert_with(|| json!({}));
                    for (name, value) in defaults {
                        if let Some(env) = env.as_object_mut().filter(|env| !env.contains_key(name))
                        {
                            env.insert(name.clone(), value.clone());
                            texts(&["env", name]);
                        }
                    }
                }
                _ if draft.value.contains_key(key) => {}
                _ => {
                    draft.value.insert(key.clone(), value.clone());
                    texts(&[key]);
                }
            }
        }
    }
}

impl Reader<'_> {
    /// The value of one of a task's keys; its templates stay in [`Reader::templates`].
    pub(super) fn task_key(&mut self, entry: &Entry) -> Option<Value> {
        let one = Node {
            at: entry.at,
            tree: Tree::Map(std::sync::Arc::new(vec![entry.clone()])),
        };
        self.fragment(&one, &TASK)?.remove(&entry.key)
    }

    /// The tasks of a mapping, in a group (`scope`) or at the top.
    pub(super) fn tasks(
        &mut self,
        node: &Node,
        scope: &str,
        defaults: &Defaults,
        drafts: &mut Drafts,
    ) {
        let Some(entries) = self.entries(node, &Ty::Tasks.expected()) else {
            return;
        };
        if entries.is_empty() {
            self.error(node.at, "there has to be at least one task");
        }
        for entry in entries {
            self.within(&entry.key, |reader| {
                reader.task(entry, scope, defaults, drafts)
            });
        }
    }

    fn task(&mut self, entry: &Entry, scope: &str, defaults: &Defaults, drafts: &mut Drafts) {
        if drafts.too_many {
            return;
        }
        if drafts.tasks.len() >= MAX_TASKS {
            drafts.too_many = true;
            self.error(
                entry.at,
                format!("a DAG has at most {MAX_TASKS} tasks (a `data` task counts three)"),
            );
            return;
        }
        let id = if scope.is_empty() {
            entry.key.clone()
        } else {
            format!("{scope}.{}", entry.key)
        };
        if !valid_name(&id) {
            self.bad_name(
                &Node {
                    at: entry.at,
                    ..entry.value.clone()
                },
                &id,
            );
        }
        let Some(keys) = self.entries(&entry.value, "a task (a mapping)") else {
            // Others may depend on it; that is no further problem.
            drafts.add(self, Draft::new(id, scope, self.spot(entry.at)));
            return;
        };
        let kinds: Vec<&Entry> = keys
            .iter()
            .filter(|key| TASK.key(&key.key).is_some_and(|key| key.kind))
            .collect();
        if kinds.len() > 1 {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.key.as_str()).collect();
            self.error(
                entry.at,
                format!(
                    "a task does one thing, this one {}: {}",
                    kinds.len(),
                    names.join(", ")
                ),
            );
        }
        if kinds.is_empty() {
            let names = TASK
                .keys
                .iter()
                .filter(|key| key.kind && key.built)
                .map(|key| key.name);
            let names: Vec<&str> = names.collect();
            self.error(entry.at, "the task does not say what it does")
                .expected = Some(format!("give it one of: {}.", names.join(", ")));
        }
        let kind = kinds.first().map_or("", |kind| kind.key.as_str());
        match kind {
            "group" => return self.group(entry, keys, &id, scope, defaults, drafts),
            "sub_dag" => return self.sub_dag(entry, keys, &id, scope, drafts),
            _ => {}
        }
        let mut draft = Draft::new(id, scope, self.spot(entry.at));
        draft.value = self.fragment(&entry.value, &TASK).unwrap_or_default();
        draft.texts = std::mem::take(&mut self.templates);
        draft.own = keys.iter().map(|key| key.key.clone()).collect();
        draft.depends_on = self.names(keys);
        draft.setups = self.setup_names(keys);
        draft.value.remove("depends_on");
        if let Some(teardown @ Value::Null) = draft.value.get_mut("teardown") {
            *teardown = json!({});
        }
        if let Some(Value::Null) = draft.value.get(kind) {
            draft.value.insert(kind.to_owned(), json!({}));
        }
        defaults.fill(&mut draft, kind);
        draft.mapped_group = drafts.mapped_group(scope).map(str::to_owned);
        self.check_member(&draft, kind);
        match kind {
            "data" => self.data_task(draft, drafts),
            _ => drafts.add(self, draft),
        }
    }

    /// What a task depends on, each name with its place.
    pub(super) fn names(&mut self, keys: &[Entry]) -> Vec<Name> {
        match keys.iter().find(|key| key.key == "depends_on") {
            Some(entry) => self.names_in(entry),
            None => Vec::new(),
        }
    }

    /// The setups that a teardown names.
    fn setup_names(&mut self, keys: &[Entry]) -> Vec<Name> {
        let Some(entry) = keys.iter().find(|key| key.key == "teardown") else {
            return Vec::new();
        };
        match &entry.value.tree {
            Tree::Map(entries) => match entries.iter().find(|key| key.key == "setups") {
                Some(setups) => self.within("teardown", |reader| reader.names_in(setups)),
                None => Vec::new(),
            },
            _ => self.names_in(entry),
        }
    }

    fn names_in(&mut self, entry: &Entry) -> Vec<Name> {
        let one = |node: &Node, spot: Spot| match &node.tree {
            Tree::Scalar(scalar) if !scalar.value.is_null() => Some(Name {
                name: scalar.text.clone(),
                spot,
            }),
            _ => None,
        };
        self.within(&entry.key, |reader| match &entry.value.tree {
            Tree::Seq(items) => {
                let name = |(i, item): (usize, &Node)| {
                    one(
                        item,
                        reader.within(&i.to_string(), |reader| reader.spot(item.at)),
                    )
                };
                items.iter().enumerate().filter_map(name).collect()
            }
            _ => one(&entry.value, reader.spot(entry.value.at))
                .into_iter()
                .collect(),
        })
    }

    fn group(
        &mut self,
        entry: &Entry,
        keys: &[Entry],
        id: &str,
        scope: &str,
        defaults: &Defaults,
        drafts: &mut Drafts,
    ) {
        self.group_keys(keys, "group");
        if drafts.ids.contains_key(id) || drafts.groups.contains_key(id) {
            self.error(
                entry.at,
                format!("there are two tasks or groups of the id {id:?}"),
            );
        }
        let depends_on = self.names(keys);
        let (mapping, texts) = self.group_mapping(keys);
        let spot = self.spot(entry.at);
        if let Some(outer) = drafts.mapped_group(scope).filter(|_| !mapping.is_empty()) {
            let message = nested(&format!("the group {id:?}"), outer);
            self.error_at(&spot, message);
        }
        drafts.groups.insert(
            id.to_owned(),
            Group {
                spot,
                scope: scope.to_owned(),
                mapping,
                texts,
                depends_on,
            },
        );
        let Some(body) = keys.iter().find(|key| key.key == "group") else {
            return;
        };
        self.within("group", |reader| {
            let Some(entries) = reader.entries(&body.value, "a group: a mapping with `tasks`")
            else {
                return;
            };
            for entry in entries {
                reader.within(&entry.key, |reader| reader.known(entry, &GROUP, "key"));
            }
            let find = |name: &str| {
                entries
                    .iter()
                    .find(|entry| entry.key == name)
                    .map(|entry| &entry.value)
            };
            let inner = reader.within("default_args", |reader| {
                Defaults::read(reader, find("default_args"), defaults)
            });
            match find("tasks") {
                Some(tasks) => {
                    reader.within("tasks", |reader| reader.tasks(tasks, id, &inner, drafts))
                }
                None => {
                    reader.error(body.at, "a group needs the key `tasks`");
                }
            }
        });
    }

    /// Checks the keys beside `group` or the like.
    pub(super) fn group_keys(&mut self, keys: &[Entry], kind: &str) {
        for key in keys {
            match key.key.as_str() {
                "doc_md" => {}
                name if name == kind => {}
                "depends_on" => drop(self.task_key(key)),
                name if MAPPING_KEYS.contains(&name) => {
                    let tasks = match kind {
                        "sub_dag" => "{part: {sub_dag: …}}",
                        _ => "…",
                    };
                    let message = format!(
                        "`{name}` stands in a group, beside its tasks: group: {{{name}: …, tasks: {tasks}}}"
                    );
                    self.error_within(name, key.at, message);
                }
                "trigger_rule" => {
                    let message = "`trigger_rule` on a group is not built yet";
                    self.error_within("trigger_rule", key.at, message);
                }
                name => {
                    let known = self.within(name, |reader| reader.known(key, &TASK, "key"));
                    if known && !TASK.key(name).is_some_and(|key| key.kind) {
                        let message = format!(
                            "`{name}` has no meaning on a group: put it into the group's `default_args`"
                        );
                        self.error_within(name, key.at, message);
                    }
                }
            }
        }
    }

    /// What a group is mapped over, with the templates in it.
    fn group_mapping(&mut self, keys: &[Entry]) -> (Map<String, Value>, Vec<Text>) {
        let body = keys.iter().find(|key| key.key == "group");
        let Some(Tree::Map(entries)) = body.map(|body| &body.value.tree) else {
            return (Map::new(), Vec::new());
        };
        let entries: Vec<Entry> = entries
            .iter()
            .filter(|entry| MAPPING_KEYS.contains(&entry.key.as_str()))
            .cloned()
            .collect();
        let node = Node {
            at: entries.first().and_then(|entry| entry.at),
            tree: Tree::Map(std::sync::Arc::new(entries)),
        };
        let mapping = self.within("group", |reader| reader.fragment(&node, &GROUP_MAPPING));
        let texts = std::mem::take(&mut self.templates);
        (mapping.unwrap_or_default(), texts)
    }

    /// What a member of a mapped group cannot be.
    fn check_member(&mut self, draft: &Draft, kind: &str) {
        let Some(group) = draft.mapped_group.as_deref() else {
            return;
        };
        if draft.is_mapped() {
            self.error_at(&draft.spot, nested("the task", group));
        }
        let what = match kind {
            "data" => "a data task",
            "branch" | "short_circuit" | "latest_only" => "a task that decides what follows",
            _ => return,
        };
        let message = format!("{what} in a mapped group ({group:?}) is not built yet");
        self.error_at(&draft.spot, message);
    }

    /// `ID.plan` finds the partitions, `ID.part` is mapped over them, `ID.commit` puts their results together. A failed
    /// part fails the commit by the default rule.
    fn data_task(&mut self, draft: Draft, drafts: &mut Drafts) {
        for key in MAPPING_KEYS
            .into_iter()
            .chain(["map_index_template", "setup", "teardown"])
        {
            if draft.own.iter().any(|own| own == key) {
                let message = format!("`{key}` on a data task is not built yet");
                self.error_at(&draft.spot, message);
            }
        }
        self.check_data(&draft);
        let id = draft.id.clone();
        let phase = |phase: DataPhase, name: &str, depends_on: Vec<Name>| {
            let mut value = draft.value.clone();
            for key in MAPPING_KEYS {
                value.remove(key);
            }
            if let Some(Value::Object(data)) = value.get_mut("data") {
                data.insert("phase".to_owned(), json!(phase));
            }
            if phase != DataPhase::Plan {
                for key in [
                    "trigger_rule",
                    "depends_on_past",
                    "wait_for_downstream",
                    "doc_md",
                    "inlets",
                ] {
                    value.remove(key);
                }
            }
            if phase != DataPhase::Commit {
                for key in OF_THE_COMMIT {
                    value.remove(key);
                }
            }
            if phase == DataPhase::Part {
                let partitions = format!("{{{{ ti.xcom_pull('{id}.plan').partitions }}}}");
                value.insert("expand".to_owned(), json!({ "partition": partitions }));
            }
            Draft {
                id: format!("{id}.{name}"),
                spot: draft.spot.clone(),
                scope: draft.scope.clone(),
                value,
                own: draft.own.clone(),
                depends_on,
                setups: Vec::new(),
                mapped_group: None,
                texts: draft.texts.clone(),
            }
        };
        // Full ids, from the top: a group may hold a task of the same name.
        let after = |name: &str| {
            vec![Name {
                name: format!("{id}.{name}"),
                spot: draft.spot.clone(),
            }]
        };
        let phases = [
            phase(DataPhase::Plan, "plan", draft.depends_on.clone()),
            phase(DataPhase::Part, "part", after("plan")),
            phase(DataPhase::Commit, "commit", after("part")),
        ];
        if drafts.ids.contains_key(&id) || drafts.groups.contains_key(&id) {
            self.error_at(
                &draft.spot,
                format!("there are two tasks or groups of the id {id:?}"),
            );
        }
        for phase in phases {
            drafts.add(self, phase);
        }
        drafts.data.insert(id, drafts.tasks.len() - 1);
    }

    fn check_data(&mut self, draft: &Draft) {
        let Some(data) = draft.value.get("data") else {
            return;
        };
        let Some(sources) = data.get("sources").and_then(Value::as_object) else {
            return;
        };
        if sources.is_empty() {
            self.error_at(&draft.spot, "a data task needs at least one source");
        }
        for name in sources.keys() {
            if !super::reader::is_identifier(name) || name == "parts" {
                let message = format!(
                    "{name:?} cannot be a source's name: it is a table's name in SQL (letters, digits, `_`; `parts` is taken)"
                );
                self.error_at(&draft.spot, message);
            }
        }
        let broadcast = |source: &Value| source.get("broadcast") == Some(&Value::Bool(true));
        if !sources.is_empty() && sources.values().all(broadcast) {
            self.error_at(
                &draft.spot,
                "every source is `broadcast`: none is left to be cut into partitions",
            );
        }
        if let Some(name) = data.get("partition_source").and_then(Value::as_str) {
            match sources.get(name) {
                None => {
                    let diagnostic = self.error_at(
                        &draft.spot,
                        format!("partition_source {name:?} is none of the sources"),
                    );
                    *diagnostic = diagnostic
                        .clone()
                        .suggest(name, sources.keys().map(String::as_str));
                }
                Some(source) if broadcast(source) => {
                    self.error_at(
                        &draft.spot,
                        format!("partition_source {name:?} is `broadcast`: it cannot be cut too"),
                    );
                }
                Some(_) => {}
            }
        }
    }
}

fn nested(what: &str, group: &str) -> String {
    format!(
        "{what} is in the mapped group {group:?} and cannot be mapped itself: one level of mapping is all there is; map the group over the combinations instead"
    )
}

impl Draft {
    pub(super) fn new(id: String, scope: &str, spot: Spot) -> Self {
        Self {
            id,
            spot,
            scope: scope.to_owned(),
            value: Map::new(),
            own: Vec::new(),
            depends_on: Vec::new(),
            setups: Vec::new(),
            mapped_group: None,
            texts: Vec::new(),
        }
    }

    pub(super) fn is_teardown(&self) -> bool {
        self.value.contains_key("teardown")
    }

    pub(super) fn is_setup(&self) -> bool {
        self.value.get("setup") == Some(&Value::Bool(true))
    }

    /// Whether a scheduler decides it: a branch or its like.
    pub(super) fn is_decider(&self) -> bool {
        ["branch", "short_circuit", "latest_only"]
            .iter()
            .any(|kind| self.value.contains_key(*kind))
    }

    pub(super) fn is_mapped(&self) -> bool {
        MAPPING_KEYS.iter().any(|key| self.value.contains_key(*key))
    }
}

impl Drafts {
    /// The mapped group that a scope is, or is in.
    fn mapped_group(&self, scope: &str) -> Option<&str> {
        let mut scope = scope;
        while let Some((id, group)) = self.groups.get_key_value(scope) {
            if !group.mapping.is_empty() {
                return Some(id);
            }
            scope = &group.scope;
        }
        None
    }

    /// What a task is mapped over, by itself or with its group: the value of one of [`MAPPING_KEYS`].
    pub(super) fn mapping(&self, draft: &Draft) -> Option<(&'static str, Value)> {
        let group = draft
            .mapped_group
            .as_ref()
            .and_then(|id| self.groups.get(id));
        let value = group.map_or(&draft.value, |group| &group.mapping);
        let of_key = |key: &&'static str| Some((*key, value.get(*key)?.clone()));
        MAPPING_KEYS.iter().find_map(of_key)
    }

    /// The map variables that a task's templates see.
    pub(super) fn map_variables(&self, draft: &Draft) -> MapVariables {
        match self.mapping(draft).map(|(_, lists)| lists) {
            None => MapVariables::NotMapped,
            Some(Value::Object(lists)) => MapVariables::Known(lists.keys().cloned().collect()),
            Some(Value::Array(items)) => MapVariables::Known(
                items
                    .iter()
                    .filter_map(Value::as_object)
                    .flat_map(|item| item.keys().cloned())
                    .collect(),
            ),
            Some(_) => MapVariables::Any,
        }
    }

    pub(super) fn add(&mut self, reader: &mut Reader<'_>, draft: Draft) {
        let taken = self.ids.contains_key(&draft.id) || self.groups.contains_key(&draft.id);
        if taken || self.data.contains_key(&draft.id) {
            reader.error_at(
                &draft.spot,
                format!("there are two tasks or groups of the id {:?}", draft.id),
            );
        }
        self.ids.insert(draft.id.clone(), self.tasks.len());
        self.tasks.push(draft);
    }
}
