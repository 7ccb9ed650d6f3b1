//! Keys that task instances share, and what waits in pools.

use super::PgTx;
use crate::{
    bind::{column, text},
    rows::{get, shared_key},
};
use async_trait::async_trait;
use gristmill_common::ids::{RunPk, TiPk};
use gristmill_store::{KeyHolder, Pushing, SharedLimitTx, StoreError, StoreResult};
use sqlx::query;

/// Of `task_instances w`: it waits, and has begun to.
macro_rules! waits {
    () => {
        "w.state IN ('up_for_reschedule', 'deferred', 'awaiting_input')
         AND (w.state <> 'deferred' OR COALESCE((w.wait ->> 'open')::boolean, false))"
    };
}
pub(crate) use waits;

#[async_trait]
impl SharedLimitTx for PgTx {
    async fn pushing(&mut self, max: i64) -> StoreResult<Vec<Pushing>> {
        const SQL: &str = "
            SELECT t.pk, t.run_pk, r.dag_id, t.concurrency_key, t.concurrency_limit, t.concurrency_strategy
            FROM task_instances t
            JOIN limits l ON l.kind = 'task_key' AND l.name = t.concurrency_key
            JOIN dag_runs r ON r.pk = t.run_pk
            WHERE t.concurrency_strategy IS NOT NULL AND t.state = 'scheduled' AND l.used >= t.concurrency_limit
            ORDER BY t.scheduled_at, t.pk LIMIT $1";
        let rows = self.all(query(SQL).bind(max)).await?;
        let one = |row| {
            Ok(Pushing {
                ti: TiPk(get(row, "pk")?),
                run: RunPk(get(row, "run_pk")?),
                dag_id: get(row, "dag_id")?,
                shared: shared_key(row)?
                    .ok_or_else(|| StoreError::Corrupt("a strategy without a key".to_owned()))?,
            })
        };
        rows.iter().map(one).collect()
    }

    async fn key_holders(&mut self, keys: &[String]) -> StoreResult<Vec<KeyHolder>> {
        const SQL: &str = "
            SELECT t.pk, t.run_pk, r.dag_id, t.concurrency_key, t.state = 'restarting' AS stopping
            FROM task_instances t JOIN dag_runs r ON r.pk = t.run_pk
            WHERE t.concurrency_key <> '' AND t.concurrency_key = ANY ($1) AND t.occupies
              AND t.state IN ('queued', 'running', 'restarting')
            ORDER BY t.queued_at, t.pk";
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self
            .all(query(SQL).bind(column(keys, |key| text(key))))
            .await?;
        let holder = |row| {
            Ok(KeyHolder {
                ti: TiPk(get(row, "pk")?),
                run: RunPk(get(row, "run_pk")?),
                dag_id: get(row, "dag_id")?,
                key: get(row, "concurrency_key")?,
                stopping: get(row, "stopping")?,
            })
        };
        rows.iter().map(holder).collect()
    }

    async fn waiting_slots(
        &mut self,
        pools: &[String],
        except: &[TiPk],
    ) -> StoreResult<Vec<(String, i64)>> {
        const SQL: &str = concat!(
            "SELECT w.pool, sum(w.pool_slots)::bigint AS slots FROM task_instances w
             WHERE w.pool = ANY ($1) AND w.pk <> ALL ($2) AND ",
            waits!(),
            " GROUP BY w.pool"
        );
        let statement = query(SQL)
            .bind(column(pools, |pool| text(pool)))
            .bind(column(except, |ti| ti.0));
        let rows = self.all(statement).await?;
        rows.iter()
            .map(|row| Ok((get(row, "pool")?, get(row, "slots")?)))
            .collect()
    }
}
