//! The JSON Schema of DAG files, for editors: made from the grammar's tables.

use super::grammar::{DAG, Table, Ty};
use serde_json::{Map, Value, json};

/// The JSON Schema (2020-12) of a DAG file. Keys that are not built yet are left out.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let root = table(&DAG, &mut definitions);
    definitions.remove(&slug(&DAG));
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Gristmill DAG file",
    });
    if let (Some(schema), Value::Object(root)) = (schema.as_object_mut(), root) {
        schema.extend(root);
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

fn slug(table: &Table) -> String {
    table.name.replace(' ', "_")
}

fn reference(to: &'static Table, definitions: &mut Map<String, Value>) -> Value {
    let name = slug(to);
    if !definitions.contains_key(&name) {
        // A table may lead to itself (groups hold tasks): the placeholder ends the recursion.
        definitions.insert(name.clone(), Value::Null);
        let schema = table(to, definitions);
        definitions.insert(name.clone(), schema);
    }
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn table(table: &'static Table, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    for key in table.keys.iter().filter(|key| key.built) {
        let mut schema = value(&key.ty, definitions);
        if key.nullable {
            schema = json!({ "anyOf": [schema, { "type": "null" }] });
        }
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), json!(key.doc));
            if !key.default.is_empty() {
                let text = || json!(key.default);
                schema.insert(
                    "default".to_owned(),
                    serde_json::from_str(key.default).unwrap_or_else(|_| text()),
                );
            }
        }
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<&str> = table
        .keys
        .iter()
        .filter(|key| key.required && key.built)
        .map(|key| key.name)
        .collect();
    let mut schema =
        json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let kinds: Vec<Value> = table
        .keys
        .iter()
        .filter(|key| key.kind && key.built)
        .map(|key| json!({ "required": [key.name] }))
        .collect();
    if !kinds.is_empty() {
        schema["oneOf"] = json!(kinds);
    }
    schema
}

fn value(ty: &Ty, definitions: &mut Map<String, Value>) -> Value {
    match ty {
        Ty::Bool => json!({ "type": "boolean" }),
        Ty::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Ty::Number => json!({ "type": "number", "minimum": 0 }),
        Ty::Text | Ty::Expression(_) | Ty::Date | Ty::Timezone => json!({ "type": "string" }),
        Ty::Template => json!({ "type": ["string", "number", "boolean"] }),
        Ty::Name => json!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,250}$" }),
        Ty::Span | Ty::Size => json!({ "type": ["string", "number"] }),
        Ty::Schedule => {
            let examples = ["@daily", "0 2 * * *", "every 15m", "@once", "@continuous"];
            json!({ "anyOf": [
                { "type": "string", "examples": examples },
                { "type": "array", "minItems": 1, "items": { "type": "string" } },
                reference(&super::grammar::ASSET_SCHEDULE, definitions),
            ] })
        }
        Ty::Cron => json!({ "type": "string", "examples": ["@daily", "0 2 * * *"] }),
        Ty::AssetName => {
            json!({ "type": "string", "minLength": 1, "maxLength": crate::asset::MAX_NAME })
        }
        Ty::AssetCondition => {
            let nested = reference(&super::grammar::ASSET_SCHEDULE, definitions);
            json!({ "anyOf": [{ "type": "string" }, nested] })
        }
        Ty::Enum(members) => json!({ "enum": members }),
        Ty::List(item) => json!({ "type": "array", "items": value(item, definitions) }),
        Ty::OneOrMany(item) => {
            let item = value(item, definitions);
            json!({ "anyOf": [{ "type": "array", "items": item }, item] })
        }
        Ty::Dict(item) => {
            json!({ "type": "object", "additionalProperties": value(item, definitions) })
        }
        Ty::Object(table) => reference(table, definitions),
        Ty::Short(_, table) => {
            json!({ "anyOf": [{ "type": "string" }, reference(table, definitions)] })
        }
        Ty::Json => json!({}),
        Ty::Params => {
            json!({ "type": "object", "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" } })
        }
        Ty::Expand => json!({
            "type": "object", "minProperties": 1, "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": { "type": ["array", "string"] },
        }),
        Ty::ExpandItems => json!({ "type": ["array", "string"], "items": { "type": "object" } }),
        Ty::Tasks => {
            let task = reference(&super::grammar::TASK, definitions);
            json!({ "type": "object", "minProperties": 1, "additionalProperties": task })
        }
        Ty::DefaultArgs => {
            let mut schema = table(&super::grammar::TASK, definitions);
            if let Some(schema) = schema.as_object_mut() {
                schema.remove("oneOf");
                if let Some(Value::Object(properties)) = schema.get_mut("properties") {
                    properties.retain(|name, _| {
                        super::grammar::TASK
                            .key(name)
                            .is_some_and(|key| key.inherited)
                    });
                }
            }
            schema
        }
    }
}
