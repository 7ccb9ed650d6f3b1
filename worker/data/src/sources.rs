//! The tables of a spec: their columns, and how they are made known to a session.

use std::sync::Arc;

use datafusion::arrow::csv::reader::Format as CsvReader;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use crate::error::{Error, Result};
use crate::request::{Plan, PlannedSource, Slice};
use crate::schema;
use crate::session::Session;
use crate::spec::{Compression, DataSpec, Source, SourceFormat};
use crate::store::{Location, Stores};
use crate::table::{SliceTable, file_format, object_meta};

/// Requests that run at once when many files are looked at.
pub const CONCURRENCY: usize = 16;
/// Enough of a CSV file to hold its header line.
const HEADER_BYTES: u64 = 64 << 10;

/// The columns of a source: read from its files, with the types that the spec gives.
pub async fn infer_schema(
    session: &Session,
    stores: &Stores,
    source: &Source,
    files: &[Slice],
) -> Result<SchemaRef> {
    let mut given: Vec<FieldRef> = Vec::new();
    for (name, sql_type) in source.schema.iter().flatten() {
        let Some(sql_type) = sql_type.as_str() else {
            return Err(Error::spec(format!(
                "schema.{name}: expected an SQL type such as bigint, got {sql_type}"
            )));
        };
        let data_type = schema::sql_type(&session.context, sql_type)
            .await
            .map_err(|e| e.context(format_args!("schema.{name}")))?;
        given.push(Arc::new(Field::new(name, data_type, true)));
    }
    if source.format == SourceFormat::Csv && !source.header {
        return Ok(Arc::new(Schema::new(given)));
    }
    let Some(first) = files.first() else {
        if given.is_empty() {
            return Err(Error::spec(
                "all files are empty, so their columns are unknown; give schema",
            ));
        }
        return Ok(Arc::new(Schema::new(given)));
    };

    let location = Location::parse(&first.url)?;
    let store = stores.open(&location)?;
    if source.format == SourceFormat::Csv && source.compression() == Compression::None {
        check_headers(stores, source, files).await?;
    }
    let mut objects = Vec::with_capacity(files.len());
    for file in files {
        objects.push(object_meta(&Location::parse(&file.url)?, file)?);
    }
    let inferred = file_format(&session.context, source)
        .infer_schema(&session.context.state(), &store, &objects)
        .await?;
    merge(source.format, &inferred, &given)
}

fn merge(format: SourceFormat, inferred: &Schema, given: &[FieldRef]) -> Result<SchemaRef> {
    let mut fields: Vec<FieldRef> = inferred
        .fields()
        .iter()
        .map(|field| {
            // A column without a value in the sample may have some later.
            if field.data_type() == &DataType::Null {
                Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8))
            } else {
                Arc::clone(field)
            }
        })
        .collect();
    for field in given {
        match fields.iter_mut().find(|f| f.name() == field.name()) {
            Some(known) => *known = Arc::clone(field),
            // A key may be absent from the objects of the sample.
            None if format == SourceFormat::Json => fields.push(Arc::clone(field)),
            None => {
                let names: Vec<_> = fields.iter().map(|f| f.name().as_str()).collect();
                return Err(Error::spec(format!(
                    "schema.{}: the files have no such column, only {}",
                    field.name(),
                    names.join(", ")
                )));
            }
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// CSV columns are read by position, so files whose headers differ would mix up their columns without an error.
async fn check_headers(stores: &Stores, source: &Source, files: &[Slice]) -> Result<()> {
    let names = |file: &Slice| {
        let file = file.clone();
        async move {
            let location = Location::parse(&file.url)?;
            let head = stores
                .open(&location)?
                .get_range(&location.path()?, 0..file.size.min(HEADER_BYTES))
                .await?;
            let (schema, _) = CsvReader::default()
                .with_header(true)
                .with_delimiter(source.delimiter as u8)
                .with_quote(source.quote as u8)
                .infer_schema(head.as_ref(), Some(0))
                .map_err(|e| Error::from(e).context(&file.url))?;
            let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
            Ok::<_, Error>((file.url, names))
        }
    };
    let mut headers = futures::stream::iter(files.iter().map(names)).buffered(CONCURRENCY);
    let Some((first, expected)) = headers.try_next().await? else {
        return Ok(());
    };
    while let Some((url, found)) = headers.try_next().await? {
        if found != expected {
            return Err(Error::new(
                crate::error::ErrorKind::BadData,
                format!(
                    "{url} has the columns {found:?}, but {first} has {expected:?}; make them separate sources"
                ),
            ));
        }
    }
    Ok(())
}

/// Makes every source known to `session`: the partitioned one as `slices` ([`None`] leaves it out), others whole.
pub fn register(
    session: &Session,
    stores: &Stores,
    spec: &DataSpec,
    plan: &Plan,
    slices: Option<&[Slice]>,
) -> Result<()> {
    for (name, planned) in &plan.sources {
        let files = if *name == plan.partition_source {
            match slices {
                Some(slices) => slices,
                None => continue,
            }
        } else {
            &planned.files
        };
        register_one(session, stores, spec, name, planned, files)?;
    }
    Ok(())
}

fn register_one(
    session: &Session,
    stores: &Stores,
    spec: &DataSpec,
    name: &str,
    planned: &PlannedSource,
    files: &[Slice],
) -> Result<()> {
    let source = spec.sources.get(name).ok_or_else(|| {
        Error::request(format!(
            "the plan has a source {name:?} that the spec does not have"
        ))
    })?;
    let schema = schema::decode(&planned.schema)?;
    let format = file_format(&session.context, source);
    let table = SliceTable::new(stores, &session.context, format, schema, files)?;
    session.context.register_table(name, Arc::new(table))?;
    Ok(())
}

/// Makes every source known to `session` as a table without rows, to plan queries against.
pub fn register_empty(session: &Session, sources: &[(&str, SchemaRef)]) -> Result<()> {
    for (name, schema) in sources {
        let table = SliceTable::empty(Arc::clone(schema));
        session.context.register_table(*name, Arc::new(table))?;
    }
    Ok(())
}
