//! The table of Airflow's operations, and the document made from it.

use super::{Compatible, SCHEMAS, State, built, compatible};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Where the table is told.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api-compatibility.md");

/// The nouns under which operations are told, by the first part of their path that says so.
fn noun(path: &str) -> &str {
    const NOUNS: [&str; 8] = [
        "xcomEntries",
        "state-store",
        "hitlDetails",
        "taskInstances",
        "taskGroupInstances",
        "clearTaskInstances",
        "dagRuns",
        "assets",
    ];
    let parts: Vec<&str> = path.trim_start_matches("/api/v2/").split('/').collect();
    NOUNS
        .into_iter()
        .find(|noun| parts.contains(noun))
        .unwrap_or(parts[0])
}

fn line(operation: &Compatible) -> String {
    let star = if operation.starred { "★" } else { "" };
    let (method, path) = (operation.method.to_uppercase(), &operation.path);
    let state = match operation.state {
        State::There => operation.status.to_string(),
        State::Absent => "501".to_owned(),
    };
    let note = operation.note.as_deref().unwrap_or_default();
    format!(
        "| {star} | `{method} {path}` | `{}` | {state} | {note} |\n",
        operation.id
    )
}

/// docs/api-compatibility.md.
fn told() -> String {
    let operations = compatible().unwrap();
    let is_there = |operation: &&Compatible| operation.state == State::There;
    // Signing in is beside the stable API, and in no client.
    let starred = operations.iter().filter(|o| o.starred).count() + 1;
    let starred_there = operations
        .iter()
        .filter(|o| o.starred)
        .filter(is_there)
        .count()
        + 1;
    let others = operations.iter().filter(|o| !o.starred).count();
    let others_there = operations
        .iter()
        .filter(|o| !o.starred)
        .filter(is_there)
        .count();
    let mut text = format!(
        "# Airflow's stable API

<!-- Written by a test from api/src/routes/openapi/airflow.json: GRISTMILL_BLESS=1 cargo test -p gristmill-api compatibility -->

`apache-airflow-client` 3.3 works unchanged: `make test` calls every operation below with it against real servers, with typical,
empty, paged, filtered, wrong and unauthorised input, and its models judge every answer. Operations that CI systems and people
on call use are starred: {starred_there} of {starred} are here, and {others_there} of the {others} others. What has no counterpart
answers 501 and says what there is instead.

Signing in (★ `POST /auth/token`, 201) is no part of the stable API; the token goes into the client's `access_token`.

What holds everywhere: times in a query may have an offset without a colon (`+0000`), one with, `Z` or none (UTC). `limit` is at
most 1000, 50 unless it is given. `cursor` pages through runs and task instances; totals are then counted up to 10,000. A filter
that this version has not answers 501 and names it. Unknown keys of a body are 422 with their place; a body that is no JSON
is 415 by its content type, or 422 where it breaks off. Runs have `\"cancelled\": true` beside the state `failed` when somebody
ended them. Operations of our own stand in `/openapi.json` beside these.
"
    );
    let mut by_noun: BTreeMap<&str, Vec<&Compatible>> = BTreeMap::new();
    for operation in &operations {
        by_noun
            .entry(noun(&operation.path))
            .or_default()
            .push(operation);
    }
    for (noun, operations) in by_noun {
        let head = "| | Operation | In the client | Answers | |\n| --- | --- | --- | --- | --- |";
        write!(text, "\n## {noun}\n\n{head}\n").unwrap();
        for operation in operations {
            text.push_str(&line(operation));
        }
    }
    text
}

#[test]
fn the_document_on_compatibility_tells_the_table() {
    let text = told();
    if std::env::var_os("GRISTMILL_BLESS").is_some() {
        std::fs::write(DOCUMENT, &text).unwrap();
    }
    let written = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(
        written == text,
        "docs/api-compatibility.md is not what the table says: GRISTMILL_BLESS=1 cargo test -p gristmill-api compatibility"
    );
}

#[test]
fn every_operation_of_the_client_is_listed_once() {
    let operations = compatible().unwrap();
    let distinct: BTreeSet<_> = operations.iter().map(|o| (&o.method, &o.path)).collect();
    assert_eq!((operations.len(), distinct.len()), (128, 128));
    assert_eq!(operations.iter().filter(|o| o.starred).count(), 44);
    let absent = |o: &&Compatible| o.starred && o.state == State::Absent;
    assert_eq!(operations.iter().find(absent).map(|o| &o.id), None);
}

/// Every `$ref` of the document.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(all) => all.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn everything_that_is_referred_to_is_there() {
    let document = built().unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let schemas: BTreeMap<String, Value> = serde_json::from_str(SCHEMAS).unwrap();
    for name in schemas.keys() {
        let reference = format!("#/components/schemas/{name}");
        assert!(found.contains(reference.as_str()), "{name} is used nowhere");
    }
}
