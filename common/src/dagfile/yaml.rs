//! YAML 1.2 as a tree, by the core schema: `true`, `null`, numbers; `on`, `no`, `yes` and dates are texts.

use super::{
    diagnostic::{Diagnostic, Spot},
    node::{Entry, MAX_DEPTH, MAX_NODES, Mark, Node, Scalar, Style, Tree, short},
};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Number, Value};
use std::{borrow::Cow, collections::HashMap, sync::Arc};

/// The one document of a file. Duplicate keys and bad tags are all reported; a syntax error ends the reading.
pub(super) fn load(file: &str, text: &str) -> Result<Node, Vec<Diagnostic>> {
    let mut builder = Builder {
        file,
        ..Builder::default()
    };
    for event in Parser::new_from_str(text) {
        let done = match event {
            Ok((event, span)) => builder.event(event, span.start),
            Err(error) => {
                let message = format!("this is not YAML: {}", error.info());
                Err(Box::new(builder.problem(*error.marker(), message)))
            }
        };
        if let Err(fatal) = done {
            builder.problems.push(*fatal);
            return Err(builder.problems);
        }
    }
    match builder.document {
        _ if !builder.problems.is_empty() => Err(builder.problems),
        Some(document) if !document.is_null() => Ok(document),
        _ => Err(vec![
            Diagnostic::error(file, &Spot::default(), "the file is empty")
                .expected("expected a DAG: at least dag_id and tasks"),
        ]),
    }
}

#[derive(Debug, Default)]
struct Builder<'a> {
    file: &'a str,
    open: Vec<Open>,
    document: Option<Node>,
    documents: usize,
    /// Finished nodes that have an anchor, with the number of values in them.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    problems: Vec<Diagnostic>,
}

/// A list or mapping that has begun.
#[derive(Debug)]
struct Open {
    at: Mark,
    anchor: usize,
    /// [`Builder::nodes`] when it began.
    nodes_before: usize,
    items: Items,
}

#[derive(Debug)]
enum Items {
    Seq(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        key: Option<(String, Mark)>,
        lines: HashMap<String, Mark>,
    },
}

fn mark(marker: Marker) -> Mark {
    let position = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some((position(marker.line()), position(marker.col() + 1)))
}

impl Builder<'_> {
    fn problem(&self, marker: Marker, message: impl Into<String>) -> Diagnostic {
        self.problem_at(mark(marker), message)
    }

    fn fatal(&self, marker: Marker, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(self.problem(marker, message))
    }

    fn fatal_at(&self, at: Mark, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(self.problem_at(at, message))
    }

    fn problem_at(&self, at: Mark, message: impl Into<String>) -> Diagnostic {
        let mut path = String::new();
        for open in &self.open {
            if let Items::Map {
                key: Some((key, _)),
                ..
            } = &open.items
            {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
        }
        let spot = Spot {
            line: at.map(|at| at.0),
            column: at.map(|at| at.1),
            path,
        };
        Diagnostic::error(self.file, &spot, message)
    }

    fn event(&mut self, event: Event<'_>, start: Marker) -> Result<(), Box<Diagnostic>> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(
                        self.fatal(start, "a second document begins here; a file holds one DAG")
                    );
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tree = Tree::Scalar(self.scalar(text, style, tag.as_deref(), start));
                self.count(1, start)?;
                self.finish(
                    Node {
                        at: mark(start),
                        tree,
                    },
                    anchor,
                    1,
                )?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), start);
                self.begin(start, anchor, Items::Seq(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), start);
                self.begin(
                    start,
                    anchor,
                    Items::Map {
                        entries: Vec::new(),
                        key: None,
                        lines: HashMap::new(),
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open {
                    at,
                    anchor,
                    nodes_before,
                    items,
                }) = self.open.pop()
                {
                    let tree = match items {
                        Items::Seq(items) => Tree::Seq(Arc::new(items)),
                        Items::Map { entries, .. } => Tree::Map(Arc::new(entries)),
                    };
                    let size = self.nodes - nodes_before;
                    self.finish(Node { at, tree }, anchor, size)?;
                }
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, size)) => {
                    let (node, size) = (node.clone(), *size);
                    self.count(size, start)?;
                    self.finish(node, 0, size)?;
                }
                None => {
                    return Err(self.fatal(start, "this alias stands within what it refers to"));
                }
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, start: Marker) -> Result<(), Box<Diagnostic>> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!(
                "the file holds more than {MAX_NODES} values, aliases counted as often as they are used"
            );
            return Err(self.fatal(start, message));
        }
        Ok(())
    }

    fn begin(&mut self, start: Marker, anchor: usize, items: Items) -> Result<(), Box<Diagnostic>> {
        if self.open.len() >= MAX_DEPTH {
            // The path to it would fill the screen.
            self.open.clear();
            return Err(self.fatal(
                start,
                format!("the file is nested more than {MAX_DEPTH} levels deep"),
            ));
        }
        let nodes_before = self.nodes;
        self.count(1, start)?;
        self.open.push(Open {
            at: mark(start),
            anchor,
            nodes_before,
            items,
        });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Box<Diagnostic>> {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let mut twice = None;
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.document = Some(node),
            Some(Items::Seq(items)) => items.push(node),
            Some(Items::Map {
                entries,
                key,
                lines,
            }) => match key.take() {
                None => {
                    let at = node.at;
                    let Tree::Scalar(scalar) = node.tree else {
                        return Err(
                            self.fatal_at(at, "a key has to be a text, not a list or mapping")
                        );
                    };
                    if let Some(first) = lines.insert(scalar.text.clone(), at) {
                        twice = Some((at, scalar.text.clone(), first));
                    }
                    *key = Some((scalar.text, at));
                }
                Some((key, at)) => entries.push(Entry {
                    key,
                    at,
                    value: node,
                }),
            },
        }
        if let Some((at, key, first)) = twice {
            let line = first.map_or(0, |(line, _)| line);
            let problem = self.problem_at(
                at,
                format!(
                    "the key {} stands here twice; first in line {line}",
                    short(&key)
                ),
            );
            self.problems.push(problem);
        }
        Ok(())
    }

    fn no_tag(&mut self, tag: Option<&Tag>, start: Marker) {
        if let Some(tag) =
            tag.filter(|tag| !(tag.is_yaml_core_schema() && matches!(&*tag.suffix, "map" | "seq")))
        {
            let problem = self.problem(start, format!("the tag {tag} has no meaning here"));
            self.problems.push(problem);
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        start: Marker,
    ) -> Scalar {
        let plain = style == ScalarStyle::Plain;
        let core = |tag: &Tag| tag.is_yaml_core_schema();
        let value = match tag {
            Some(tag) if core(tag) && tag.suffix == "str" => Value::String(text.to_string()),
            Some(tag) if core(tag) && matches!(&*tag.suffix, "int" | "float" | "bool" | "null") => {
                resolve(&text)
            }
            None if plain => resolve(&text),
            None => Value::String(text.to_string()),
            Some(tag) => {
                let problem = self.problem(start, format!("the tag {tag} has no meaning here"));
                self.problems.push(problem);
                Value::String(text.to_string())
            }
        };
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal => Style::Literal,
            ScalarStyle::Folded => Style::Other,
        };
        Scalar {
            text: text.into_owned(),
            value,
            style,
        }
    }
}

/// A plain scalar by YAML 1.2's core schema.
fn resolve(text: &str) -> Value {
    let digits = |digits: &str, radix| i64::from_str_radix(digits, radix).ok().map(Value::from);
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let number = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(hex), _) => digits(hex, 16),
        (_, Some(octal)) => digits(octal, 8),
        _ if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') => None,
        _ if unsigned.bytes().all(|b| b.is_ascii_digit()) => {
            let signed = text.strip_prefix('+').unwrap_or(text);
            signed
                .parse::<i64>()
                .map(Value::from)
                .or_else(|_| signed.parse::<u64>().map(Value::from))
                .ok()
        }
        // Rust's own parser takes a little more than the core schema does: words, which the first character excludes.
        _ => text
            .parse::<f64>()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number),
    };
    number.unwrap_or_else(|| Value::String(text.to_owned()))
}
