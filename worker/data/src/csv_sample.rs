//! Column names and types of CSV files, judged by their beginnings.

use datafusion::arrow::csv::reader::Format;
use datafusion::arrow::datatypes::Schema;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use crate::csv_records::RecordScanner;
use crate::error::{Error, ErrorKind, Result};
use crate::request::Slice;
use crate::sources::CONCURRENCY;
use crate::spec::Source;
use crate::store::{Location, Stores};
use crate::table::compression;

/// Bytes taken of each file whose header is checked.
const HEADER_BYTES: usize = 64 << 10;
/// Bytes taken of each file that types are judged by.
const SAMPLE_BYTES: usize = 256 << 10;
/// Files that types are judged by.
const SAMPLE_FILES: usize = 8;

/// The columns of `files`, which must not be empty and all have the same header. A column without a value in the sample
/// has the type `Null`.
pub async fn infer_schema(stores: &Stores, source: &Source, files: &[Slice]) -> Result<Schema> {
    let format = Format::default()
        .with_header(true)
        .with_delimiter(source.delimiter as u8)
        .with_quote(source.quote as u8);
    let mut heads = futures::stream::iter(files.iter().enumerate().map(|(i, file)| {
        let bytes = if i < SAMPLE_FILES {
            SAMPLE_BYTES
        } else {
            HEADER_BYTES
        };
        async move { Ok::<_, Error>((file, head(stores, source, file, bytes).await?)) }
    }))
    .buffered(CONCURRENCY);

    let mut first: Option<(&Slice, Vec<String>)> = None;
    let mut sample: Vec<u8> = Vec::new();
    let mut sampled = 0;
    while let Some((file, head)) = heads.try_next().await? {
        let (names, _) = format
            .infer_schema(head.as_slice(), Some(0))
            .map_err(|e| Error::from(e).context(&file.url))?;
        let names: Vec<String> = names.fields().iter().map(|f| f.name().clone()).collect();
        match &first {
            None => {
                sample.extend(&head);
                first = Some((file, names));
            }
            // Columns are read by position, so that other headers would mix them up without an error.
            Some((other, expected)) if *expected != names => {
                return Err(Error::new(
                    ErrorKind::BadData,
                    format!(
                        "{} has the columns {names:?}, but {} has {expected:?}; make them separate sources",
                        file.url, other.url
                    ),
                ));
            }
            Some(_) if sampled < SAMPLE_FILES => {
                sample.extend(
                    &head[record_ends(source, &head)
                        .first()
                        .copied()
                        .unwrap_or(head.len())..],
                );
            }
            Some(_) => {}
        }
        sampled += 1;
    }
    let (schema, _) = format.infer_schema(sample.as_slice(), None)?;
    Ok(schema)
}

/// Whole records from the beginning of a file, about `wanted` bytes, ending in a line break.
async fn head(stores: &Stores, source: &Source, file: &Slice, wanted: usize) -> Result<Vec<u8>> {
    let location = Location::parse(&file.url)?;
    let raw = stores
        .open(&location)?
        .get(&location.path()?)
        .await?
        .into_stream();
    let mut text = FileCompressionType::from(compression(source.compression()))
        .convert_stream(raw.map_err(DataFusionError::from).boxed())?;
    let mut head = Vec::new();
    let mut whole = false;
    while head.len() < wanted && !whole {
        match text.try_next().await? {
            Some(chunk) => head.extend_from_slice(&chunk),
            None => whole = true,
        }
    }
    if whole {
        if head.last() != Some(&b'\n') {
            head.push(b'\n');
        }
    } else {
        // A chunk may be far larger than what is wanted.
        head.truncate(wanted.max(1));
        match record_ends(source, &head).last() {
            Some(&end) => head.truncate(end),
            None => {
                return Err(Error::new(
                    ErrorKind::BadData,
                    format!(
                        "{}: no record ends in the first {wanted} bytes; is a quote left open?",
                        file.url
                    ),
                ));
            }
        }
    }
    Ok(head)
}

/// Offsets behind each record of `text`.
fn record_ends(source: &Source, text: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    RecordScanner::new(source.delimiter as u8, source.quote as u8)
        .feed(text, |end| ends.push(end as usize));
    ends
}
