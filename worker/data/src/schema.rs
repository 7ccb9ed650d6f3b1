//! Column types: kept exact between phases, and in a form that every file can hold.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::{Error, Result};

/// A schema as text: Arrow IPC in hexadecimal, since the printed form of a type cannot always be read back.
pub fn encode(schema: &Schema) -> Result<String> {
    let mut bytes = Vec::new();
    StreamWriter::try_new(&mut bytes, schema)?.finish()?;
    Ok(hex::encode(bytes))
}

/// Reads what [`encode`] wrote.
pub fn decode(text: &str) -> Result<SchemaRef> {
    let bytes = hex::decode(text)
        .map_err(|e| Error::request(format!("the plan holds a damaged schema: {e}")))?;
    Ok(StreamReader::try_new(bytes.as_slice(), None)?.schema())
}

/// The schema in which results pass between phases: dictionaries and views become plain values, since a file cannot hold
/// a dictionary that changes, nor a view without its whole buffer; every column may hold nulls.
pub fn portable(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema
        .fields()
        .iter()
        .map(|f| Arc::new(Field::new(f.name(), portable_type(f.data_type()), true)))
        .collect();
    Arc::new(Schema::new(fields))
}

fn portable_type(data_type: &DataType) -> DataType {
    let inner = |f: &FieldRef| -> FieldRef {
        Arc::new(
            f.as_ref()
                .clone()
                .with_data_type(portable_type(f.data_type())),
        )
    };
    match data_type {
        DataType::Dictionary(_, value) => portable_type(value),
        DataType::RunEndEncoded(_, value) => portable_type(value.data_type()),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(f) | DataType::ListView(f) => DataType::List(inner(f)),
        DataType::LargeList(f) | DataType::LargeListView(f) => DataType::LargeList(inner(f)),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(inner(f), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        other => other.clone(),
    }
}

/// The batch in `schema`, which is the [`portable`] form of its own.
pub fn to_portable(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(Arc::clone(column))
            } else {
                cast(column, field.data_type())
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    // A query without columns still has a number of rows.
    let options =
        datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

/// Refuses a result in which two columns share a name.
pub fn check_names(what: &str, schema: &Schema) -> Result<()> {
    let mut names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::new(
            crate::error::ErrorKind::BadSql,
            format!(
                "{what}: two columns of the result are called {:?}; name them apart with AS",
                pair[0]
            ),
        )),
        None => Ok(()),
    }
}

/// The Arrow type of an SQL type such as `bigint` or `decimal(12,2)`.
pub async fn sql_type(context: &SessionContext, text: &str) -> Result<DataType> {
    let unknown = |e: String| Error::spec(format!("{text:?} is not an SQL type: {e}"));
    let mut parser = Parser::new(&GenericDialect {})
        .try_with_sql(text)
        .map_err(|e| unknown(e.to_string()))?;
    let parsed = parser
        .parse_data_type()
        .map_err(|e| unknown(e.to_string()))?;
    if parser.peek_token().token != Token::EOF {
        return Err(unknown("more follows after it".to_owned()));
    }
    let frame = context
        .sql(&format!("SELECT CAST(NULL AS {parsed})"))
        .await
        .map_err(|e| unknown(e.strip_backtrace()))?;
    Ok(frame.schema().field(0).data_type().clone())
}
