//! Limits, and pools, which are limits with a description.

use crate::{
    codec::{Flag, Micros, encode, time},
    session::{Session, args},
};
use gristmill_common::{
    ids::RunPk,
    limit::{QueueRate, RateLimit},
};
use gristmill_store::{LimitKey, LimitRow, PoolRow, StoreError, StoreResult};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

/// Airflow's pool of tasks that name none.
const DEFAULT_POOL: &str = "default_pool";

impl Session {
    pub(crate) async fn ensure_limits(
        &mut self,
        limits: &[(LimitKey, i64)],
        overwrite: bool,
    ) -> StoreResult<()> {
        // `WHERE true`: without it the parser takes ON CONFLICT for a join's ON.
        const SQL: &str = "
            INSERT INTO limits (kind, name, cap)
            SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?1) WHERE true
            ON CONFLICT (kind, name) DO UPDATE SET cap = excluded.cap WHERE ?2 AND cap <> excluded.cap";
        if limits.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = limits
            .iter()
            .map(|(key, cap)| {
                let (kind, name) = key.columns();
                (kind, name, *cap)
            })
            .collect();
        self.execute(SQL, args![encode(&rows)?, overwrite]).await?;
        Ok(())
    }

    /// The limits that exist, in the order of their columns.
    pub(crate) async fn limits(&mut self, keys: &[LimitKey]) -> StoreResult<Vec<LimitRow>> {
        const SQL: &str = "
            SELECT json_array(l.kind, l.name, l.cap, l.used, l.paused, l.include_deferred, l.rate_count, l.rate_seconds, l.rate_full_at)
            FROM jsonb_each(?1) AS k CROSS JOIN limits AS l ON l.kind = k.value ->> 0 AND l.name = k.value ->> 1
            ORDER BY l.kind, l.name";
        #[derive(Deserialize)]
        struct Record {
            kind: String,
            name: String,
            cap: i64,
            used: i64,
            paused: Flag,
            include_deferred: Flag,
            rate_count: Option<i64>,
            rate_seconds: Option<i64>,
            rate_full_at: Option<Micros>,
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let columns: BTreeMap<_, _> = keys.iter().map(|key| (key.columns(), key)).collect();
        let names: Vec<_> = columns.keys().collect();
        let by_name: HashMap<(&str, &str), &LimitKey> = columns
            .iter()
            .map(|((kind, name), key)| ((*kind, name.as_str()), *key))
            .collect();
        let records: Vec<Record> = self.rows(SQL, args![encode(&names)?]).await?;
        Ok(records
            .into_iter()
            .filter_map(|r| {
                let key = by_name.get(&(r.kind.as_str(), r.name.as_str()))?;
                Some(LimitRow {
                    key: (*key).clone(),
                    cap: r.cap,
                    used: r.used,
                    paused: r.paused.0,
                    rate: QueueRate::read(
                        r.rate_count,
                        r.rate_seconds,
                        time(r.rate_full_at),
                        self.now,
                    ),
                    include_deferred: r.include_deferred.0,
                })
            })
            .collect())
    }

    pub(crate) async fn spend_limits(&mut self, deltas: &[(LimitKey, i64)]) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE limits AS l SET used = used + (d.value ->> 2)
            FROM jsonb_each(?1) AS d
            WHERE l.kind = d.value ->> 0 AND l.name = d.value ->> 1
                AND used + (d.value ->> 2) >= 0
                AND (d.value ->> 2 < 0 OR cap < 0 OR used + (d.value ->> 2) <= cap)
            RETURNING json_array(kind, name)";
        // UPDATE … FROM takes one of several rows that meet the same target: they are added up here.
        let mut sums: BTreeMap<(&str, String), i64> = BTreeMap::new();
        for (key, delta) in deltas {
            *sums.entry(key.columns()).or_default() += delta;
        }
        sums.retain(|_, delta| *delta != 0);
        if sums.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = sums
            .iter()
            .map(|((kind, name), delta)| (kind, name, delta))
            .collect();
        let spent: Vec<(String, String)> = self.rows(SQL, args![encode(&rows)?]).await?;
        if spent.len() == sums.len() {
            return Ok(());
        }
        let refused: Vec<_> = sums
            .iter()
            .filter(|((kind, name), _)| !spent.iter().any(|(k, n)| k == kind && n == name))
            .map(|((kind, name), delta)| format!("{kind} {name:?} by {delta:+}"))
            .collect();
        Err(StoreError::Corrupt(format!(
            "a limit that was locked cannot be changed: {}",
            refused.join(", ")
        )))
    }

    /// The bucket is full again so much later: see `RateLimit::take`.
    pub(crate) async fn take_tokens(&mut self, queues: &[(String, i64)]) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE limits SET rate_full_at = max(coalesce(rate_full_at, ?2), ?2)
                + ((q.value ->> 1) * rate_seconds * 1000000 + rate_count - 1) / rate_count
            FROM jsonb_each(?1) AS q
            WHERE kind = 'queue' AND name = q.value ->> 0 AND rate_count IS NOT NULL";
        self.execute(SQL, args![encode(queues)?, self.now]).await?;
        Ok(())
    }

    pub(crate) async fn set_queue_rate(
        &mut self,
        queue: &str,
        rate: Option<RateLimit>,
    ) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO limits (kind, name, cap, rate_count, rate_seconds) VALUES ('queue', ?1, 1000, ?2, ?3)
            ON CONFLICT (kind, name) DO UPDATE
                SET rate_count = excluded.rate_count, rate_seconds = excluded.rate_seconds, rate_full_at = NULL";
        let (count, seconds) = (rate.map(RateLimit::count), rate.map(RateLimit::seconds));
        self.execute(SQL, args![queue, count, seconds]).await?;
        Ok(())
    }

    pub(crate) async fn active_tasks(&mut self, except: &[RunPk]) -> StoreResult<i64> {
        const SQL: &str = "
            SELECT json_array(coalesce(sum(active_tasks), 0)) FROM dag_runs
            WHERE state = 'running' AND pk NOT IN (SELECT value FROM jsonb_each(?1))";
        let (active,) = self.one(SQL, args![encode(except)?]).await?;
        Ok(active)
    }

    pub(crate) async fn parallelism(&mut self) -> StoreResult<(Option<i64>, i64)> {
        const SQL: &str = "SELECT json_array(cap) FROM limits WHERE kind = ?1 AND name = ?2";
        let (kind, name) = LimitKey::Parallelism.columns();
        let cap: Option<(i64,)> = self.row(SQL, args![kind, name]).await?;
        Ok((cap.map(|(cap,)| cap), self.active_tasks(&[]).await?))
    }

    pub(crate) async fn set_parallelism(&mut self, cap: Option<i64>) -> StoreResult<()> {
        const SET: &str = "
            INSERT INTO limits (kind, name, cap) VALUES (?1, ?2, ?3)
            ON CONFLICT (kind, name) DO UPDATE SET cap = excluded.cap";
        const LIFT: &str = "DELETE FROM limits WHERE kind = ?1 AND name = ?2";
        let (kind, name) = LimitKey::Parallelism.columns();
        match cap {
            Some(cap) => self.execute(SET, args![kind, name, cap]).await?,
            None => self.execute(LIFT, args![kind, name]).await?,
        };
        Ok(())
    }

    pub(crate) async fn pools(&mut self) -> StoreResult<Vec<PoolRow>> {
        const SQL: &str = "
            SELECT json_array(name, cap, used, description, include_deferred) FROM limits
            WHERE kind = 'pool' ORDER BY name";
        let rows: Vec<PoolRecord> = self.rows(SQL, args![]).await?;
        Ok(rows.into_iter().map(pool_row).collect())
    }

    pub(crate) async fn put_pool(
        &mut self,
        name: &str,
        slots: i64,
        description: Option<&str>,
        include_deferred: bool,
    ) -> StoreResult<PoolRow> {
        const SQL: &str = "
            INSERT INTO limits (kind, name, cap, description, include_deferred) VALUES ('pool', ?1, ?2, ?3, ?4)
            ON CONFLICT (kind, name) DO UPDATE SET cap = excluded.cap, description = excluded.description,
                include_deferred = excluded.include_deferred
            RETURNING json_array(name, cap, used, description, include_deferred)";
        self.one(SQL, args![name, slots, description, include_deferred])
            .await
            .map(pool_row)
    }

    pub(crate) async fn delete_pool(&mut self, name: &str) -> StoreResult<()> {
        if name == DEFAULT_POOL {
            return Err(StoreError::Refused(format!(
                "{DEFAULT_POOL} cannot be deleted: tasks that name no pool are in it"
            )));
        }
        let used: Option<(i64,)> = self
            .row(
                "SELECT json_array(used) FROM limits WHERE kind = 'pool' AND name = ?1",
                args![name],
            )
            .await?;
        match used {
            None => Err(StoreError::NotFound {
                what: "pool",
                name: name.to_owned(),
            }),
            Some((used,)) if used > 0 => Err(StoreError::Refused(format!(
                "pool {name:?} cannot be deleted: {used} of its slots are occupied"
            ))),
            Some(_) => {
                self.execute(
                    "DELETE FROM limits WHERE kind = 'pool' AND name = ?1",
                    args![name],
                )
                .await?;
                Ok(())
            }
        }
    }
}

type PoolRecord = (String, i64, i64, Option<String>, Flag);

fn pool_row((name, slots, occupied, description, include_deferred): PoolRecord) -> PoolRow {
    PoolRow {
        include_deferred: include_deferred.0,
        name,
        slots,
        occupied,
        description,
    }
}
