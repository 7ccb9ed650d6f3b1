//! A file of connections and variables.

use super::{CONNECTIONS, Kind, SecretError, VARIABLES, text_of};
use gristmill_common::dagfile;
use serde_json::{Map, Value};
use std::path::Path;

/// What a file has, by name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Content {
    connections: Map<String, Value>,
    variables: Map<String, Value>,
}

impl Content {
    pub(crate) fn of(&self, kind: Kind) -> &Map<String, Value> {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Variable => &self.variables,
        }
    }
}

/// Reads a file, each time anew: secrets are exchanged while processes run.
pub(crate) fn read(path: &Path) -> Result<Content, SecretError> {
    let place = || path.display().to_string();
    let malformed = |problem: &str| SecretError::Malformed {
        place: place(),
        problem: problem.to_owned(),
    };
    let text = text_of(path)?.ok_or_else(|| SecretError::Unreadable {
        place: place(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let value = match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "env" => return lines(&text).map_err(|problem| malformed(&problem)),
        // A parser's own message may show a part of the text.
        "json" => serde_json::from_str(&text).map_err(|_| malformed("it is no JSON"))?,
        "yaml" | "yml" => dagfile::plain_value(&text)
            .map_err(|line| malformed(&format!("it is no YAML, look at line {line}")))?,
        _ => {
            return Err(malformed(
                "its name has to end in .env, .json, .yaml or .yml",
            ));
        }
    };
    let form = "it has to be a mapping with `connections` and `variables`, each a mapping of names";
    let Value::Object(mut parts) = value else {
        return Err(malformed(form));
    };
    let mut part = |name: &str| match parts.remove(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(all)) => Ok(all),
        Some(_) => Err(malformed(form)),
    };
    let content = Content {
        connections: part("connections")?,
        variables: part("variables")?,
    };
    match parts.keys().next() {
        None => Ok(content),
        Some(_) => Err(malformed(form)),
    }
}

/// `NAME=VALUE` lines with the names that the environment's variables have. Names become small letters.
fn lines(text: &str) -> Result<Content, String> {
    let mut content = Content::default();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = i + 1;
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| format!("line {at} is not of the form NAME=VALUE"))?;
        let value = value.trim();
        let quoted = ['"', '\'']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        let value = Value::from(quoted.unwrap_or(value));
        let name = name.trim();
        let after = |prefixes: [&str; 2]| {
            let rest = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
            rest.map(str::to_ascii_lowercase)
        };
        if let Some(id) = after(CONNECTIONS) {
            content.connections.insert(id, value);
        } else if let Some(key) = after(VARIABLES) {
            content.variables.insert(key, value);
        } else {
            return Err(format!(
                "line {at} names neither GRISTMILL_CONN_… nor GRISTMILL_VAR_…"
            ));
        }
    }
    Ok(content)
}
