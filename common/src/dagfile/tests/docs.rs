//! What is generated from the grammar's tables: the JSON Schema, and the tables of `docs/dag-format.md`. A test fails on
//! drift; `UPDATE=1 cargo test -p gristmill-common` writes them anew.

use super::*;
use crate::dagfile::grammar::{CALLBACK_TABLES, LATER_TABLES, TABLES, Table};
use std::{fs, path::PathBuf};

fn doc(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

fn check(name: &str, wanted: &str) {
    let path = doc(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/{name} is out of date: UPDATE=1 cargo test -p gristmill-common dagfile"
    );
}

#[test]
fn the_json_schema_is_up_to_date() {
    check(
        "dag.schema.json",
        &format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap()),
    );
}

#[test]
fn the_json_schema_takes_what_the_parser_takes() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut files = folder("../examples/dags");
    files.push((
        "daily_sales.yaml".to_owned(),
        include_str!("daily_sales.yaml").to_owned(),
    ));
    files.push((
        "groups.yaml".to_owned(),
        include_str!("groups.yaml").to_owned(),
    ));
    for (name, text) in files {
        let value = yaml::load(&name, &text).unwrap().to_json();
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert_eq!(errors, [""; 0], "{name}");
    }
    let bad = json!({"dag_id": "d", "tasks": {"a": {"shell": "x", "retrys": 1}}});
    assert!(!validator.is_valid(&bad));
}

/// Between `<!-- keys: a DAG -->` and `<!-- end -->` stands the table of that name.
#[test]
fn the_tables_of_the_docs_are_up_to_date() {
    let tables: Vec<&Table> = TABLES
        .iter()
        .chain(CALLBACK_TABLES)
        .chain(LATER_TABLES)
        .copied()
        .collect();
    let text = fs::read_to_string(doc("dag-format.md")).unwrap();
    let mut wanted = String::new();
    let mut rest = text.as_str();
    let mut shown = Vec::new();
    while let Some((before, after)) = rest.split_once("<!-- keys: ") {
        let (name, after) = after.split_once(" -->").unwrap();
        let (_, after) = after.split_once("<!-- end -->").unwrap();
        let table = tables
            .iter()
            .find(|table| table.name == name)
            .unwrap_or_else(|| panic!("no table {name:?}"));
        shown.push(name);
        wanted.push_str(&format!(
            "{before}<!-- keys: {name} -->\n{}<!-- end -->",
            rows(table)
        ));
        rest = after;
    }
    wanted.push_str(rest);
    check("dag-format.md", &wanted);
    for table in tables {
        assert!(
            shown.contains(&table.name),
            "docs/dag-format.md does not show the keys of {:?}",
            table.name
        );
    }
}

fn rows(table: &Table) -> String {
    let later = LATER_TABLES.iter().any(|other| other.name == table.name);
    let mut rows =
        String::from("\n| Key | Value | Default | Meaning |\n| --- | --- | --- | --- |\n");
    for key in table.keys {
        let default = match (key.default, key.required) {
            ("", true) => "required".to_owned(),
            ("", false) => String::new(),
            (text, _) => format!("`{text}`"),
        };
        let not_yet = if key.built || later {
            ""
        } else {
            "**Not yet.** "
        };
        let null = if key.nullable && !key.kind && !key.ty.expected().ends_with("null") {
            " or null"
        } else {
            ""
        };
        let expected = key.ty.expected().replace('|', "\\|");
        rows.push_str(&format!(
            "| `{}` | {expected}{null} | {default} | {not_yet}{} |\n",
            key.name, key.doc
        ));
    }
    rows.push('\n');
    rows
}

#[test]
fn defaults_in_the_tables_are_those_of_the_specification() {
    let spec = ok("dag_id: d\ntasks: {a: {shell: x}, b: {http: x}}");
    let written = to_json(&spec);
    let check = |table: &str, value: &Value| {
        let table = TABLES.iter().find(|t| t.name == table).unwrap();
        for key in table
            .keys
            .iter()
            .filter(|key| key.built && !key.default.is_empty())
        {
            let Some(found) = value.get(key.name).filter(|found| !found.is_null()) else {
                continue;
            };
            let text = found
                .as_str()
                .map_or_else(|| found.to_string(), str::to_owned);
            let same = |a: &str, b: &str| match (
                a.parse::<crate::span::Span>(),
                b.parse::<crate::span::Span>(),
            ) {
                (Ok(a), Ok(b)) => a == b,
                _ => a == b,
            };
            assert!(
                same(&text, key.default),
                "{}.{}: {text}, not {}",
                table.name,
                key.name,
                key.default
            );
        }
    };
    check("a DAG", &written);
    check("a task", &written["tasks"]["a"]);
    check("a shell task", &written["tasks"]["a"]["shell"]);
    check("an http task", &written["tasks"]["b"]["http"]);
}
