//! A table over exactly the given slices of files.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session as CatalogSession, TableProvider};
use datafusion::common::config::{CsvOptions, JsonOptions, TableParquetOptions};
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;
use object_store::ObjectMeta;

use crate::error::{Error, Result};
use crate::request::Slice;
use crate::spec::{Compression, Source, SourceFormat};
use crate::store::{Location, Stores};

/// A table that reads its slices and nothing else.
#[derive(Debug)]
pub struct SliceTable {
    schema: SchemaRef,
    format: Arc<dyn FileFormat>,
    store: ObjectStoreUrl,
    files: Vec<PartitionedFile>,
    bytes: u64,
}

impl SliceTable {
    /// A table over `slices`, which all lie in one store.
    pub fn new(
        stores: &Stores,
        context: &SessionContext,
        format: Arc<dyn FileFormat>,
        schema: SchemaRef,
        slices: &[Slice],
    ) -> Result<Self> {
        let mut store = None;
        let mut files = Vec::with_capacity(slices.len());
        for slice in slices {
            let location = Location::parse(&slice.url)?;
            let url = stores.register(&context.runtime_env(), &location)?;
            if store.get_or_insert_with(|| url.clone()) != &url {
                return Err(Error::request(format!(
                    "{location} lies in another store than the table's other files"
                )));
            }
            let mut file = PartitionedFile::new_from_meta(object_meta(&location, slice)?);
            if !slice.is_whole() {
                file = file.with_range(offset(slice.start)?, offset(slice.end)?);
            }
            files.push(file);
        }
        Ok(Self {
            schema,
            format,
            store: store.unwrap_or_else(ObjectStoreUrl::local_filesystem),
            files,
            bytes: slices.iter().map(|s| s.end - s.start).sum(),
        })
    }

    /// A table of no rows.
    pub fn empty(schema: SchemaRef) -> Self {
        Self {
            schema,
            format: Arc::new(ArrowFormat),
            store: ObjectStoreUrl::local_filesystem(),
            files: Vec::new(),
            bytes: 0,
        }
    }
}

fn offset(at: u64) -> Result<i64> {
    i64::try_from(at).map_err(|_| Error::request(format!("offset {at} is out of range")))
}

/// What the store would say about a listed file. The time is not part of a plan, and no reader looks at it.
pub fn object_meta(location: &Location, slice: &Slice) -> Result<ObjectMeta> {
    Ok(ObjectMeta {
        location: location.path()?,
        last_modified: Default::default(),
        size: slice.size,
        e_tag: None,
        version: None,
    })
}

#[async_trait]
impl TableProvider for SliceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // Enough for Parquet to skip row groups; the filter itself stays in the plan.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn CatalogSession,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if self.files.is_empty() {
            let schema = project_schema(&self.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let groups = self.files.len().min(state.config().target_partitions());
        let mut file_groups = vec![Vec::new(); groups];
        for (i, file) in self.files.iter().enumerate() {
            file_groups[i % groups].push(file.clone());
        }
        let file_source = self
            .format
            .file_source(TableSchema::from(Arc::clone(&self.schema)));
        // Tells a join which side is the smaller one.
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.total_byte_size = Precision::Inexact(self.bytes as usize);
        let config = FileScanConfigBuilder::new(self.store.clone(), file_source)
            .with_file_groups(file_groups.into_iter().map(FileGroup::new).collect())
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        self.format.create_physical_plan(state, config).await
    }
}

/// The reader of `source`'s files.
pub fn file_format(context: &SessionContext, source: &Source) -> Arc<dyn FileFormat> {
    match source.format {
        SourceFormat::Parquet => {
            let options = TableParquetOptions {
                global: context.copied_config().options().execution.parquet.clone(),
                ..TableParquetOptions::default()
            };
            Arc::new(ParquetFormat::default().with_options(options))
        }
        SourceFormat::Csv => {
            let options = CsvOptions {
                has_header: Some(source.header),
                delimiter: source.delimiter as u8,
                quote: source.quote as u8,
                // Keeps DataFusion from cutting at any line break; our own cuts are at records.
                newlines_in_values: Some(source.newlines_in_values != Some(false)),
                compression: compression(source.compression()),
                ..CsvOptions::default()
            };
            Arc::new(CsvFormat::default().with_options(options))
        }
        SourceFormat::Json => {
            let options = JsonOptions {
                compression: compression(source.compression()),
                ..JsonOptions::default()
            };
            Arc::new(JsonFormat::default().with_options(options))
        }
    }
}

/// How DataFusion names a compression.
pub fn compression(compression: Compression) -> CompressionTypeVariant {
    match compression {
        Compression::None => CompressionTypeVariant::UNCOMPRESSED,
        Compression::Gzip => CompressionTypeVariant::GZIP,
        Compression::Bzip2 => CompressionTypeVariant::BZIP2,
        Compression::Xz => CompressionTypeVariant::XZ,
        Compression::Zstd => CompressionTypeVariant::ZSTD,
    }
}
