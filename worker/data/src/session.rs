//! A DataFusion session with the limits of the spec and the settings that keep a partition's query to its own rows.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::config::SpillCompression;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::error::Result;
use crate::request::Metrics;
use crate::spec::Resources;

/// How many of the largest memory consumers an out-of-memory message names.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// Below this much memory batches are small.
const SMALL_MEMORY: usize = 256 << 20;

/// A context, and the peak of its memory.
pub struct Session {
    /// Plans and runs queries.
    pub context: SessionContext,
    pool: Arc<PeakPool>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session within `resources`. A hash join cannot spill; with `hash_joins` off joins sort and merge, which can.
    pub fn new(resources: &Resources, hash_joins: bool) -> Result<Self> {
        let memory = usize::try_from(resources.memory.0).unwrap_or(usize::MAX);
        let pool = Arc::new(PeakPool {
            inner: TrackConsumersPool::new(FairSpillPool::new(memory), NAMED_CONSUMERS),
            peak: AtomicUsize::new(0),
        });
        // Merging spilled runs holds a batch or two of each at once, and the first merge of several would take all.
        let small = memory < SMALL_MEMORY || !hash_joins;
        // Sort-merge joins merge the runs of two sides at once: half a batch each.
        let batch = match (small, hash_joins) {
            (false, _) => 8192,
            (true, true) => 2048,
            (true, false) => 1024,
        };
        let disk = DiskManagerBuilder::default()
            .with_max_spill_merge_fan_in(if small { 4 } else { 32 })
            .with_mode(DiskManagerMode::OsTmpDirectory)
            .with_max_temp_directory_size(resources.spill.0);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&pool) as Arc<dyn MemoryPool>)
            .with_disk_manager_builder(disk)
            .build_arc()?;

        let mut config = SessionConfig::new()
            .with_batch_size(batch)
            // A plan of one partition has hash joins whatever is preferred.
            .with_target_partitions(resources.cpus.max(if hash_joins { 1 } else { 2 }))
            // Makes the order of rows, and with it a rerun, depend on timing.
            .with_round_robin_repartition(false);
        let options = config.options_mut();
        // Idle streams would take files of others, beyond what was bound to this process.
        options.execution.enable_file_stream_work_stealing = false;
        // Filters that appear while the query runs wait for all partitions of a join.
        options.optimizer.enable_dynamic_filter_pushdown = false;
        options
            .optimizer
            .enable_physical_uncorrelated_scalar_subquery = false;
        // Slices of view arrays drag their whole buffers into every file.
        options.execution.parquet.schema_force_view_types = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.optimizer.prefer_hash_join = hash_joins;
        options.execution.spill_compression = SpillCompression::Lz4Frame;
        // What a sort sets aside for merging must leave room for sorting.
        let merge = &mut options.execution.sort_spill_reservation_bytes;
        *merge = (*merge).min(memory / 16);
        Ok(Self {
            context: SessionContext::new_with_config_rt(config, runtime),
            pool,
        })
    }

    /// What the executed `plan` cost, without the time.
    pub fn metrics(&self, plan: &Arc<dyn ExecutionPlan>) -> Metrics {
        let mut metrics = Metrics {
            peak_memory_bytes: self.pool.peak.load(Ordering::Relaxed) as u64,
            ..Metrics::default()
        };
        add_metrics(plan, &mut metrics);
        metrics
    }
}

fn add_metrics(plan: &Arc<dyn ExecutionPlan>, total: &mut Metrics) {
    if let Some(own) = plan.metrics() {
        let sum = |name: &str| own.sum_by_name(name).map_or(0, |v| v.as_usize() as u64);
        total.spilled_bytes += own.spilled_bytes().unwrap_or(0) as u64;
        total.spill_count += own.spill_count().unwrap_or(0) as u64;
        total.bytes_scanned += sum("bytes_scanned");
    }
    for child in plan.children() {
        add_metrics(child, total);
    }
}

/// Shares memory fairly among operators that can spill, and remembers the most that was held.
#[derive(Debug)]
struct PeakPool {
    inner: TrackConsumersPool<FairSpillPool>,
    peak: AtomicUsize,
}

impl PeakPool {
    fn note(&self) {
        self.peak
            .fetch_max(self.inner.reserved(), Ordering::Relaxed);
    }
}

impl std::fmt::Display for PeakPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.inner, f)
    }
}

impl MemoryPool for PeakPool {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
        self.note();
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DataFusionResult<()> {
        self.inner.try_grow(reservation, additional)?;
        self.note();
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}
