//! The tables of a spec: their columns, and how they are made known to a session.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::csv_sample;
use crate::error::{Error, Result};
use crate::request::{Plan, PlannedSource, Slice};
use crate::schema;
use crate::session::Session;
use crate::spec::{DataSpec, Source, SourceFormat};
use crate::store::{Location, Stores};
use crate::table::{SliceTable, file_format, object_meta};

/// Requests that run at once when many files are looked at.
pub const CONCURRENCY: usize = 16;

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

    if source.format == SourceFormat::Csv {
        let inferred = csv_sample::infer_schema(stores, source, files).await?;
        return merge(source.format, &inferred, &given);
    }
    let store = stores.open(&Location::parse(&first.url)?)?;
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
