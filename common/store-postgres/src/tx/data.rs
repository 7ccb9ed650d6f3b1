//! Updates of assets, for sensors and templates.

use super::PgTx;
use crate::{
    bind::{column, text},
    rows::{FromPg, decode, get},
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::ids::RunPk;
use gristmill_store::{AssetEventRow, DataTx, StoreResult};
use sqlx::query;

/// An event `e` of an asset `a`, without the runs that it made.
macro_rules! event_columns {
    () => {
        "e.id, e.asset_id, a.name, a.uri, a.grp, e.at, e.extra, e.dag_id, e.run_id, e.task_id, e.map_index, ARRAY[]::bigint[] AS runs"
    };
}

#[async_trait]
impl DataTx for PgTx {
    async fn newest_asset_events(
        &mut self,
        wanted: &[(String, DateTime<Utc>)],
    ) -> StoreResult<Vec<Option<AssetEventRow>>> {
        const SQL: &str = concat!(
            "SELECT w.position, ",
            event_columns!(),
            " FROM unnest($1::text[], $2::timestamptz[]) WITH ORDINALITY AS w (name, since, position)
              JOIN assets a ON a.name = w.name
              CROSS JOIN LATERAL (SELECT * FROM asset_events WHERE asset_id = a.id ORDER BY id DESC LIMIT 1) e
              WHERE e.at >= w.since"
        );
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let statement = query(SQL)
            .bind(column(wanted, |(name, _)| text(name)))
            .bind(column(wanted, |(_, since)| *since));
        let mut found = vec![None; wanted.len()];
        for row in self.all(statement).await? {
            let position: i64 = get(&row, "position")?;
            let place = usize::try_from(position - 1).ok();
            if let Some(place) = place.and_then(|i| found.get_mut(i)) {
                *place = Some(AssetEventRow::from_pg(&row)?);
            }
        }
        Ok(found)
    }

    async fn asset_events_of_run(
        &mut self,
        run: RunPk,
        max: i64,
    ) -> StoreResult<Vec<AssetEventRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            event_columns!(),
            " FROM run_asset_events r JOIN asset_events e ON e.id = r.event_id JOIN assets a ON a.id = e.asset_id
              WHERE r.run_pk = $1 ORDER BY e.id DESC LIMIT $2"
        );
        decode(&self.all(query(SQL).bind(run.0).bind(max)).await?)
    }
}
