//! The `data` task: `ID.plan`, `ID.part` (mapped over the plan's partitions), `ID.commit`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// One phase of a partitioned data task. All three phases carry the whole specification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataTask {
    pub phase: DataPhase,
    /// Table name to source.
    pub sources: BTreeMap<String, DataSource>,
    /// The source that is cut into partitions; absent: the largest one that is not `broadcast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_source: Option<String>,
    #[serde(default)]
    pub partitions: DataPartitions,
    /// Template. Runs on each partition.
    pub map_sql: String,
    /// Template. Runs once over the table `parts`, the outputs of all partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce_sql: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<DataSink>,
    #[serde(default)]
    pub resources: DataResources,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataPhase {
    Plan,
    Part,
    Commit,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    pub format: DataFormat,
    /// Template. `s3://…`, `file:///…` or a path relative to the bundle; may hold a glob.
    pub path: String,
    /// csv: the first line names the columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// Column name to SQL type, in the order of the file's columns; absent: inferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Map<String, Value>>,
    /// Read whole by every partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<bool>,
    /// `none`, `gzip`, `zstd`, `bzip2`, `xz`; absent: by the file's ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// csv: whether a quoted value may hold a line break. Unless it is false the plan reads the files to find where
    /// records begin before it cuts them by byte range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newlines_in_values: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    Parquet,
    Csv,
    Json,
}

/// How the partitioned source is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPartitions {
    /// Bytes per partition, about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u64>,
    /// Number of partitions; excludes `target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<SplitBy>,
    /// Upper bound on the number of partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    File,
    Range,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSink {
    pub format: DataFormat,
    /// Template.
    pub path: String,
    #[serde(default)]
    pub mode: SinkMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkMode {
    #[default]
    Overwrite,
    Append,
    ErrorIfExists,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataResources {
    /// Bytes; absent: 1 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes of spill files; absent: 20 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spill: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
}
