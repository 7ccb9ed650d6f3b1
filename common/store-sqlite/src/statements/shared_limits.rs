//! Keys that task instances share, and what waits in pools.

use crate::{
    codec::{Flag, Named, encode},
    session::{Session, args},
    tx::SqliteTx,
};
use async_trait::async_trait;
use gristmill_common::{
    ids::{RunPk, TiPk},
    row::SharedKey,
    spec::Strategy,
};
use gristmill_store::{KeyHolder, Pushing, SharedLimitTx, StoreResult};

/// Of `task_instances AS w`: it waits, and has begun to.
macro_rules! waits {
    () => {
        "w.state IN ('up_for_reschedule', 'deferred', 'awaiting_input') AND (w.state <> 'deferred' OR w.wait ->> 'open' = 1)"
    };
}
pub(super) use waits;

impl Session {
    async fn pushing(&mut self, max: i64) -> StoreResult<Vec<Pushing>> {
        const SQL: &str = "
            SELECT json_array(t.pk, t.run, r.dag_id, t.concurrency_key, t.concurrency_limit, t.concurrency_strategy)
            FROM task_instances AS t
            CROSS JOIN limits AS l ON l.kind = 'task_key' AND l.name = t.concurrency_key
            CROSS JOIN dag_runs AS r ON r.pk = t.run
            WHERE t.concurrency_strategy IS NOT NULL AND t.state = 'scheduled' AND l.used >= t.concurrency_limit
            ORDER BY t.scheduled_at, t.pk LIMIT ?1";
        let rows: Vec<(TiPk, RunPk, String, String, i32, Named<Strategy>)> =
            self.rows(SQL, args![max]).await?;
        let one = |(ti, run, dag_id, key, limit, strategy): (_, _, _, _, _, Named<Strategy>)| {
            let strategy = strategy.0;
            Pushing {
                ti,
                run,
                dag_id,
                shared: SharedKey {
                    key,
                    limit,
                    strategy,
                },
            }
        };
        Ok(rows.into_iter().map(one).collect())
    }

    async fn key_holders(&mut self, keys: &[String]) -> StoreResult<Vec<KeyHolder>> {
        const SQL: &str = "
            SELECT json_array(t.pk, t.run, r.dag_id, t.concurrency_key, t.state = 'restarting')
            FROM task_instances AS t CROSS JOIN dag_runs AS r ON r.pk = t.run
            WHERE t.concurrency_key <> '' AND t.concurrency_key IN (SELECT value FROM jsonb_each(?1)) AND t.occupies = 1
                AND t.state IN ('queued', 'running', 'restarting')
            ORDER BY t.queued_at, t.pk";
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<(TiPk, RunPk, String, String, Flag)> =
            self.rows(SQL, args![encode(keys)?]).await?;
        let holder = |(ti, run, dag_id, key, stopping): (_, _, _, _, Flag)| KeyHolder {
            ti,
            run,
            dag_id,
            key,
            stopping: stopping.0,
        };
        Ok(rows.into_iter().map(holder).collect())
    }

    async fn waiting_slots(
        &mut self,
        pools: &[String],
        except: &[TiPk],
    ) -> StoreResult<Vec<(String, i64)>> {
        const SQL: &str = concat!(
            "SELECT json_array(w.pool, sum(w.pool_slots)) FROM task_instances AS w
             WHERE w.pool IN (SELECT value FROM jsonb_each(?1)) AND w.pk NOT IN (SELECT value FROM jsonb_each(?2)) AND ",
            waits!(),
            " GROUP BY w.pool"
        );
        self.rows(SQL, args![encode(pools)?, encode(except)?]).await
    }
}

#[async_trait]
impl SharedLimitTx for SqliteTx {
    async fn pushing(&mut self, max: i64) -> StoreResult<Vec<Pushing>> {
        self.session()?.pushing(max).await
    }

    async fn key_holders(&mut self, keys: &[String]) -> StoreResult<Vec<KeyHolder>> {
        self.session()?.key_holders(keys).await
    }

    async fn waiting_slots(
        &mut self,
        pools: &[String],
        except: &[TiPk],
    ) -> StoreResult<Vec<(String, i64)>> {
        self.session()?.waiting_slots(pools, except).await
    }
}
