//! A part's output: Arrow IPC files of bounded size.

use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::CompressionType;
use datafusion::arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use object_store::{ObjectStoreExt, PutPayload};
use uuid::Uuid;

use crate::error::Result;
use crate::log;
use crate::request::OutputFile;
use crate::schema;
use crate::store::{Location, Stores};

/// A file is built in memory and stored as one object, and a reader may hold one whole, so they stay small.
const FILE_BYTES: usize = 16 << 20;
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Writes batches to files with names that no other attempt has.
pub struct IpcOutput<'a> {
    stores: &'a Stores,
    folder: &'a Location,
    schema: SchemaRef,
    id: Uuid,
    open: Option<FileWriter<Vec<u8>>>,
    open_rows: u64,
    rows: u64,
    files: Vec<OutputFile>,
    said: Instant,
}

impl std::fmt::Debug for IpcOutput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IpcOutput")
            .field("folder", &self.folder)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<'a> IpcOutput<'a> {
    /// Output of `schema` to `folder`; nothing is written before there are rows.
    pub fn new(stores: &'a Stores, folder: &'a Location, schema: SchemaRef) -> Self {
        Self {
            stores,
            folder,
            schema,
            id: Uuid::new_v4(),
            open: None,
            open_rows: 0,
            rows: 0,
            files: Vec::new(),
            said: Instant::now(),
        }
    }

    /// Appends a batch whose columns can be cast to the schema's.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = schema::to_portable(batch, &self.schema)?;
        let mut writer = match self.open.take() {
            Some(writer) => writer,
            None => {
                let options = IpcWriteOptions::default()
                    .try_with_compression(Some(CompressionType::LZ4_FRAME))?;
                FileWriter::try_new_with_options(Vec::new(), &self.schema, options)?
            }
        };
        writer.write(&batch)?;
        self.open_rows += batch.num_rows() as u64;
        self.rows += batch.num_rows() as u64;
        let full = writer.get_ref().len() >= FILE_BYTES;
        self.open = Some(writer);
        if full {
            self.close().await?;
        }
        if self.said.elapsed() >= PROGRESS_EVERY {
            log::info(format_args!("{} rows so far", self.rows));
            self.said = Instant::now();
        }
        Ok(())
    }

    /// Stores what is left; gives all files.
    pub async fn finish(mut self) -> Result<Vec<OutputFile>> {
        self.close().await?;
        Ok(self.files)
    }

    async fn close(&mut self) -> Result<()> {
        let Some(writer) = self.open.take() else {
            return Ok(());
        };
        let bytes = writer.into_inner()?;
        let name = format!("{}-{:05}.arrow", self.id.simple(), self.files.len());
        let location = self.folder.join(&name);
        self.files.push(OutputFile {
            url: location.to_string(),
            rows: std::mem::take(&mut self.open_rows),
            bytes: bytes.len() as u64,
        });
        let store = self.stores.open(&location)?;
        store
            .put(&location.path()?, PutPayload::from(bytes))
            .await?;
        Ok(())
    }
}
