//! Results that may be used again.

use crate::{
    PgStore,
    bind::text,
    rows::{FromPg, decode_optional, get},
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::ids::{RunPk, TiPk};
use gristmill_store::{CachedResult, DataReads, StoreResult};
use sqlx::{postgres::PgRow, query};

#[async_trait]
impl DataReads for PgStore {
    async fn cached_result(
        &self,
        key: &str,
        since: DateTime<Utc>,
    ) -> StoreResult<Option<CachedResult>> {
        // The two conditions on the key are the partial index's.
        const SQL: &str = "
            SELECT r.pk AS run_pk, t.pk AS ti_pk, r.dag_id, r.run_id, t.task_id, t.map_index, t.ended_at
            FROM xcoms x JOIN task_instances t ON t.pk = x.ti_pk JOIN dag_runs r ON r.pk = x.run_pk
            WHERE x.key = $1 AND x.key >= 'cache:' AND x.key < 'cache;' AND t.state = 'success' AND t.ended_at >= $2
            ORDER BY t.ended_at DESC, t.pk DESC LIMIT 1";
        let statement = query(SQL).bind(text(key)).bind(since);
        decode_optional(self.optional(statement).await?)
    }
}

impl FromPg for CachedResult {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            run: RunPk(get(row, "run_pk")?),
            ti: TiPk(get(row, "ti_pk")?),
            dag_id: get(row, "dag_id")?,
            run_id: get(row, "run_id")?,
            task_id: get(row, "task_id")?,
            map_index: get(row, "map_index")?,
            ended_at: get(row, "ended_at")?,
        })
    }
}
