//! Connections and variables that come from a process's environment or from files instead of the database.
//!
//! They are looked up where they are used, by the worker that runs a task: they never reach the database, the broker or a
//! message. The API looks the same way, to list their names. In order: the environment, the folder, the file; what none of
//! them has is the database's.

mod connection;
mod file;

use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// A folder with `connections/ID` and `variables/KEY`, such as mounted secrets.
pub const FOLDER_VARIABLE: &str = "GRISTMILL_SECRETS_DIR";
/// A file of connections and variables: `.env`, `.json`, `.yaml` or `.yml`.
pub const FILE_VARIABLE: &str = "GRISTMILL_SECRETS_FILE";
/// Bytes of a file at most.
const LARGEST: u64 = 1 << 20;
/// Names of variables of the environment begin so; then the id or key follows in capitals.
const CONNECTIONS: [&str; 2] = ["GRISTMILL_CONN_", "AIRFLOW_CONN_"];
const VARIABLES: [&str; 2] = ["GRISTMILL_VAR_", "AIRFLOW_VAR_"];

/// A connection as the deployment keeps it: `conn_type`, `host`, `login`, `password`, `port`, `schema` and `extra`.
pub type Connection = Map<String, Value>;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Connection,
    Variable,
}

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Environment,
    Folder,
    File,
}

impl Source {
    /// As the API and the command line show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Folder => "folder",
            Self::File => "file",
        }
    }
}

/// Why something that is there cannot be used. No message repeats a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{place} cannot be read: {source}")]
    Unreadable { place: String, source: io::Error },
    #[error("{place} has {size} bytes; it may have {LARGEST}")]
    TooLarge { place: String, size: u64 },
    #[error("{place} is no text (UTF-8)")]
    NoText { place: String },
    #[error("{place}: {problem}")]
    Malformed { place: String, problem: String },
}

/// Where to look, in this order.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    /// The environment's variables that may matter, by name.
    environment: BTreeMap<String, OsString>,
    folder: Option<PathBuf>,
    file: Option<PathBuf>,
}

impl Backends {
    /// As this process's environment says.
    pub fn from_env() -> Self {
        Self::new(std::env::vars_os())
    }

    /// As an environment says.
    pub fn new(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut backends = Self::default();
        for (name, value) in environment {
            let Some(name) = name.to_str() else { continue };
            let path = || Some(PathBuf::from(&value)).filter(|path| !path.as_os_str().is_empty());
            let prefixes = CONNECTIONS.iter().chain(&VARIABLES);
            match name {
                FOLDER_VARIABLE => backends.folder = path(),
                FILE_VARIABLE => backends.file = path(),
                name if prefixes.clone().any(|prefix| name.starts_with(prefix)) => {
                    backends.environment.insert(name.to_owned(), value);
                }
                _ => {}
            }
        }
        backends
    }

    /// Whether nothing can be found at all.
    pub fn is_empty(&self) -> bool {
        self.environment.is_empty() && self.folder.is_none() && self.file.is_none()
    }

    /// The connection of this id.
    pub fn connection(&self, id: &str) -> Result<Option<(Connection, Source)>, SecretError> {
        let Some((text, source, place)) = self.find(Kind::Connection, id)? else {
            return Ok(None);
        };
        let connection = match text {
            Value::Object(fields) => connection::of_fields(fields),
            Value::String(text) => connection::of_text(&text),
            _ => Err("it is neither a URI nor a mapping".to_owned()),
        };
        let connection = connection.map_err(|problem| SecretError::Malformed { place, problem })?;
        Ok(Some((connection, source)))
    }

    /// A variable's text; what a file has as a mapping or list is its JSON.
    pub fn variable(&self, key: &str) -> Result<Option<(String, Source)>, SecretError> {
        let found = self.find(Kind::Variable, key)?;
        Ok(found.map(|(value, source, _)| match value {
            Value::String(text) => (text, source),
            other => (other.to_string(), source),
        }))
    }

    /// Every name there is, with where it comes from. Of the environment only capitals are known: they are given in small
    /// letters.
    pub fn names(&self, kind: Kind) -> Result<BTreeMap<String, Source>, SecretError> {
        let mut names = BTreeMap::new();
        if let Some(file) = &self.file {
            let all = file::read(file)?;
            names.extend(all.of(kind).keys().map(|name| (name.clone(), Source::File)));
        }
        if let Some(folder) = &self.folder {
            names.extend(listed(&folder.join(folder_of(kind)))?.map(|name| (name, Source::Folder)));
        }
        for name in self.environment.keys() {
            let rest = prefixes(kind)
                .into_iter()
                .find_map(|prefix| name.strip_prefix(prefix));
            if let Some(rest) = rest {
                names.insert(rest.to_ascii_lowercase(), Source::Environment);
            }
        }
        Ok(names)
    }

    /// What stands for a name: its value, where it was found, and that place's name for messages.
    fn find(&self, kind: Kind, name: &str) -> Result<Option<(Value, Source, String)>, SecretError> {
        let capitals: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        for prefix in prefixes(kind) {
            let variable = format!("{prefix}{capitals}");
            if let Some(value) = self.environment.get(&variable) {
                let Some(text) = value.to_str() else {
                    return Err(SecretError::NoText { place: variable });
                };
                return Ok(Some((Value::from(text), Source::Environment, variable)));
            }
        }
        // A name with a slash would leave the folder; none may have one.
        let in_folder = gristmill_common::ids::valid_name(name) && !name.starts_with('.');
        if let Some(folder) = self.folder.as_ref().filter(|_| in_folder) {
            let path = folder.join(folder_of(kind)).join(name);
            if let Some(text) = text_of(&path)? {
                // Editors and `echo` end files with a line break that is not meant.
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                let place = path.display().to_string();
                return Ok(Some((Value::from(text), Source::Folder, place)));
            }
        }
        if let Some(file) = &self.file {
            let all = file::read(file)?;
            if let Some(value) = all.of(kind).get(name) {
                let place = format!("{name:?} in {}", file.display());
                return Ok(Some((value.clone(), Source::File, place)));
            }
        }
        Ok(None)
    }
}

const fn prefixes(kind: Kind) -> [&'static str; 2] {
    match kind {
        Kind::Connection => CONNECTIONS,
        Kind::Variable => VARIABLES,
    }
}

const fn folder_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Connection => "connections",
        Kind::Variable => "variables",
    }
}

/// Names of the files in a folder; none if it is not there. Hidden ones are how mounted secrets are exchanged.
fn listed(folder: &Path) -> Result<impl Iterator<Item = String>, SecretError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => {
            return Err(SecretError::Unreadable {
                place: folder.display().to_string(),
                source,
            });
        }
    };
    Ok(entries
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.')))
}

/// A file's text; `None` if there is no such file.
fn text_of(path: &Path) -> Result<Option<String>, SecretError> {
    let place = || path.display().to_string();
    let size = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(SecretError::Unreadable {
                place: place(),
                source,
            });
        }
    };
    if size > LARGEST {
        return Err(SecretError::TooLarge {
            place: place(),
            size,
        });
    }
    let bytes = fs::read(path).map_err(|source| SecretError::Unreadable {
        place: place(),
        source,
    })?;
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NoText { place: place() })?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests;
