//! Data that tasks know of: the traits, over the statements.

use crate::{SqliteStore, tx::SqliteTx};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::ids::RunPk;
use gristmill_store::{AssetEventRow, CachedResult, DataReads, DataTx, StoreResult};

#[async_trait]
impl DataTx for SqliteTx {
    async fn newest_asset_events(
        &mut self,
        wanted: &[(String, DateTime<Utc>)],
    ) -> StoreResult<Vec<Option<AssetEventRow>>> {
        self.session()?.newest_asset_events(wanted).await
    }

    async fn asset_events_of_run(
        &mut self,
        run: RunPk,
        max: i64,
    ) -> StoreResult<Vec<AssetEventRow>> {
        self.session()?.asset_events_of_run(run, max).await
    }
}

#[async_trait]
impl DataReads for SqliteStore {
    async fn cached_result(
        &self,
        key: &str,
        since: DateTime<Utc>,
    ) -> StoreResult<Option<CachedResult>> {
        self.reader().await?.cached_result(key, since).await
    }
}
