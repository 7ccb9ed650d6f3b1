//! The `data:` map of a DAG file, after templates were rendered.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

const GIB: u64 = 1 << 30;
/// A partition's size when the spec says nothing.
pub const DEFAULT_TARGET: u64 = 128 << 20;
/// The most partitions a plan makes when the spec says nothing.
pub const DEFAULT_MAX_PARTITIONS: usize = 1000;
/// The table that `reduce_sql` reads.
pub const PARTS_TABLE: &str = "parts";

/// What a data task does. Read with [`DataSpec::parse`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataSpec {
    /// Tables by name.
    pub sources: BTreeMap<String, Source>,
    /// How the partition source is cut.
    pub partitions: Partitions,
    /// The source that is cut; the largest one that is not broadcast if absent.
    pub partition_source: Option<String>,
    /// Runs once per partition.
    pub map_sql: String,
    /// Runs once, over all partitions' outputs as the table `parts`.
    pub reduce_sql: Option<String>,
    /// Where the result goes; without it the rows are returned.
    pub sink: Option<Sink>,
    /// Limits of each process.
    pub resources: Resources,
}

/// Files of one format that make up one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// How the files are read.
    pub format: SourceFormat,
    /// A file, a folder (ending in `/`) or a glob: `s3://bucket/key`, `file:///path`, `/path`, or relative to the bundle.
    pub path: String,
    /// CSV: the first line of each file holds the column names.
    #[serde(default = "yes")]
    pub header: bool,
    /// CSV: one ASCII character.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// CSV: one ASCII character.
    #[serde(default = "quote")]
    pub quote: char,
    /// CSV: whether a quoted value may hold a line break. `false` lets a file be cut without reading it first.
    #[serde(default)]
    pub newlines_in_values: Option<bool>,
    /// SQL types by column. For CSV without a header: all columns, in order; otherwise those not to be inferred.
    #[serde(default)]
    pub schema: Option<serde_json::Map<String, Value>>,
    /// Never cut this source; every partition reads it whole.
    #[serde(default)]
    pub broadcast: bool,
    /// CSV and JSON; by the ending of `path` if absent.
    #[serde(default)]
    pub compression: Option<Compression>,
}

/// The format of a source's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    /// Apache Parquet.
    Parquet,
    /// Delimited text.
    Csv,
    /// One JSON object per line.
    Json,
}

/// The compression of a text file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Plain text.
    None,
    /// `.gz`
    Gzip,
    /// `.bz2`
    Bzip2,
    /// `.xz`
    Xz,
    /// `.zst`
    Zstd,
}

/// How many partitions, and where they may be cut. Without `n` and `target`, `by: file` makes one per file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partitions {
    /// Wanted bytes per partition (128 MiB).
    #[serde(default)]
    pub target: Option<ByteSize>,
    /// Wanted number of partitions.
    #[serde(default)]
    pub n: Option<usize>,
    /// Where cuts may be made (range).
    #[serde(default)]
    pub by: CutBy,
    /// The most partitions to make (1000).
    #[serde(default)]
    pub max: Option<usize>,
}

/// Where cuts may be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutBy {
    /// Between files only.
    File,
    /// Between row groups or lines where the format allows, else between files.
    #[default]
    Range,
}

/// Where the result is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// The format of the published files.
    pub format: SinkFormat,
    /// A folder: `s3://bucket/prefix`, `file:///path` or `/path`.
    pub path: String,
    /// What happens to files that are there already.
    #[serde(default)]
    pub mode: SinkMode,
}

/// The format of published files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkFormat {
    /// Apache Parquet, zstd.
    Parquet,
    /// Comma-separated, with a header in each file.
    Csv,
}

impl SinkFormat {
    /// The ending of published files, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// What happens to data that the sink's folder holds already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkMode {
    /// Removed once the new files are published.
    #[default]
    Overwrite,
    /// Kept.
    Append,
    /// The commit fails.
    ErrorIfExists,
}

/// Limits of one process of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Bytes the query's operators may hold before they spill.
    pub memory: ByteSize,
    /// Bytes of spill files on local disk.
    pub spill: ByteSize,
    /// Threads, and partitions of the query within the process.
    pub cpus: usize,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            memory: ByteSize(GIB),
            spill: ByteSize(20 * GIB),
            cpus: 1,
        }
    }
}

fn yes() -> bool {
    true
}

fn comma() -> char {
    ','
}

fn quote() -> char {
    '"'
}

/// A number of bytes: in JSON an integer or a string such as `128MiB`, `1.5 GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ByteSize(pub u64);

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            _ => {
                return Err(format!(
                    "size {text:?} has an unknown unit, expected e.g. 128MiB or 2GB"
                ));
            }
        };
        match number.parse::<f64>() {
            Ok(number) => Ok(Self((number * factor as f64) as u64)),
            Err(_) => Err(format!(
                "size {text:?} does not start with a number, expected e.g. 128MiB"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected bytes as an integer or a string such as 128MiB"
        )]
        enum Raw {
            Number(u64),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Number(n) => Ok(Self(n)),
            Raw::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// The outer level, so that an error inside can be told with the place it is at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    sources: serde_json::Map<String, Value>,
    partitions: Option<Value>,
    partition_source: Option<String>,
    map_sql: String,
    reduce_sql: Option<String>,
    sink: Option<Value>,
    resources: Option<Value>,
}

impl DataSpec {
    /// Reads and checks a spec; the error names the place.
    pub fn parse(value: Value) -> Result<Self> {
        let raw: RawSpec = section("data", value)?;
        let mut sources = BTreeMap::new();
        for (name, source) in raw.sources {
            let place = format!("sources.{name}");
            let source: Source = section(&place, source)?;
            source.check().map_err(|e| e.context(&place))?;
            check_name(&name)?;
            sources.insert(name, source);
        }
        let spec = Self {
            sources,
            partitions: optional("partitions", raw.partitions)?.unwrap_or_default(),
            partition_source: raw.partition_source,
            map_sql: raw.map_sql,
            reduce_sql: raw.reduce_sql,
            sink: optional("sink", raw.sink)?,
            resources: optional("resources", raw.resources)?.unwrap_or_default(),
        };
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<()> {
        if self.sources.is_empty() {
            return Err(Error::spec("sources: at least one source is needed"));
        }
        if let Some(name) = &self.partition_source {
            match self.sources.get(name) {
                None => {
                    let known: Vec<_> = self.sources.keys().map(String::as_str).collect();
                    return Err(Error::spec(format!(
                        "partition_source: there is no source {name:?}, only {}",
                        known.join(", ")
                    )));
                }
                Some(source) if source.broadcast => {
                    return Err(Error::spec(format!(
                        "partition_source: {name:?} is marked broadcast; only one of the two can be"
                    )));
                }
                Some(_) => {}
            }
        } else if self.sources.values().all(|s| s.broadcast) {
            return Err(Error::spec(
                "sources: all are broadcast, so none is left to be cut into partitions",
            ));
        }
        let Partitions { target, n, max, .. } = &self.partitions;
        if target.is_some() && n.is_some() {
            return Err(Error::spec("partitions: give target or n, not both"));
        }
        if *n == Some(0) || *max == Some(0) || *target == Some(ByteSize(0)) {
            return Err(Error::spec(
                "partitions: target, n and max must be at least 1",
            ));
        }
        if self.resources.cpus == 0 || self.resources.cpus > 1024 {
            return Err(Error::spec("resources.cpus: must be between 1 and 1024"));
        }
        if self.resources.memory.0 < 16 << 20 {
            return Err(Error::spec("resources.memory: must be at least 16MiB"));
        }
        if let Some(sink) = &self.sink {
            if !(sink.path.starts_with('/') || sink.path.contains("://")) {
                return Err(Error::spec(format!(
                    "sink.path: {:?} is relative, but the bundle is read-only; use s3://, file:/// or an absolute path",
                    sink.path
                )));
            }
            if sink.path.contains(['*', '?', '[']) {
                return Err(Error::spec(format!(
                    "sink.path: {:?} must name a folder, not a pattern",
                    sink.path
                )));
            }
        }
        Ok(())
    }
}

impl Source {
    /// How the files are compressed.
    pub fn compression(&self) -> Compression {
        if self.format == SourceFormat::Parquet {
            return Compression::None;
        }
        self.compression
            .unwrap_or_else(|| match self.path.rsplit_once('.') {
                Some((_, "gz")) => Compression::Gzip,
                Some((_, "bz2")) => Compression::Bzip2,
                Some((_, "xz")) => Compression::Xz,
                Some((_, "zst")) => Compression::Zstd,
                _ => Compression::None,
            })
    }

    fn check(&self) -> Result<()> {
        for (key, c) in [("delimiter", self.delimiter), ("quote", self.quote)] {
            if !c.is_ascii() || c == '\n' || c == '\r' {
                return Err(Error::spec(format!(
                    "{key}: {c:?} must be one ASCII character"
                )));
            }
        }
        if self.format == SourceFormat::Parquet
            && self.compression.is_some_and(|c| c != Compression::None)
        {
            return Err(Error::spec(
                "compression: parquet files carry their own, leave it out",
            ));
        }
        if self.format == SourceFormat::Csv && !self.header && self.schema.is_none() {
            return Err(Error::spec(
                "schema: needed for csv without a header, e.g. {id: bigint, name: text}",
            ));
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<()> {
    let mut chars = name.chars();
    let good = chars
        .next()
        .is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !good {
        return Err(Error::spec(format!(
            "sources: {name:?} is not a table name; use lower-case letters, digits and _"
        )));
    }
    if name == PARTS_TABLE {
        return Err(Error::spec(
            "sources: the name \"parts\" is the table reduce_sql reads; use another",
        ));
    }
    Ok(())
}

fn section<T: DeserializeOwned>(place: &str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Error::spec(format!("{place}: {e}")))
}

fn optional<T: DeserializeOwned>(place: &str, value: Option<Value>) -> Result<Option<T>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => section(place, value).map(Some),
    }
}
