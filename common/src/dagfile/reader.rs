//! Reads a tree by the grammar's tables into plain, normalised JSON: types checked, shorthands written out, every problem
//! noted with its place.

use super::{
    diagnostic::{Diagnostic, Severity, Spot},
    grammar::{Key, Table, Ty},
    node::{Entry, Mark, Node, Scalar, Style, Tree, short},
    sub_dag::Place,
};
use serde_json::{Map, Value};

mod scalars;
mod schedule;
mod special;

pub(super) use special::is_identifier;

pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    /// Empty for JSON.
    source: &'a str,
    /// Whether places are named by JSON pointers.
    json: bool,
    /// Of dates without an offset.
    pub(super) timezone: chrono_tz::Tz,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Texts that are templates, as they were met; the task reader takes them out.
    pub(super) templates: Vec<Text>,
    /// The files that it composes, and from where they are read.
    pub(super) place: Place<'a>,
    /// Bytes of those files.
    pub(super) composed_bytes: usize,
    path: Vec<String>,
    /// Where in the value being built the next template will stand.
    pointer: Vec<String>,
}

/// What a key of `default_args` is called in messages.
pub(super) const DEFAULT: &str = "default";

/// A template, or expression, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Text {
    /// Within the task's value.
    pub(super) pointer: Vec<String>,
    pub(super) spot: Spot,
    pub(super) style: Style,
    pub(super) role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Template,
    Expression(&'static [&'static str]),
    /// Has to be exactly one `{{ … }}`; `map` is not there yet.
    Expand,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, source: &'a str, json: bool, place: Place<'a>) -> Self {
        Self {
            file,
            source,
            json,
            timezone: chrono_tz::UTC,
            diagnostics: Vec::new(),
            templates: Vec::new(),
            place,
            composed_bytes: 0,
            path: Vec::new(),
            pointer: Vec::new(),
        }
    }

    /// A place, given where in the file it is; the path is the current one.
    pub(super) fn spot(&self, at: Mark) -> Spot {
        let path = if self.json {
            let escaped = self
                .path
                .iter()
                .map(|part| part.replace('~', "~0").replace('/', "~1"));
            escaped.flat_map(|part| ["/".to_owned(), part]).collect()
        } else {
            self.path.join(".")
        };
        Spot {
            line: at.map(|at| at.0),
            column: at.map(|at| at.1),
            path,
        }
    }

    pub(super) fn error(&mut self, at: Mark, message: impl Into<String>) -> &mut Diagnostic {
        let spot = self.spot(at);
        self.error_at(&spot, message)
    }

    pub(super) fn error_at(&mut self, spot: &Spot, message: impl Into<String>) -> &mut Diagnostic {
        let index = self.diagnostics.len();
        self.diagnostics
            .push(Diagnostic::error(self.file, spot, message));
        &mut self.diagnostics[index]
    }

    pub(super) fn warn_at(&mut self, spot: &Spot, message: impl Into<String>) {
        self.error_at(spot, message).severity = Severity::Warning;
    }

    pub(super) fn error_within(&mut self, part: &str, at: Mark, message: impl Into<String>) {
        self.within(part, |reader| {
            reader.error(at, message);
        });
    }

    /// Runs within one step further down.
    pub(super) fn within<T>(&mut self, part: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(part.to_owned());
        let result = f(self);
        self.path.pop();
        result
    }

    /// The same, for a step that also leads down in the value being built.
    fn deeper<T>(&mut self, part: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        self.pointer.push(part.to_owned());
        let result = self.within(part, f);
        self.pointer.pop();
        result
    }

    /// A mapping from which a new value starts: its templates' pointers count from here.
    pub(super) fn fragment(
        &mut self,
        node: &Node,
        table: &'static Table,
    ) -> Option<Map<String, Value>> {
        let outer = std::mem::take(&mut self.pointer);
        let object = self.object(node, table);
        self.pointer = outer;
        object
    }

    /// The entries of a mapping; a problem if it is none.
    pub(super) fn entries<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n [Entry]> {
        match &node.tree {
            Tree::Map(entries) => Some(entries),
            _ => {
                self.mismatch(node, expected);
                None
            }
        }
    }

    pub(super) fn mismatch(&mut self, node: &Node, expected: &str) {
        let message = format!("expected {expected}, found {}", node.found());
        self.error(node.at, message);
    }

    /// A mapping with fixed keys. Keys that have problems are left out; `None` if it is no mapping at all.
    pub(super) fn object(
        &mut self,
        node: &Node,
        table: &'static Table,
    ) -> Option<Map<String, Value>> {
        let mut object = Map::new();
        for entry in self.entries(node, table.name)? {
            self.within(&entry.key, |reader| reader.known(entry, table, "key"));
            let Some(key) = table.key(&entry.key).filter(|key| key.built) else {
                continue;
            };
            if key.nullable && entry.value.is_null() {
                object.insert(entry.key.clone(), Value::Null);
            } else if let Some(value) =
                self.deeper(&entry.key, |reader| reader.value(&entry.value, &key.ty))
            {
                object.insert(entry.key.clone(), value);
            }
        }
        self.complete(node, table);
        Some(object)
    }

    /// Whether a key is one of a table's; if not, or not yet, that is noted.
    pub(super) fn known(&mut self, entry: &Entry, table: &'static Table, what: &str) -> bool {
        let name = &entry.key;
        match table.key(name) {
            Some(key) if key.built => true,
            Some(_) => {
                self.error(entry.at, format!("`{name}` is not built yet (it is part of the format: see docs/dag-format.md)"));
                false
            }
            None => {
                let stands_here = |key: &&Key| key.built && (what != DEFAULT || key.inherited);
                let keys: Vec<&str> = table
                    .keys
                    .iter()
                    .filter(stands_here)
                    .map(|key| key.name)
                    .collect();
                let message = match name.as_str() {
                    "<<" => "merge keys are not part of YAML 1.2; `default_args` gives keys to many tasks".to_owned(),
                    _ => format!("unknown {what} {}", short(name)),
                };
                let diagnostic = self.error(entry.at, message);
                *diagnostic = diagnostic.clone().suggest(name, keys.iter().copied());
                diagnostic.expected = Some(match keys.as_slice() {
                    [] => format!("{} has no keys.", capital(table.name)),
                    keys => format!("Known keys: {}.", keys.join(", ")),
                });
                false
            }
        }
    }

    /// Notes required keys that are missing, and keys that exclude each other.
    fn complete(&mut self, node: &Node, table: &'static Table) {
        let Tree::Map(entries) = &node.tree else {
            return;
        };
        let given = |name: &str| {
            entries
                .iter()
                .find(|entry| entry.key == name && !entry.value.is_null())
        };
        for key in table.keys.iter().filter(|key| key.required && key.built) {
            if !entries.iter().any(|entry| entry.key == key.name) {
                self.error(
                    node.at,
                    format!("{} needs the key `{}`", table.name, key.name),
                )
                .expected = Some(format!("it is {}.", key.ty.expected()));
            }
        }
        for group in table.exclusive {
            let present: Vec<&Entry> = group.iter().filter_map(|name| given(name)).collect();
            if let [first, second, ..] = present.as_slice() {
                let message = format!(
                    "`{}` and `{}` exclude each other: give one",
                    first.key, second.key
                );
                self.error(second.at, message);
            }
        }
    }

    /// A value of a type, normalised; `None` if it has problems, which are noted.
    pub(super) fn value(&mut self, node: &Node, ty: &Ty) -> Option<Value> {
        match ty {
            Ty::List(item) => match &node.tree {
                Tree::Seq(items) => self.list(items, item),
                _ => self.unexpected(node, ty),
            },
            Ty::OneOrMany(item) => match &node.tree {
                Tree::Seq(items) => self.list(items, item),
                _ if node.is_null() => self.unexpected(node, ty),
                _ => self
                    .deeper("0", |reader| reader.value(node, item))
                    .map(|value| Value::Array(vec![value])),
            },
            Ty::Dict(item) => {
                let mut dict = Map::new();
                for entry in self.entries(node, &ty.expected())? {
                    let value = self.deeper(&entry.key, |reader| reader.value(&entry.value, item));
                    dict.insert(entry.key.clone(), value.unwrap_or_default());
                }
                Some(Value::Object(dict))
            }
            Ty::Object(table) => self.object(node, table).map(Value::Object),
            Ty::Short(key, table) => match &node.tree {
                Tree::Map(_) => self.object(node, table).map(Value::Object),
                Tree::Scalar(scalar) if !scalar.value.is_null() => {
                    let ty = table.key(key)?.ty;
                    self.pointer.push((*key).to_owned());
                    let value = self.value(node, &ty);
                    self.pointer.pop();
                    value.map(|value| Value::Object(Map::from_iter([((*key).to_owned(), value)])))
                }
                _ => self.unexpected(node, ty),
            },
            Ty::Json => Some(self.json_value(node)),
            Ty::Params => self.params(node),
            Ty::Expand => self.expand(node),
            Ty::Schedule => self.schedule(node),
            Ty::AssetCondition => self.asset_condition(node),
            Ty::ExpandItems => self.expand_items(node),
            // The DAG and task readers take these apart themselves.
            Ty::Tasks | Ty::DefaultArgs => None,
            _ => self.scalar(node, ty),
        }
    }

    fn list(&mut self, items: &[Node], ty: &Ty) -> Option<Value> {
        let read = |(i, node): (usize, &Node)| {
            self.deeper(&i.to_string(), |reader| reader.value(node, ty))
        };
        let values: Vec<Option<Value>> = items.iter().enumerate().map(read).collect();
        values
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .map(Value::Array)
    }

    fn unexpected(&mut self, node: &Node, ty: &Ty) -> Option<Value> {
        self.mismatch(node, &ty.expected());
        None
    }

    /// Notes that a text is a template, to be checked once all tasks are known.
    fn template(&mut self, at: Mark, scalar: &Scalar, role: Role) {
        let spot = self.spot(at);
        self.templates.push(Text {
            pointer: self.pointer.clone(),
            spot,
            style: scalar.style,
            role,
        });
    }

    /// Where in the file a byte of a text stands.
    pub(super) fn within_text(&self, text: &Text, content: &str, offset: usize) -> Spot {
        let mut spot = text.spot.clone();
        let (Some(line), Some(column)) = (spot.line, spot.column) else {
            return spot;
        };
        let before = content.get(..offset).unwrap_or_default();
        let characters = |text: &str| u32::try_from(text.chars().count()).unwrap_or(0);
        let line_of_text = before.matches('\n').count();
        match text.style {
            Style::Plain if !content.contains('\n') => {
                spot.column = Some(column + characters(before))
            }
            Style::Quoted if !content.contains('\n') => {
                spot.column = Some(column + 1 + characters(before))
            }
            Style::Literal => {
                // The mark is where the content begins; how far a line is indented shows in the file.
                let content_line = content.lines().nth(line_of_text).unwrap_or_default();
                let file_line = (line as usize - 1) + line_of_text;
                let indent = self
                    .source
                    .lines()
                    .nth(file_line)
                    .and_then(|l| l.find(content_line))
                    .unwrap_or(0);
                let in_line = before.rsplit('\n').next().unwrap_or_default();
                spot.line = u32::try_from(file_line + 1).ok();
                spot.column = Some(u32::try_from(indent).unwrap_or(0) + characters(in_line) + 1);
            }
            _ => {}
        }
        spot
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().chain(characters).collect())
        .unwrap_or_default()
}
