//! The JSON that goes in and out of each phase, and between phases through the work folder.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ErrorKind;
use crate::spec::DataSpec;

/// Lists longer than this go into a file of the work folder, so that results stay a few KB.
pub const MAX_INLINE_FILES: usize = 16;

/// What `plan` is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// A [`DataSpec`], read apart so that its errors are the user's.
    pub spec: Value,
    /// URL of this attempt's folder.
    pub work_dir: String,
}

/// What `plan` answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanResult {
    /// URL of the [`Plan`].
    pub plan: String,
    /// What the part task is mapped over; never empty.
    pub partitions: Vec<Partition>,
    /// The source that was cut.
    pub partition_source: String,
    /// Bytes of all its files.
    pub total_bytes: u64,
    /// The columns `map_sql` yields.
    pub map_schema: Vec<Column>,
    /// What the user should look at.
    pub warnings: Vec<String>,
}

/// One partition: the element that the part task of this index gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Partition {
    /// 0-based.
    pub index: usize,
    /// URL of the [`Plan`].
    pub plan: String,
    /// Bytes of all slices.
    pub bytes: u64,
    /// The slices.
    #[serde(flatten)]
    pub files: Files<Slice>,
}

/// A byte range of a file, of the rows that start in it. Ranges of a file tile it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// As listed: `s3://…`, `file:///…`, or relative to the bundle.
    pub url: String,
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// The store's version tag at planning, if the file is the same object for all workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e_tag: Option<String>,
}

impl Slice {
    /// Whether this is the file from its first to its last byte.
    pub fn is_whole(&self) -> bool {
        self.start == 0 && self.end == self.size
    }
}

/// A list, or the URL of a JSON file that holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Files<T> {
    /// In place.
    Inline {
        /// At most [`MAX_INLINE_FILES`].
        files: Vec<T>,
    },
    /// Elsewhere.
    Reference {
        /// URL of a JSON array.
        files_ref: String,
    },
}

/// Everything that parts and commit must agree on; a file in the plan's work folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The engine that made it; another version refuses it.
    pub engine: String,
    /// Unique per planning.
    pub id: String,
    /// The spec as planned.
    pub spec: Value,
    /// The source that was cut.
    pub partition_source: String,
    /// Number of partitions.
    pub partitions: usize,
    /// Resolved sources by name.
    pub sources: BTreeMap<String, PlannedSource>,
    /// The columns of `parts`, as Arrow IPC in hexadecimal.
    pub map_schema: String,
}

/// A source whose files and types are settled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedSource {
    /// Columns, as Arrow IPC in hexadecimal.
    pub schema: String,
    /// Its files; empty for the source that is cut, since partitions list them.
    pub files: Vec<Slice>,
}

/// What `part` is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRequest {
    /// A [`DataSpec`].
    pub spec: Value,
    /// An element of [`PlanResult::partitions`].
    pub partition: Value,
    /// URL of this attempt's folder.
    pub work_dir: String,
}

/// What `part` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartResult {
    /// The partition's index.
    pub index: usize,
    /// Arrow IPC files.
    #[serde(flatten)]
    pub files: Files<OutputFile>,
    /// Rows in all files.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// What it cost.
    pub metrics: Metrics,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its place.
    pub url: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// What `commit` is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRequest {
    /// A [`DataSpec`].
    pub spec: Value,
    /// URL of the [`Plan`].
    pub plan: String,
    /// The accepted result of every partition.
    pub parts: Vec<PartResult>,
    /// URL of this attempt's folder.
    pub work_dir: String,
    /// Names this run of this task: the same for all attempts, and for a cleared and repeated task.
    pub run_key: String,
}

/// What `commit` answers without a sink.
#[derive(Debug, Serialize, Deserialize)]
pub struct RowsResult {
    /// One JSON object per row.
    pub rows: Vec<Value>,
    /// Length of `rows`.
    pub row_count: u64,
    /// Columns of `rows`.
    pub schema: Vec<Column>,
    /// What it cost.
    pub metrics: Metrics,
}

/// What `commit` answers with a sink.
#[derive(Debug, Serialize, Deserialize)]
pub struct SinkResult {
    /// The sink's folder.
    pub path: String,
    /// URLs of the published files.
    pub files: Vec<String>,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The first rows, at most 20.
    pub preview: Vec<Value>,
    /// Columns.
    pub schema: Vec<Column>,
    /// What the attempt that published cost.
    pub metrics: Metrics,
}

/// A column, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether nulls may occur.
    pub nullable: bool,
}

/// Describes a schema's columns.
pub fn columns(schema: &Schema) -> Vec<Column> {
    schema
        .fields()
        .iter()
        .map(|field| Column {
            name: field.name().clone(),
            data_type: field.data_type().to_string(),
            nullable: field.is_nullable(),
        })
        .collect()
}

/// What a query cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Wall clock of the phase.
    pub elapsed_ms: u64,
    /// Bytes written to spill files.
    pub spilled_bytes: u64,
    /// Number of spills.
    pub spill_count: u64,
    /// The most the operators held at once.
    pub peak_memory_bytes: u64,
    /// Bytes read from sources, where the format counts them.
    pub bytes_scanned: u64,
}

/// What any phase answers when it fails.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The error.
    pub error: FailureBody,
}

/// See [`Failure`].
#[derive(Debug, Serialize, Deserialize)]
pub struct FailureBody {
    /// Machine-readable.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

impl Plan {
    /// Whether `spec` asks for the same data as was planned. Limits may differ: a retry may get more memory.
    pub fn matches(&self, spec: &DataSpec) -> bool {
        let Ok(planned) = DataSpec::parse(self.spec.clone()) else {
            return false;
        };
        planned
            == DataSpec {
                resources: planned.resources.clone(),
                ..spec.clone()
            }
    }
}
