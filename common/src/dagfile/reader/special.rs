//! Values with rules of their own: parameters, map variables, JSON with templates in it.

use super::{Reader, Role};
use crate::{
    dagfile::{
        grammar::Ty,
        node::{Entry, Node, Tree},
    },
    params::check_schema,
    template::is_template,
};
use serde_json::{Map, Value, json};

impl Reader<'_> {
    /// Each parameter's schema. A value that is no mapping is a default, and its type the parameter's.
    pub(super) fn params(&mut self, node: &Node) -> Option<Value> {
        let mut params = Map::new();
        for entry in self.entries(node, &Ty::Params.expected())? {
            let value = entry.value.to_json();
            let schema = match &value {
                Value::Object(_) => value,
                Value::String(_) => json!({"type": "string", "default": value}),
                Value::Bool(_) => json!({"type": "boolean", "default": value}),
                Value::Number(n) if n.is_f64() => json!({"type": "number", "default": value}),
                Value::Number(_) => json!({"type": "integer", "default": value}),
                Value::Array(_) => json!({"type": "array", "default": value}),
                Value::Null => json!({"default": null}),
            };
            self.within(&entry.key, |reader| {
                if !is_identifier(&entry.key) {
                    reader.error(entry.at, "a parameter's name is letters, digits and `_`, and does not start with a digit");
                }
                if let Err(problem) = check_schema(&schema) {
                    reader.error(entry.value.at, format!("this is no JSON Schema that works: {problem}"));
                }
            });
            params.insert(entry.key.clone(), schema);
        }
        Some(Value::Object(params))
    }

    pub(super) fn expand(&mut self, node: &Node) -> Option<Value> {
        let entries = self.entries(node, &Ty::Expand.expected())?;
        if entries.is_empty() {
            self.error(node.at, "at least one map variable is needed");
        }
        let mut sources = Map::new();
        for entry in entries {
            let source = self.deeper(&entry.key, |reader| {
                reader.map_variable(entry);
                match &entry.value.tree {
                    Tree::Seq(_) => Some(entry.value.to_json()),
                    Tree::Scalar(scalar) if scalar.value.is_string() && is_template(&scalar.text) => {
                        reader.template(entry.value.at, scalar, Role::Expand);
                        Some(json!(scalar.text))
                    }
                    _ => {
                        let expected = "a list, or a template of one such as \"{{ ti.xcom_pull('list_files') }}\"";
                        reader.mismatch(&entry.value, expected);
                        None
                    }
                }
            });
            sources.insert(entry.key.clone(), source.unwrap_or_default());
        }
        Some(Value::Object(sources))
    }

    fn map_variable(&mut self, entry: &Entry) {
        if !is_identifier(&entry.key) {
            let message =
                "a map variable's name is letters, digits and `_`, and does not start with a digit";
            self.error(entry.at, message);
        }
    }

    /// A list of mappings of map variables, or a template of one.
    pub(super) fn expand_items(&mut self, node: &Node) -> Option<Value> {
        match &node.tree {
            Tree::Seq(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.within(&i.to_string(), |reader| {
                        let expected = "a mapping of map variables such as {region: eu, size: 2}";
                        for entry in reader.entries(item, expected).unwrap_or_default() {
                            reader.within(&entry.key, |reader| reader.map_variable(entry));
                        }
                    });
                }
                Some(node.to_json())
            }
            Tree::Scalar(scalar) if scalar.value.is_string() && is_template(&scalar.text) => {
                self.template(node.at, scalar, Role::Expand);
                Some(json!(scalar.text))
            }
            _ => self.unexpected(node, &Ty::ExpandItems),
        }
    }

    /// JSON in which texts are templates.
    pub(super) fn json_value(&mut self, node: &Node) -> Value {
        match &node.tree {
            Tree::Scalar(scalar) => {
                if scalar.value.is_string() {
                    self.template(node.at, scalar, Role::Template);
                }
                scalar.value.clone()
            }
            Tree::Seq(items) => {
                let read = |(i, item): (usize, &Node)| {
                    self.deeper(&i.to_string(), |reader| reader.json_value(item))
                };
                Value::Array(items.iter().enumerate().map(read).collect())
            }
            Tree::Map(entries) => {
                let mut object = Map::new();
                for entry in entries.iter() {
                    let value = self.deeper(&entry.key, |reader| reader.json_value(&entry.value));
                    object.insert(entry.key.clone(), value);
                }
                Value::Object(object)
            }
        }
    }
}

pub(in crate::dagfile) fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
