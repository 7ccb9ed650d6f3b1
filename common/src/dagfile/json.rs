//! A JSON value as a tree; the way to a value is its place.

use super::{
    diagnostic::{Diagnostic, Spot},
    node::{Entry, MAX_DEPTH, MAX_NODES, Node, Scalar, Style, Tree},
};
use serde_json::Value;
use std::sync::Arc;

pub(super) fn load(file: &str, value: &Value) -> Result<Node, Box<Diagnostic>> {
    let mut nodes = 0;
    node(value, 0, &mut nodes)
        .map_err(|message| Box::new(Diagnostic::error(file, &Spot::default(), message)))
}

fn node(value: &Value, depth: usize, nodes: &mut usize) -> Result<Node, String> {
    *nodes += 1;
    if *nodes > MAX_NODES {
        return Err(format!("the DAG holds more than {MAX_NODES} values"));
    }
    if depth > MAX_DEPTH {
        return Err(format!(
            "the DAG is nested more than {MAX_DEPTH} levels deep"
        ));
    }
    let tree = match value {
        Value::Array(items) => {
            let items = items
                .iter()
                .map(|item| node(item, depth + 1, nodes))
                .collect::<Result<_, _>>()?;
            Tree::Seq(Arc::new(items))
        }
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| -> Result<Entry, String> {
                Ok(Entry {
                    key: key.clone(),
                    at: None,
                    value: node(value, depth + 1, nodes)?,
                })
            };
            Tree::Map(Arc::new(map.iter().map(entry).collect::<Result<_, _>>()?))
        }
        scalar => {
            let text = scalar
                .as_str()
                .map_or_else(|| scalar.to_string(), str::to_owned);
            Tree::Scalar(Scalar {
                text,
                value: scalar.clone(),
                style: Style::Other,
            })
        }
    };
    Ok(Node { at: None, tree })
}
