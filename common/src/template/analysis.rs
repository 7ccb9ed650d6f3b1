//! What a template refers to, found without rendering it.

use super::{TemplateError, bounds, env, env::environment};
use crate::{
    row::{ARTIFACTS, RETURN_VALUE},
    spec::{
        DataPhase, Decider, ExpandSource, HttpBody, HttpTask, Mapping, SensorOn, SqlTask, TaskKind,
        TaskSpec,
    },
};
use minijinja::machinery::parse;
use serde_json::Value;
use std::collections::BTreeSet;

mod walk;

pub(crate) use walk::{Analysis, Reference};

/// Whether a text holds anything to render.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// What has to be at hand to render a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs {
    /// (task id, key) of each XCom that is pulled by constant names.
    pub xcom_pulls: BTreeSet<(String, String)>,
    /// Some pull's task or key is only known when rendered: anything upstream may be asked for.
    pub dynamic_pull: bool,
    pub vars: BTreeSet<String>,
    /// Some variable's name is only known when rendered.
    pub dynamic_vars: bool,
    pub conns: BTreeSet<String>,
    /// Some connection's id is only known when rendered.
    pub dynamic_conns: bool,
}

impl Refs {
    /// Adds what another text refers to.
    pub fn merge(&mut self, other: Self) {
        self.xcom_pulls.extend(other.xcom_pulls);
        self.vars.extend(other.vars);
        self.conns.extend(other.conns);
        self.dynamic_pull |= other.dynamic_pull;
        self.dynamic_vars |= other.dynamic_vars;
        self.dynamic_conns |= other.dynamic_conns;
    }
}

/// What a text refers to; nothing if it is no valid template (which rendering then says).
pub fn references(text: &str) -> Refs {
    if !is_template(text) {
        return Refs::default();
    }
    analyse(text)
        .map(|analysis| analysis.refs())
        .unwrap_or_default()
}

/// The task whose value a text is, if it is one pull by a constant name and nothing else: `{{ ti.xcom_pull('list') }}`.
pub fn pulled_as_it_is(text: &str) -> Option<String> {
    let (_, expression) = only_expression(text)?;
    let expression = expression.trim();
    let rest = expression
        .strip_prefix("ti.")
        .or_else(|| expression.strip_prefix("task_instance."))?;
    let arguments = rest.strip_prefix("xcom_pull(")?.strip_suffix(')')?;
    if arguments.contains(['(', ')']) {
        return None;
    }
    let pulls = analyse(text).ok()?.refs().xcom_pulls;
    let mut tasks = pulls.into_iter().map(|(task, _)| task);
    tasks.next().filter(|_| tasks.next().is_none())
}

/// What a task's templates refer to, in all.
pub fn task_references(task: &TaskSpec) -> Refs {
    let mut refs = scheduling_references(task);
    refs.merge(running_references(task));
    refs
}

/// What the scheduler's own templates of a task refer to: its queue, the lists that it is mapped over, what it decides by,
/// and all of a task that waits without a worker.
pub fn scheduling_references(task: &TaskSpec) -> Refs {
    let mut refs = references(&task.queue);
    if let Some(mapping) = task.mapping() {
        refs.merge(mapping_references(mapping));
    }
    match task.kind.decider() {
        Some(Decider::Branch(branch)) => refs.merge(references(&branch.choose)),
        Some(Decider::ShortCircuit(circuit)) => refs.merge(references(&circuit.condition)),
        Some(Decider::LatestOnly) | None => {}
    }
    let mut add = |text: &str| refs.merge(references(text));
    match &task.kind {
        TaskKind::Sensor(sensor) => match &sensor.on {
            SensorOn::Time(time) => add(time),
            SensorOn::Asset(update) => update.since.iter().for_each(|since| add(since)),
            _ => {}
        },
        TaskKind::TriggerDag(trigger) => {
            add(&trigger.dag_id);
            let texts = trigger.run_id.iter().chain(&trigger.logical_date);
            texts.for_each(|text| add(text));
            for value in trigger.conf.iter().chain(&trigger.params) {
                each_string(value, &mut add);
            }
        }
        TaskKind::Approval(approval) => approval.prompt.iter().for_each(|text| add(text)),
        _ => {}
    }
    refs
}

/// What the lists refer to that a task or a group is mapped over.
pub fn mapping_references(mapping: Mapping<'_>) -> Refs {
    let mut refs = Refs::default();
    for source in mapping.sources() {
        if let ExpandSource::Template(text) = source {
            refs.merge(references(text));
        }
    }
    refs
}

/// What the templates refer to that a worker renders to run a task: what its message has to bring.
pub fn running_references(task: &TaskSpec) -> Refs {
    let mut refs = Refs::default();
    let inputs = task.inputs.iter();
    refs.xcom_pulls = inputs
        .map(|input| (input.clone(), ARTIFACTS.to_owned()))
        .collect();
    let mut add = |text: &str| refs.merge(references(text));
    task.env.values().for_each(|text| add(text));
    task.artifacts.iter().for_each(|text| add(text));
    task.cache.iter().for_each(|cache| add(&cache.key));
    match &task.kind {
        TaskKind::Shell(shell) => {
            add(&shell.command);
            shell
                .stdin
                .iter()
                .chain(shell.files.values())
                .for_each(|text| add(text));
        }
        TaskKind::Http(http) => refs.merge(http_references(http)),
        TaskKind::Sql(sql) => refs.merge(sql_references(sql)),
        TaskKind::Data(data) => {
            data.sources.values().for_each(|source| add(&source.path));
            add(&data.map_sql);
            data.reduce_sql.iter().for_each(|text| add(text));
            data.sink.iter().for_each(|sink| add(&sink.path));
            // The commit puts together what the other phases returned, without a template that says so.
            if let (DataPhase::Commit, Some((group, _))) =
                (data.phase, task.task_id.rsplit_once('.'))
            {
                for phase in ["plan", "part"] {
                    refs.xcom_pulls
                        .insert((format!("{group}.{phase}"), RETURN_VALUE.to_owned()));
                }
            }
        }
        TaskKind::Sensor(sensor) => match &sensor.on {
            SensorOn::File(path) => add(path),
            SensorOn::Http(http) => refs.merge(http_references(http)),
            SensorOn::Sql(sql) => {
                add(&sql.connection);
                add(&sql.query);
                for value in &sql.parameters {
                    each_string(value, &mut add);
                }
                if !is_template(&sql.connection) {
                    refs.conns.insert(sql.connection.clone());
                }
            }
            SensorOn::Time(_) | SensorOn::Delta(_) | SensorOn::Dag(_) | SensorOn::Asset(_) => {}
        },
        TaskKind::Empty(_)
        | TaskKind::Noop(_)
        | TaskKind::Branch(_)
        | TaskKind::ShortCircuit(_)
        | TaskKind::LatestOnly(_)
        | TaskKind::TriggerDag(_)
        | TaskKind::Approval(_) => {}
    }
    refs
}

fn http_references(http: &HttpTask) -> Refs {
    let mut refs = Refs::default();
    let mut add = |text: &str| refs.merge(references(text));
    [&http.method, &http.url]
        .into_iter()
        .for_each(|text| add(text));
    http.query
        .values()
        .chain(http.headers.values())
        .for_each(|text| add(text));
    http.connection.iter().for_each(|text| add(text));
    match &http.body {
        Some(HttpBody::Json(value)) => each_string(value, &mut add),
        Some(HttpBody::Form(form)) => form.values().for_each(|text| add(text)),
        Some(HttpBody::Body(text)) => add(text),
        None => {}
    }
    if let Some(connection) = http.connection.as_ref().filter(|id| !is_template(id)) {
        refs.conns.insert(connection.clone());
    }
    if let Some(check) = &http.expect.check {
        refs.merge(
            analyse_expression(check, &CHECK_NAMES)
                .map(|a| a.refs())
                .unwrap_or_default(),
        );
    }
    refs
}

fn sql_references(sql: &SqlTask) -> Refs {
    let mut refs = Refs::default();
    let mut add = |text: &str| refs.merge(references(text));
    add(&sql.connection);
    sql.statements.iter().for_each(|text| add(text));
    for value in sql.parameters.values() {
        each_string(value, &mut add);
    }
    if !is_template(&sql.connection) {
        refs.conns.insert(sql.connection.clone());
    }
    for check in &sql.checks {
        refs.merge(
            analyse_expression(check, &ROW_NAMES)
                .map(|a| a.refs())
                .unwrap_or_default(),
        );
    }
    refs
}

/// The names that an sql task's `checks` see beside the usual ones.
pub(crate) const ROW_NAMES: [&str; 2] = ["count", "rows"];

/// The names that an http task's `check` sees beside the usual ones.
pub(crate) const CHECK_NAMES: [&str; 4] = ["headers", "json", "status", "text"];

fn each_string(value: &Value, f: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => f(text),
        Value::Array(items) => items.iter().for_each(|item| each_string(item, f)),
        Value::Object(map) => map.values().for_each(|item| each_string(item, f)),
        _ => {}
    }
}

/// Everything that a template refers to, or why it is none.
pub(crate) fn analyse(text: &str) -> Result<Analysis, TemplateError> {
    bounds::check(text, false)?;
    environment()
        .template_from_str(text)
        .map_err(|error| TemplateError::of(&error, text))?;
    let tree = parse(text, "<template>", env::syntax())
        .map_err(|error| TemplateError::of(&error, text))?;
    let mut analysis = Analysis::new(&[]);
    analysis.statement(&tree);
    Ok(analysis)
}

/// The same for a bare expression that sees some names more.
pub(crate) fn analyse_expression(text: &str, names: &[&str]) -> Result<Analysis, TemplateError> {
    bounds::check(text, true)?;
    environment()
        .compile_expression(text)
        .map_err(|error| TemplateError::of(&error, text))?;
    let tree =
        minijinja::machinery::parse_expr(text).map_err(|error| TemplateError::of(&error, text))?;
    let mut analysis = Analysis::new(names);
    analysis.expression(&tree);
    Ok(analysis)
}

/// If a text is exactly one `{{ … }}`: where the expression starts, and the expression.
pub(crate) fn only_expression(text: &str) -> Option<(usize, &str)> {
    let trimmed = text.trim();
    let inner = trimmed.strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    bounds::check(trimmed, false).ok()?;
    // Two expressions side by side look the same from the ends: only the parser knows.
    let tree = parse(trimmed, "<template>", env::syntax()).ok()?;
    walk::is_one_expression(&tree)
        .then(|| (inner.as_ptr() as usize - text.as_ptr() as usize, inner))
}
