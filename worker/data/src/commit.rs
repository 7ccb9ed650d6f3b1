//! `commit`: runs `reduce_sql` over all parts and publishes or returns the result.

use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::log;
use crate::part::log_done;
use crate::plan::{lengthen, load};
use crate::publish::{Publication, Staged};
use crate::query;
use crate::request::{
    CommitRequest, OutputFile, PartResult, Plan, RowsResult, SinkResult, Slice, columns,
};
use crate::rows::{Preview, WholeResult};
use crate::schema;
use crate::session::Session;
use crate::sink::SinkWriter;
use crate::sources::{self, CONCURRENCY};
use crate::spec::{DataSpec, PARTS_TABLE, Sink};
use crate::store::{Location, Stores};
use crate::table::SliceTable;

/// The longest run key.
const MAX_RUN_KEY: usize = 128;

/// Runs the phase. The answer is a [`SinkResult`] or a [`RowsResult`].
pub async fn run(request: CommitRequest, spec: DataSpec) -> Result<Value> {
    let started = Instant::now();
    check_run_key(&request.run_key)?;
    let stores = Stores::default();
    let plan = load(&stores, &request.plan, &spec).await?;
    check_indexes(&request.parts, plan.partitions)?;
    let job = Job {
        stores: &stores,
        spec: &spec,
        plan: &plan,
        parts: request.parts,
        work_dir: Location::parse(&request.work_dir)?,
        started,
    };
    let answer = match &spec.sink {
        Some(sink) => serde_json::to_value(job.publish(sink, &request.run_key).await?),
        None => serde_json::to_value(job.rows().await?),
    };
    answer.map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write the result: {e}")))
}

/// One commit.
struct Job<'a> {
    stores: &'a Stores,
    spec: &'a DataSpec,
    plan: &'a Plan,
    parts: Vec<PartResult>,
    work_dir: Location,
    started: Instant,
}

impl Job<'_> {
    async fn publish(&self, sink: &Sink, run_key: &str) -> Result<SinkResult> {
        let publication = Publication::new(self.stores, sink, run_key, &self.plan.id)?;
        let record = match publication.recorded().await? {
            Some(record) => {
                log::info("an earlier attempt has staged the result; going on from there");
                record
            }
            None => {
                publication.check_mode().await?;
                let staged = self.stage(sink).await?;
                fault::point("commit.staged");
                let record = publication.record(staged).await?;
                fault::point("commit.recorded");
                record
            }
        };
        publication.carry_out(&record).await?;
        log_done("commit", record.rows, record.bytes, &record.metrics);
        Ok(SinkResult {
            path: sink.path.clone(),
            files: record
                .files
                .iter()
                .map(|f| publication.url(&f.name))
                .collect(),
            rows: record.rows,
            bytes: record.bytes,
            preview: record.preview,
            schema: record.schema,
            metrics: record.metrics,
        })
    }

    async fn stage(&self, sink: &Sink) -> Result<Staged> {
        let slices = self.part_files().await?;
        query::with_spilling_joins(&self.spec.resources, async |session: &Session| {
            let (physical, schema) = self.physical_plan(session, &slices).await?;
            let mut batches = query::start(session, &physical)?;
            let mut writer = SinkWriter::new(
                self.stores,
                &self.work_dir,
                sink.format,
                SchemaRef::clone(&schema),
            );
            let mut preview = Preview::default();
            while let Some(batch) = batches.try_next().await? {
                preview.push(&batch)?;
                writer.write(&batch).await?;
            }
            let files = writer.finish().await?;
            let mut metrics = session.metrics(&physical);
            metrics.elapsed_ms = self.started.elapsed().as_millis() as u64;
            Ok(Staged {
                files,
                preview: preview.into_rows(),
                schema: columns(&schema),
                metrics,
            })
        })
        .await
    }

    async fn rows(&self) -> Result<RowsResult> {
        let slices = self.part_files().await?;
        let result = query::with_spilling_joins(&self.spec.resources, async |session: &Session| {
            let (physical, schema) = self.physical_plan(session, &slices).await?;
            let mut batches = query::start(session, &physical)?;
            let mut whole = WholeResult::default();
            while let Some(batch) = batches.try_next().await? {
                whole.push(&batch)?;
            }
            let rows = whole.into_rows();
            let mut metrics = session.metrics(&physical);
            metrics.elapsed_ms = self.started.elapsed().as_millis() as u64;
            Ok(RowsResult {
                row_count: rows.len() as u64,
                rows,
                schema: columns(&schema),
                metrics,
            })
        })
        .await?;
        log_done("commit", result.row_count, 0, &result.metrics);
        Ok(result)
    }

    /// The plan of `reduce_sql` over the parts, or of the parts one after the other, and its columns.
    async fn physical_plan(
        &self,
        session: &Session,
        slices: &[Slice],
    ) -> Result<(Arc<dyn ExecutionPlan>, SchemaRef)> {
        sources::register(session, self.stores, self.spec, self.plan, None)?;
        let map_schema = schema::decode(&self.plan.map_schema)?;
        let parts = SliceTable::new(
            self.stores,
            &session.context,
            Arc::new(ArrowFormat),
            map_schema,
            slices,
        )?;
        session
            .context
            .register_table(PARTS_TABLE, Arc::new(parts))?;
        let everything = format!("SELECT * FROM {PARTS_TABLE}");
        let sql = self.spec.reduce_sql.as_deref().unwrap_or(&everything);
        let physical = query::physical_plan(session, "reduce_sql", sql).await?;
        let schema = schema::portable(&physical.schema());
        Ok((physical, schema))
    }

    /// All parts' files in the order of the partitions, each checked to be there.
    async fn part_files(&self) -> Result<Vec<Slice>> {
        let mut parts = self.parts.clone();
        parts.sort_by_key(|part| part.index);
        let mut found: Vec<(usize, OutputFile)> = Vec::new();
        for part in parts {
            let files = lengthen(self.stores, part.files).await?;
            found.extend(files.into_iter().map(|file| (part.index, file)));
        }
        futures::stream::iter(found.iter().map(Ok))
            .try_for_each_concurrent(CONCURRENCY, |(index, file)| async move {
                let size = self.stores.size(&Location::parse(&file.url)?).await?;
                if size == Some(file.bytes) {
                    return Ok(());
                }
                Err(Error::new(
                    ErrorKind::InputLost,
                    format!(
                        "{}, written by partition {index}, is gone or cut short; clear that part",
                        file.url
                    ),
                ))
            })
            .await?;
        log::info(format_args!(
            "reading {} files of {} parts",
            found.len(),
            self.parts.len()
        ));
        Ok(found
            .into_iter()
            .map(|(_, file)| Slice {
                url: file.url,
                start: 0,
                end: file.bytes,
                size: file.bytes,
                e_tag: None,
            })
            .collect())
    }
}

fn check_run_key(key: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if key.is_empty() || key.len() > MAX_RUN_KEY || !key.chars().all(good) {
        return Err(Error::request(format!(
            "run_key: {key:?} must be 1 to {MAX_RUN_KEY} letters, digits, '.', '_' or '-'"
        )));
    }
    Ok(())
}

fn check_indexes(parts: &[PartResult], expected: usize) -> Result<()> {
    let mut indexes: Vec<usize> = parts.iter().map(|part| part.index).collect();
    indexes.sort_unstable();
    if !indexes.iter().copied().eq(0..expected) {
        return Err(Error::request(format!(
            "parts: expected the results of partitions 0 to {}, each once, got {indexes:?}",
            expected.saturating_sub(1)
        )));
    }
    Ok(())
}
