//! A DAG's parameters: each has a JSON Schema, whose `default` is the parameter's default. Checked when a run is made.

use crate::spec::DagSpec;
use jsonschema::{PatternOptions, Validator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// Longest conf of a run, in bytes of JSON: it travels in the message of each of the run's tasks.
pub const MAX_CONF: usize = 32 * 1024;

/// One way in which given parameters break their schemas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamViolation {
    pub param: String,
    /// JSON pointer within the parameter's value; empty for the value itself.
    pub pointer: String,
    pub message: String,
}

impl fmt::Display for ParamViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "params.{}{}: {}",
            self.param,
            self.pointer.replace('/', "."),
            self.message
        )
    }
}

impl std::error::Error for ParamViolation {}

/// The parameters of a run: the given ones over the defaults, each checked by its schema. Every violation is named.
pub fn check_params(
    spec: &DagSpec,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, Vec<ParamViolation>> {
    let mut violations = Vec::new();
    let mut violate = |param: &str, pointer: String, message: String| {
        violations.push(ParamViolation {
            param: param.to_owned(),
            pointer,
            message,
        });
    };
    for name in given.keys().filter(|name| !spec.params.contains_key(*name)) {
        let known: Vec<&str> = spec.params.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has: {}", known.join(", "))
        };
        violate(
            name,
            String::new(),
            format!("DAG {:?} has no such parameter; {known}", spec.dag_id),
        );
    }
    let mut params = Map::new();
    for (name, schema) in &spec.params {
        let Some(value) = given.get(name).or_else(|| schema.get("default")) else {
            violate(
                name,
                String::new(),
                "has no default, so a value has to be given".to_owned(),
            );
            continue;
        };
        match validator(schema) {
            Ok(validator) => {
                for error in validator.iter_errors(value) {
                    violate(name, error.instance_path().to_string(), error.to_string());
                }
            }
            Err(problem) => violate(
                name,
                String::new(),
                format!("its schema is not valid: {problem}"),
            ),
        }
        params.insert(name.clone(), value.clone());
    }
    if violations.is_empty() {
        Ok(params)
    } else {
        Err(violations)
    }
}

/// Whether a parameter's schema is a JSON Schema, and its default (if any) fits it.
pub fn check_schema(schema: &Value) -> Result<(), String> {
    let validator = validator(schema)?;
    let Some(default) = schema.get("default") else {
        return Ok(());
    };
    validator
        .validate(default)
        .map_err(|error| format!("its default does not fit its own schema: {error}"))
}

/// Patterns run on the linear-time engine: a schema comes from a DAG's author, a value from whoever triggers it.
fn validator(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .build(schema)
        .map_err(|error| error.to_string())
}

/// A parameter given as text (`-p k=v`), typed by its schema: the first of the schema's types that the text is a JSON
/// value of; a string if none is. A schema without `type` but with `enum` takes the matching member.
pub fn type_param(schema: &Value, text: &str) -> Value {
    let string = || Value::String(text.to_owned());
    let json = serde_json::from_str::<Value>(text).ok();
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => {
            let members = schema.get("enum").and_then(Value::as_array);
            return match (members, json) {
                (Some(members), _) if members.contains(&string()) => string(),
                (Some(members), Some(value)) if members.contains(&value) => value,
                (None, Some(value)) if schema.get("type").is_none() && !value.is_string() => value,
                _ => string(),
            };
        }
    };
    let Some(value) = json else {
        return string();
    };
    let fits = |name: &&str| match *name {
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    // `["string", "integer"]` and 5: the narrower type wins, as a user who writes 5 expects.
    if types.iter().any(fits) {
        value
    } else {
        string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn spec(params: Value) -> DagSpec {
        serde_json::from_value(json!({"dag_id": "sales", "params": params, "tasks": []})).unwrap()
    }

    fn given(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn defaults_are_filled_in() {
        let spec = spec(
            json!({"country": {"enum": ["kr", "jp"], "default": "kr"}, "n": {"type": "integer"}}),
        );
        let params = check_params(&spec, &given(json!({"n": 3}))).unwrap();
        assert_eq!(Value::Object(params), json!({"country": "kr", "n": 3}));
    }

    #[test]
    fn every_violation_is_named() {
        let spec = spec(json!({
            "country": {"enum": ["kr", "jp"]},
            "n": {"type": "integer"},
            "list": {"type": "array", "items": {"type": "string"}, "maxItems": 1},
        }));
        let violations = check_params(
            &spec,
            &given(json!({"contry": "kr", "n": "3", "list": ["a", 5]})),
        )
        .unwrap_err();
        let mut texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
        texts.sort();
        assert_eq!(
            texts,
            [
                "params.contry: DAG \"sales\" has no such parameter; it has: country, list, n",
                "params.country: has no default, so a value has to be given",
                "params.list.1: 5 is not of type \"string\"",
                "params.list: [\"a\",5] has more than 1 item",
                "params.n: \"3\" is not of type \"integer\"",
            ]
        );
    }

    #[test]
    fn schemas_are_checked() {
        assert!(check_schema(&json!({"type": "integer", "default": 5})).is_ok());
        assert!(check_schema(&json!({"type": "intger"})).is_err());
        assert!(
            check_schema(&json!({"type": "integer", "default": "x"}))
                .unwrap_err()
                .contains("default")
        );
        assert!(check_schema(&json!({"pattern": "("})).is_err());
    }

    #[test]
    fn a_schema_that_leads_to_itself_ends() {
        for schema in [
            json!({"$ref": "#", "default": 5}),
            json!({"allOf": [{"$ref": "#"}], "default": 5}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a", "default": 5}),
            json!({"items": {"$ref": "#"}, "default": [[[]]]}),
        ] {
            let _ = check_schema(&schema);
        }
        assert!(check_schema(&json!({"$ref": "https://example.com/schema.json"})).is_err());
    }

    #[test]
    fn a_hostile_pattern_takes_linear_time() {
        let spec = spec(json!({"p": {"type": "string", "pattern": "^(a+)+$"}}));
        assert!(
            check_params(
                &spec,
                &given(json!({"p": format!("{}!", "a".repeat(50_000))}))
            )
            .is_err()
        );
    }

    #[rstest]
    #[case(json!({"type": "integer"}), "5", json!(5))]
    #[case(json!({"type": "integer"}), "five", json!("five"))]
    #[case(json!({"type": "string"}), "5", json!("5"))]
    #[case(json!({"type": ["string", "null"]}), "null", json!(null))]
    #[case(json!({"type": "boolean"}), "true", json!(true))]
    #[case(json!({"type": "array"}), "[1, 2]", json!([1, 2]))]
    #[case(json!({"enum": ["5", 6]}), "5", json!("5"))]
    #[case(json!({"enum": ["5", 6]}), "6", json!(6))]
    #[case(json!({}), "6", json!(6))]
    #[case(json!({}), "\"6\"", json!("\"6\""))]
    #[case(json!({}), "2026-01-01", json!("2026-01-01"))]
    fn texts_are_typed(#[case] schema: Value, #[case] text: &str, #[case] expected: Value) {
        assert_eq!(type_param(&schema, text), expected);
    }
}
