//! A tree of values that know where they stand.

use serde_json::Value;
use std::sync::Arc;

/// Levels of nesting that a file may have.
pub(super) const MAX_DEPTH: usize = 64;
/// Values that a file may hold, aliases counted as often as they are used.
pub(super) const MAX_NODES: usize = 100_000;

/// Line and column, 1-based; absent in JSON.
pub(super) type Mark = Option<(u32, u32)>;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) tree: Tree,
}

#[derive(Debug, Clone)]
pub(super) enum Tree {
    Scalar(Scalar),
    // Shared, so that an alias costs nothing until it is read.
    Seq(Arc<Vec<Node>>),
    Map(Arc<Vec<Entry>>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Mark,
    pub(super) value: Node,
}

#[derive(Debug, Clone)]
pub(super) struct Scalar {
    /// As written, quotes and escapes resolved.
    pub(super) text: String,
    /// null, boolean, number or string.
    pub(super) value: Value,
    pub(super) style: Style,
}

/// How a scalar is written: what an offset into its text means in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
    /// `|`: its lines are the file's lines.
    Literal,
    /// Folded, or not from a file of lines.
    Other,
}

impl Node {
    /// What was found, for messages.
    pub(super) fn found(&self) -> String {
        match &self.tree {
            Tree::Seq(_) => "a list".into(),
            Tree::Map(_) => "a mapping".into(),
            Tree::Scalar(scalar) => match &scalar.value {
                Value::Null => "nothing".into(),
                Value::Bool(_) => format!("{} (true or false)", scalar.text),
                Value::Number(_) => format!("the number {}", scalar.text),
                _ => format!("the text {}", short(&scalar.text)),
            },
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.tree, Tree::Scalar(scalar) if scalar.value.is_null())
    }

    /// As plain JSON. A key that stands twice has been refused before.
    pub(super) fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Scalar(scalar) => scalar.value.clone(),
            Tree::Seq(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Tree::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// A text for a message: quoted, and cut where it gets long.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
        None => format!("{text:?}"),
    }
}
