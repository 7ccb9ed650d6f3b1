//! Rows as JSON, in bounded number and size.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::json::writer::{JsonArray, WriterBuilder};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// The most rows returned without a sink.
pub const MAX_ROWS: usize = 10_000;
/// The most bytes of JSON returned without a sink.
pub const MAX_BYTES: usize = 1 << 20;
/// Rows that a sink's result shows.
pub const PREVIEW_ROWS: usize = 20;
/// A preview stops before it takes more than this.
const PREVIEW_BYTES: usize = 64 << 10;

/// Collects a whole result, or fails when it is too large.
#[derive(Debug, Default)]
pub struct WholeResult {
    rows: Vec<Value>,
    bytes: usize,
}

impl WholeResult {
    /// Appends a batch.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let too_large = |what: String| {
            Error::new(
                ErrorKind::ResultTooLarge,
                format!(
                    "the result has more than {what}, too much to be returned; add a sink, or make reduce_sql return less"
                ),
            )
        };
        if self.rows.len() + batch.num_rows() > MAX_ROWS {
            return Err(too_large(format!("{MAX_ROWS} rows")));
        }
        let (rows, bytes) = to_json(batch)?;
        self.bytes += bytes;
        if self.bytes > MAX_BYTES {
            return Err(too_large(format!("{MAX_BYTES} bytes")));
        }
        self.rows.extend(rows);
        Ok(())
    }

    /// All rows.
    pub fn into_rows(self) -> Vec<Value> {
        self.rows
    }
}

/// Collects the first rows.
#[derive(Debug, Default)]
pub struct Preview {
    rows: Vec<Value>,
    bytes: usize,
    full: bool,
}

impl Preview {
    /// Takes what is still wanted of a batch.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        for row in 0..batch.num_rows() {
            if self.full || self.rows.len() >= PREVIEW_ROWS {
                break;
            }
            let (rows, bytes) = to_json(&batch.slice(row, 1))?;
            self.bytes += bytes;
            if self.bytes > PREVIEW_BYTES {
                self.full = true;
            } else {
                self.rows.extend(rows);
            }
        }
        Ok(())
    }

    /// The rows taken.
    pub fn into_rows(self) -> Vec<Value> {
        self.rows
    }
}

/// The rows as objects, nulls included, and the length of their JSON.
fn to_json(batch: &RecordBatch) -> Result<(Vec<Value>, usize)> {
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, JsonArray>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let text = writer.into_inner();
    if text.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let rows = serde_json::from_slice(&text).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            format!("rows came out as bad JSON: {e}"),
        )
    })?;
    Ok((rows, text.len()))
}
