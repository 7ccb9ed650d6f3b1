//! What tasks know of data: updates of assets, and results that may be used again.

use crate::{AssetEventRow, StoreResult};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::ids::{RunPk, TiPk};

/// The statements about data within a transaction.
#[async_trait]
pub trait DataTx: Send {
    /// The newest update of each asset (by name) at this time or later, in the order of the input. The runs that it made
    /// are not told.
    async fn newest_asset_events(
        &mut self,
        wanted: &[(String, DateTime<Utc>)],
    ) -> StoreResult<Vec<Option<AssetEventRow>>>;

    /// The newest `max` updates that made a run, newest first; the runs are not told.
    async fn asset_events_of_run(
        &mut self,
        run: RunPk,
        max: i64,
    ) -> StoreResult<Vec<AssetEventRow>>;
}

/// A success whose results may be used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedResult {
    pub run: RunPk,
    /// Its XComs are the results.
    pub ti: TiPk,
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    pub map_index: i32,
    pub ended_at: DateTime<Utc>,
}

/// The queries about data that stand alone.
#[async_trait]
pub trait DataReads: Send + Sync {
    /// The newest success that noted an XCom of this key (which begins with
    /// [`CACHE_XCOM`](gristmill_common::spec::CACHE_XCOM)) and ended at this time or later.
    async fn cached_result(
        &self,
        key: &str,
        since: DateTime<Utc>,
    ) -> StoreResult<Option<CachedResult>>;
}
