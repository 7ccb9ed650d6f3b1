//! Where the files of the partition source may be cut, by format.

use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use crate::csv_records::RecordScanner;
use crate::cut;
use crate::error::{Error, Result};
use crate::log;
use crate::request::Slice;
use crate::sources::CONCURRENCY;
use crate::spec::{Compression, CutBy, DataSpec, Source, SourceFormat};
use crate::store::{Location, Stores};
use crate::table::object_meta;

/// CSV text that `plan` is willing to read for the sake of cutting it, per source.
const SCAN_LIMIT: u64 = 2 << 30;

/// How a file may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Not at all.
    Whole,
    /// Anywhere: the reader aligns to lines by itself.
    Lines,
    /// Behind a line break outside quotes, which must be searched from the beginning.
    Records,
    /// Between row groups.
    RowGroups,
}

/// Cuts `files` of the source `name` into partitions as the spec asks.
pub async fn partitions(
    stores: &Stores,
    spec: &DataSpec,
    name: &str,
    source: &Source,
    files: &[Slice],
    warnings: &mut Vec<String>,
) -> Result<Vec<Vec<Slice>>> {
    let sizes: Vec<u64> = files.iter().map(|f| f.size).collect();
    let total = sizes.iter().sum();
    let n = cut::wanted(&spec.partitions, total, files.len());
    if cut::one_per_file(&spec.partitions, files.len()) {
        let edges: Vec<Vec<u64>> = files.iter().map(|_| vec![0]).collect();
        return Ok(cut::cut(files, &edges));
    }

    let desired = cut::desired(&sizes, n);
    let rule = rule(spec, name, source, &desired, files, warnings);
    let cuts = futures::stream::iter(files.iter().zip(&desired).map(
        |(file, offsets)| async move {
            if offsets.iter().all(|&at| at == 0) {
                return Ok(offsets.clone());
            }
            match rule {
                Rule::Whole => Ok(cut::snap_to_ends(offsets, file.size)),
                Rule::Lines => Ok(offsets.clone()),
                Rule::Records => records(stores, source, file, offsets).await,
                Rule::RowGroups => {
                    let places = row_groups(stores, file).await?;
                    Ok(cut::snap_to(offsets, &places, file.size))
                }
            }
            .map_err(|e: Error| e.context(&file.url))
        },
    ))
    .buffered(CONCURRENCY)
    .try_collect::<Vec<_>>()
    .await?;
    let partitions = cut::cut(files, &cuts);
    if let Some(wanted) = spec.partitions.n.filter(|&n| n > partitions.len()) {
        warnings.push(format!(
            "partitions.n: {wanted} were asked for, but {name} can be cut into {} only",
            partitions.len()
        ));
    }
    Ok(partitions)
}

fn rule(
    spec: &DataSpec,
    name: &str,
    source: &Source,
    desired: &[Vec<u64>],
    files: &[Slice],
    warnings: &mut Vec<String>,
) -> Rule {
    if spec.partitions.by == CutBy::File {
        return Rule::Whole;
    }
    if source.compression() != Compression::None {
        if desired.iter().flatten().any(|&at| at > 0) {
            warnings.push(format!(
                "{name}: compressed files are cut between files only"
            ));
        }
        return Rule::Whole;
    }
    match source.format {
        SourceFormat::Parquet => Rule::RowGroups,
        SourceFormat::Json => Rule::Lines,
        SourceFormat::Csv if source.newlines_in_values == Some(false) => Rule::Lines,
        SourceFormat::Csv => {
            let to_read: u64 = desired
                .iter()
                .zip(files)
                .filter_map(|(offsets, _)| offsets.last())
                .sum();
            if to_read <= SCAN_LIMIT {
                return Rule::Records;
            }
            warnings.push(format!(
                "{name}: cut between files only, since finding records in {} of csv takes long; set newlines_in_values: \
                 false if no quoted value holds a line break",
                log::bytes(to_read)
            ));
            Rule::Whole
        }
    }
}

/// For each offset the first beginning of a record at or behind it.
async fn records(
    stores: &Stores,
    source: &Source,
    file: &Slice,
    offsets: &[u64],
) -> Result<Vec<u64>> {
    let location = Location::parse(&file.url)?;
    let mut text = stores
        .open(&location)?
        .get(&location.path()?)
        .await?
        .into_stream();
    let mut scanner = RecordScanner::new(source.delimiter as u8, source.quote as u8);
    let mut found = Vec::with_capacity(offsets.len());
    let mut wanted = offsets.iter().copied().peekable();
    while wanted.next_if_eq(&0).is_some() {
        found.push(0);
    }
    while wanted.peek().is_some() {
        let Some(chunk) = text.try_next().await? else {
            // The rest of the file is one record, or an unclosed quote.
            found.extend(wanted.map(|_| file.size));
            break;
        };
        scanner.feed(&chunk, |start| {
            while wanted.next_if(|&at| at <= start).is_some() {
                found.push(start);
            }
        });
    }
    Ok(found)
}

/// The places between row groups, as the reader assigns them: by the first page of the first column.
async fn row_groups(stores: &Stores, file: &Slice) -> Result<Vec<u64>> {
    let location = Location::parse(&file.url)?;
    let store = stores.open(&location)?;
    let meta = object_meta(&location, file)?;
    let metadata = DFParquetMetadata::new(store.as_ref(), &meta)
        .fetch_metadata()
        .await?;
    let mut places: Vec<u64> = metadata
        .row_groups()
        .iter()
        .filter(|group| group.num_columns() > 0)
        .map(|group| {
            let column = group.column(0);
            let first_page = column
                .dictionary_page_offset()
                .unwrap_or_else(|| column.data_page_offset());
            u64::try_from(first_page).unwrap_or(0)
        })
        // The bytes before the first row group are not worth a partition.
        .skip(1)
        .collect();
    places.sort_unstable();
    Ok(places)
}
