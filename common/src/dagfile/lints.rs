//! What the types cannot say: keys that contradict each other (errors), and what is probably not meant (warnings).

use super::{
    diagnostic::Spot,
    draft::{Draft, Drafts, MAPPING_KEYS},
    grammar::SENSOR_ON,
    node::{Node, Tree},
    reader::Reader,
    resolve::Resolved,
};
use crate::{span::Span, spec::REJECT, template::is_template, timetable::parse_date};
use serde_json::{Map, Value};

pub(super) fn check(
    reader: &mut Reader<'_>,
    root: &Node,
    dag: &Map<String, Value>,
    drafts: &Drafts,
    resolved: &Resolved,
) {
    check_dag(reader, root, dag);
    check_groups(reader, drafts);
    for (draft, upstream) in drafts.tasks.iter().zip(&resolved.upstream) {
        check_task(reader, drafts, draft, upstream.is_empty());
    }
}

/// What is mapped as a whole.
fn check_groups(reader: &mut Reader<'_>, drafts: &Drafts) {
    for (id, group) in &drafts.groups {
        check_lists(reader, &below(&group.spot, "group"), &group.mapping);
        if group.mapping.is_empty() {
            continue;
        }
        let prefix = format!("{id}.");
        let named_alike = drafts
            .tasks
            .iter()
            .filter(|draft| draft.id.starts_with(&prefix));
        for draft in named_alike {
            match &draft.mapped_group {
                Some(group) if group == id || group.starts_with(&prefix) => {}
                _ => {
                    let message = format!(
                        "{:?} is named like a member of the mapped group {id:?}, but is none: name it otherwise",
                        draft.id
                    );
                    reader.error_at(&draft.spot, message);
                }
            }
            let what = match (draft.is_setup(), draft.is_teardown()) {
                (true, _) => "setup",
                (_, true) => "teardown",
                _ => continue,
            };
            let message = format!("a {what} in a mapped group ({id:?}) is not built yet");
            reader.error_at(&draft.spot, message);
        }
    }
}

fn check_dag(reader: &mut Reader<'_>, root: &Node, dag: &Map<String, Value>) {
    let spot = |reader: &mut Reader<'_>, name: &str| {
        let at = match &root.tree {
            Tree::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == name)
                .and_then(|entry| entry.at),
            _ => None,
        };
        reader.within(name, |reader| reader.spot(at))
    };
    let given = |name: &str| dag.get(name).filter(|value| !value.is_null());
    // A schedule that is wrong is still meant to be one.
    let scheduled = match &root.tree {
        Tree::Map(entries) => entries
            .iter()
            .any(|entry| entry.key == "schedule" && !entry.value.is_null()),
        _ => false,
    };
    let date = |name: &str| {
        given(name)
            .and_then(Value::as_str)
            .and_then(|text| parse_date(text, chrono_tz::UTC))
    };
    if let (Some(start), Some(end)) = (date("start_date"), date("end_date"))
        && end < start
    {
        let spot = spot(reader, "end_date");
        reader.error_at(
            &spot,
            format!("end_date ({end}) is before start_date ({start}): nothing would ever run"),
        );
    }
    if dag.get("catchup") == Some(&Value::Bool(true)) {
        let spot = spot(reader, "catchup");
        if !scheduled {
            reader.warn_at(&spot, "catchup has no effect without a schedule");
        } else if given("start_date").is_none() {
            reader.warn_at(&spot, "catchup without a start_date has nothing to catch up with: runs begin at the deployment");
        }
    }
    for name in ["end_date", "data_interval", "jitter", "overlap"] {
        if given(name).is_some() && !scheduled {
            let spot = spot(reader, name);
            reader.warn_at(&spot, format!("{name} has no effect without a schedule"));
        }
    }
    let params = given("params")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    for (name, schema) in params {
        if scheduled && schema.get("default").is_none() {
            let mut spot = spot(reader, "params");
            let separator = if spot.path.starts_with('/') { '/' } else { '.' };
            spot.path = format!("{}{separator}{name}", spot.path);
            let message = format!(
                "the parameter {name:?} has no default, but nobody gives values to scheduled runs"
            );
            reader.error_at(&spot, message);
        }
    }
}

fn check_task(reader: &mut Reader<'_>, drafts: &Drafts, draft: &Draft, is_root: bool) {
    let spot = &draft.spot;
    let owns = |name: &str| draft.own.iter().any(|own| own == name);
    let value = |name: &str| draft.value.get(name).filter(|value| !value.is_null());
    let span = |name: &str| {
        value(name)
            .and_then(Value::as_str)
            .and_then(|text| text.parse::<Span>().ok())
    };
    let warn = |reader: &mut Reader<'_>, key: &str, message: String| {
        reader.warn_at(&below(spot, key), message)
    };
    let retries = value("retries").and_then(Value::as_u64).unwrap_or(0);
    for key in [
        "retry_delay",
        "max_retry_delay",
        "retry_exponential_backoff",
    ] {
        if owns(key) && retries == 0 && (!owns("retries") || value("retries").is_some()) {
            warn(
                reader,
                key,
                format!("{key} has no effect: the task has no retries"),
            );
        }
    }
    if let (Some(delay), Some(longest)) = (span("retry_delay"), span("max_retry_delay"))
        && longest < delay
        && (owns("retry_delay") || owns("max_retry_delay"))
    {
        warn(
            reader,
            "max_retry_delay",
            format!("max_retry_delay ({longest}) is shorter than retry_delay ({delay})"),
        );
    }
    let rule = value("trigger_rule").and_then(Value::as_str);
    match rule {
        Some("all_done_setup_success") if !draft.is_teardown() => {
            warn(
                reader,
                "trigger_rule",
                "all_done_setup_success is a rule for teardowns".to_owned(),
            );
        }
        // As in Airflow: the list would have to be there before its maker ran.
        Some("always") if has_upstream_list(drafts, draft) => {
            let message =
                "the rule `always` does not wait, but the list to map over comes from upstream"
                    .to_owned();
            reader.error_at(&below(spot, "trigger_rule"), message);
        }
        Some(rule)
            if is_root && owns("trigger_rule") && !matches!(rule, "all_success" | "always") =>
        {
            warn(
                reader,
                "trigger_rule",
                format!("{rule} has no effect: the task has no upstreams"),
            );
        }
        _ => {}
    }
    check_waits(reader, draft);
    if owns("env") && !owns("shell") {
        warn(
            reader,
            "env",
            "env has an effect on shell tasks only".to_owned(),
        );
    }
    check_lists(reader, &draft.spot, &draft.value);
    const WITHOUT_WORKER: [&str; 6] = [
        "empty",
        "branch",
        "short_circuit",
        "latest_only",
        "trigger_dag",
        "approval",
    ];
    if owns("concurrency")
        && let Some(kind) = WITHOUT_WORKER.iter().find(|kind| owns(kind))
    {
        let message =
            format!("concurrency has no effect: a task of kind {kind} is never sent to a worker");
        warn(reader, "concurrency", message);
    }
    if value("map_index_template").is_some() && drafts.mapping(draft).is_none() {
        let message = "map_index_template has no effect: the task is not mapped".to_owned();
        warn(reader, "map_index_template", message);
    }
}

/// Warns of literal lists that are probably not meant.
fn check_lists(reader: &mut Reader<'_>, spot: &Spot, value: &Map<String, Value>) {
    let Some((key, lists)) = MAPPING_KEYS
        .iter()
        .find_map(|key| Some((*key, value.get(*key)?)))
    else {
        return;
    };
    let spot = below(spot, key);
    let literal = |reader: &mut Reader<'_>, name: String, list: &Value| {
        let Value::Array(items) = list else { return };
        if items.is_empty() {
            let message = format!("the list{name} is empty: nothing will ever run, all is skipped");
            reader.warn_at(&spot, message);
        }
        let is_text = |item: &Value| item.as_str().is_some_and(is_template);
        let holds = |item: &Value| {
            item.as_object()
                .is_some_and(|map| map.values().any(is_text))
        };
        if items.iter().any(|item| is_text(item) || holds(item)) {
            let message = format!("templates within the list{name} are not rendered");
            reader.warn_at(&spot, message);
        }
    };
    match lists {
        Value::Object(lists) => {
            for (name, list) in lists {
                literal(reader, format!(" {name:?}"), list);
            }
            check_zip(reader, key, &spot, lists);
        }
        list => literal(reader, String::new(), list),
    }
}

/// Literal lists that are put side by side are known to fit, or not, already.
fn check_zip(reader: &mut Reader<'_>, key: &str, spot: &Spot, lists: &Map<String, Value>) {
    let lengths: Vec<(&String, usize)> = lists
        .iter()
        .filter_map(|(name, list)| Some((name, list.as_array()?.len())))
        .collect();
    let Some((first, length)) = lengths.first().filter(|_| key == "expand_zip") else {
        return;
    };
    if let Some((other, its)) = lengths.iter().find(|(_, its)| its != length) {
        let message = format!(
            "the lists have different lengths: {first} has {length} items, {other} has {its}; lists side by side are equally long"
        );
        reader.error_at(spot, message);
    }
}

/// What the tables cannot say of tasks that wait.
fn check_waits(reader: &mut Reader<'_>, draft: &Draft) {
    let of = |kind: &str| draft.value.get(kind).and_then(Value::as_object);
    let spot = |kind: &str| below(&draft.spot, kind);
    if let Some(sensor) = of("sensor") {
        if !SENSOR_ON.iter().any(|key| sensor.contains_key(*key)) {
            let diagnostic =
                reader.error_at(&spot("sensor"), "the sensor does not say what it waits for");
            diagnostic.expected = Some(format!("give it one of: {}.", SENSOR_ON.join(", ")));
        }
        let list = |value: &Value| value.is_array();
        let parameters = sensor.get("sql").and_then(|sql| sql.get("parameters"));
        if parameters.is_some_and(|parameters| !list(parameters)) {
            reader.error_at(&spot("sensor"), "sql.parameters has to be a list");
        }
        for key in ["max_wait"] {
            if sensor.contains_key(key) && sensor.get("exponential_backoff") != Some(&true.into()) {
                let message = format!("{key} has no effect without exponential_backoff");
                reader.warn_at(&spot("sensor"), message);
            }
        }
        let span = |name: &str| sensor.get(name)?.as_str()?.parse::<Span>().ok();
        if span("poke_interval").is_some_and(|every| every < Span::from_millis(100)) {
            let message = "poke_interval is at least 100ms: a sensor looks, it does not spin";
            reader.error_at(&spot("sensor"), message);
        }
    }
    if let Some(sql) = of("sql") {
        check_sql(reader, &spot("sql"), sql);
    }
    for key in ["conf", "params"] {
        let given = of("trigger_dag").and_then(|trigger| trigger.get(key));
        if given.is_some_and(|value| !value.is_object() && !value.is_string()) {
            let message = format!("{key} has to be a mapping, or a template of one");
            reader.error_at(&spot("trigger_dag"), message);
        }
    }
    if let Some(approval) = of("approval") {
        let options: Option<Vec<&str>> = approval
            .get("options")
            .and_then(Value::as_array)
            .map(|options| options.iter().filter_map(Value::as_str).collect());
        let options = options.unwrap_or_else(|| vec!["approve", REJECT]);
        let mut distinct = options.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if options.is_empty() || distinct.len() < options.len() {
            let message = "options has to be a list of different answers, at least one";
            reader.error_at(&spot("approval"), message);
        }
        if let Some(default) = approval.get("default").and_then(Value::as_str) {
            if !options.contains(&default) {
                let diagnostic = reader.error_at(
                    &spot("approval"),
                    format!("the default {default:?} is none of the options"),
                );
                *diagnostic = diagnostic.clone().suggest(default, options.iter().copied());
            }
            if approval.get("timeout").is_none_or(Value::is_null) {
                let message = "default has no effect without a timeout";
                reader.warn_at(&spot("approval"), message.to_owned());
            }
        }
        if approval.contains_key("on_reject") && !options.contains(&REJECT) {
            let message = format!("on_reject has no effect: {REJECT:?} is none of the options");
            reader.warn_at(&spot("approval"), message);
        }
    }
}

fn check_sql(reader: &mut Reader<'_>, spot: &Spot, sql: &Map<String, Value>) {
    let given = |key: &str| sql.get(key).filter(|value| !value.is_null());
    let none = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
    if given("file").is_none() && given("statements").is_none_or(none) {
        let diagnostic = reader.error_at(spot, "the task has no statements");
        diagnostic.expected = Some("give it `statements`, or a `file` that holds them.".to_owned());
    }
    if let Some(file) = given("file").and_then(Value::as_str)
        && (file.is_empty() || file.starts_with('/') || file.split('/').any(|part| part == ".."))
    {
        let message = format!("the file {file:?} is not in the bundle");
        let diagnostic = reader.error_at(&below(spot, "file"), message);
        diagnostic.expected = Some(
            "it is a path below the folder that is deployed, such as sql/load.sql.".to_owned(),
        );
    }
    if given("parameters").is_some_and(|value| !value.is_object() && !value.is_array()) {
        let message = "parameters has to be a mapping of names to values, or a list";
        reader.error_at(&below(spot, "parameters"), message);
    }
    let rows = given("output").is_some_and(|output| output == "rows");
    if given("max_rows").is_some() && !rows && given("checks").is_none_or(none) {
        let message = "max_rows has no effect: no rows are kept";
        reader.warn_at(&below(spot, "max_rows"), message);
    }
}

fn has_upstream_list(drafts: &Drafts, draft: &Draft) -> bool {
    let pulls = |list: &Value| list.as_str().is_some_and(|text| text.contains("xcom_pull"));
    match drafts.mapping(draft).map(|(_, lists)| lists) {
        Some(Value::Object(lists)) => lists.values().any(pulls),
        Some(list) => pulls(&list),
        None => false,
    }
}

fn below(spot: &Spot, key: &str) -> Spot {
    let separator = if spot.path.starts_with('/') { '/' } else { '.' };
    Spot {
        path: format!("{}{separator}{key}", spot.path),
        ..spot.clone()
    }
}
