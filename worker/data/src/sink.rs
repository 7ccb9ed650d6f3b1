//! Writing a result as Parquet or CSV files of bounded size.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::datatypes::SchemaRef;
use object_store::buffered::BufWriter;
use parquet::arrow::{ArrowWriter, AsyncArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::schema;
use crate::spec::SinkFormat;
use crate::store::{Location, Stores};

/// A published file's wanted size; also far below the 5 GB that S3 copies in one call.
const FILE_BYTES: usize = 256 << 20;
/// A row group is written out before it takes more memory than this.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// A file in an attempt's folder that waits to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Where it is.
    pub url: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// Refuses columns that the format cannot hold.
pub fn check_schema(format: SinkFormat, schema: &SchemaRef) -> Result<()> {
    let unfit = |error: String| {
        Error::new(
            ErrorKind::BadSql,
            format!("sink: the result does not fit: {error}"),
        )
    };
    match format {
        SinkFormat::Parquet => {
            if schema.fields().is_empty() {
                return Err(unfit("it has no columns".to_owned()));
            }
            ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), None)
                .map(drop)
                .map_err(|e| unfit(e.to_string()))
        }
        SinkFormat::Csv => match schema.fields().iter().find(|f| f.data_type().is_nested()) {
            Some(field) => Err(unfit(format!(
                "column {:?} is {}, which csv cannot hold; use parquet or convert it",
                field.name(),
                field.data_type()
            ))),
            None => Ok(()),
        },
    }
}

/// Writes batches to files with names that no other attempt has. There is always at least one file, so that readers
/// find the columns even of an empty result.
#[derive(Debug)]
pub struct SinkWriter<'a> {
    stores: &'a Stores,
    folder: &'a Location,
    format: SinkFormat,
    schema: SchemaRef,
    id: Uuid,
    open: Option<Open>,
    files: Vec<StagedFile>,
}

struct Open {
    encoder: Encoder,
    location: Location,
    rows: u64,
}

enum Encoder {
    Parquet(Box<AsyncArrowWriter<BufWriter>>),
    Csv {
        target: Box<BufWriter>,
        written: usize,
    },
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open")
            .field("location", &self.location)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<'a> SinkWriter<'a> {
    /// Output of `schema` to `folder`.
    pub fn new(
        stores: &'a Stores,
        folder: &'a Location,
        format: SinkFormat,
        schema: SchemaRef,
    ) -> Self {
        Self {
            stores,
            folder,
            format,
            schema,
            id: Uuid::new_v4(),
            open: None,
            files: Vec::new(),
        }
    }

    /// Appends a batch whose columns can be cast to the schema's.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = schema::to_portable(batch, &self.schema)?;
        let mut open = self.take_open()?;
        open.rows += batch.num_rows() as u64;
        let size = match &mut open.encoder {
            Encoder::Parquet(writer) => {
                writer.write(&batch).await?;
                if writer.in_progress_size() >= ROW_GROUP_BYTES {
                    writer.flush().await?;
                }
                writer.bytes_written() + writer.in_progress_size()
            }
            Encoder::Csv { target, written } => {
                let text = to_csv(&batch, *written == 0)?;
                target.write_all(&text).await?;
                *written += text.len();
                *written
            }
        };
        if size >= FILE_BYTES {
            self.close(open).await
        } else {
            self.open = Some(open);
            Ok(())
        }
    }

    /// Completes the last file; gives all.
    pub async fn finish(mut self) -> Result<Vec<StagedFile>> {
        if self.open.is_some() || self.files.is_empty() {
            let open = self.take_open()?;
            self.close(open).await?;
        }
        Ok(self.files)
    }

    fn take_open(&mut self) -> Result<Open> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        let name = format!(
            "{}-{:05}.{}",
            self.id.simple(),
            self.files.len(),
            self.format.extension()
        );
        let location = self.folder.join(&name);
        let target = BufWriter::new(self.stores.open(&location)?, location.path()?);
        let encoder = match self.format {
            SinkFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
                    .set_created_by(crate::plan::engine())
                    .build();
                let schema = SchemaRef::clone(&self.schema);
                Encoder::Parquet(Box::new(AsyncArrowWriter::try_new(
                    target,
                    schema,
                    Some(properties),
                )?))
            }
            SinkFormat::Csv => Encoder::Csv {
                target: Box::new(target),
                written: 0,
            },
        };
        Ok(Open {
            encoder,
            location,
            rows: 0,
        })
    }

    async fn close(&mut self, open: Open) -> Result<()> {
        let bytes = match open.encoder {
            Encoder::Parquet(mut writer) => {
                writer.finish().await?;
                writer.bytes_written()
            }
            Encoder::Csv {
                mut target,
                mut written,
            } => {
                if written == 0 {
                    let header = to_csv(
                        &RecordBatch::new_empty(SchemaRef::clone(&self.schema)),
                        true,
                    )?;
                    target.write_all(&header).await?;
                    written = header.len();
                }
                target.shutdown().await?;
                written
            }
        };
        self.files.push(StagedFile {
            url: open.location.to_string(),
            rows: open.rows,
            bytes: bytes as u64,
        });
        Ok(())
    }
}

fn to_csv(batch: &RecordBatch, header: bool) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    WriterBuilder::new()
        .with_header(header)
        .build(&mut text)
        .write(batch)?;
    Ok(text)
}
