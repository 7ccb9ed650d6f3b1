//! `part`: runs `map_sql` over one partition.

use std::time::Instant;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::ipc_output::IpcOutput;
use crate::log;
use crate::plan::{lengthen, load, shorten};
use crate::query;
use crate::request::{Metrics, PartRequest, PartResult, Partition, Slice};
use crate::schema;
use crate::session::Session;
use crate::sources::{self, CONCURRENCY};
use crate::spec::DataSpec;
use crate::store::{Location, Stores};

/// Runs the phase.
pub async fn run(request: PartRequest, spec: DataSpec) -> Result<PartResult> {
    let started = Instant::now();
    let stores = Stores::default();
    let work_dir = Location::parse(&request.work_dir)?;
    let partition: Partition = serde_json::from_value(request.partition)
        .map_err(|e| Error::request(format!("partition: {e}")))?;
    let plan = load(&stores, &partition.plan, &spec).await?;
    let slices = lengthen(&stores, partition.files).await?;
    log::info(format_args!(
        "partition {} of {}: {} slices of {}, {}",
        partition.index,
        plan.partitions,
        slices.len(),
        plan.partition_source,
        log::bytes(partition.bytes)
    ));
    let whole = plan.sources.values().flat_map(|source| &source.files);
    check_unchanged(&stores, slices.iter().chain(whole)).await?;

    let map_schema = schema::decode(&plan.map_schema)?;
    let (files, mut metrics) =
        query::with_spilling_joins(&spec.resources, async |session: &Session| {
            sources::register(session, &stores, &spec, &plan, Some(&slices))?;
            let physical = query::physical_plan(session, "map_sql", &spec.map_sql).await?;
            let mut batches = query::start(session, &physical)?;
            let mut output = IpcOutput::new(&stores, &work_dir, map_schema.clone());
            while let Some(batch) = batches.try_next().await? {
                output.write(&batch).await?;
            }
            let files = output.finish().await?;
            Ok::<_, Error>((files, session.metrics(&physical)))
        })
        .await?;
    fault::point("part.written");

    metrics.elapsed_ms = started.elapsed().as_millis() as u64;
    let rows = files.iter().map(|f| f.rows).sum();
    let bytes = files.iter().map(|f| f.bytes).sum();
    log_done(
        &format!("partition {}", partition.index),
        rows,
        bytes,
        &metrics,
    );
    let list = work_dir.join(&format!("files-{}.json", uuid::Uuid::new_v4().simple()));
    Ok(PartResult {
        index: partition.index,
        files: shorten(&stores, files, &list).await?,
        rows,
        bytes,
        metrics,
    })
}

/// The last line of a phase's log.
pub fn log_done(what: &str, rows: u64, bytes: u64, metrics: &Metrics) {
    log::info(format_args!(
        "{what}: {rows} rows, {} in {:.1} s; peak memory {}, spilled {}",
        log::bytes(bytes),
        metrics.elapsed_ms as f64 / 1000.0,
        log::bytes(metrics.peak_memory_bytes),
        log::bytes(metrics.spilled_bytes)
    ));
}

/// Refuses files that are not the planned ones: cuts inside them would be at wrong places.
async fn check_unchanged(stores: &Stores, files: impl Iterator<Item = &Slice>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    let files: Vec<&Slice> = files.filter(|f| seen.insert(&f.url)).collect();
    futures::stream::iter(files.into_iter().map(Ok))
        .try_for_each_concurrent(CONCURRENCY, |file| async move {
            let location = Location::parse(&file.url)?;
            let changed = |how: String| {
                Error::new(
                    ErrorKind::InputChanged,
                    format!(
                        "{} {how} since it was planned; clear the plan task",
                        file.url
                    ),
                )
            };
            match stores.open(&location)?.head(&location.path()?).await {
                Ok(meta) if meta.size != file.size => Err(changed(format!(
                    "went from {} to {} bytes",
                    file.size, meta.size
                ))),
                Ok(meta) if file.e_tag.is_some() && meta.e_tag != file.e_tag => {
                    Err(changed("was replaced".to_owned()))
                }
                Ok(_) => Ok(()),
                Err(object_store::Error::NotFound { .. }) => Err(changed("was removed".to_owned())),
                Err(error) => Err(error.into()),
            }
        })
        .await
}
