//! Durable copies of XComs.

use crate::{
    codec::{Document, Micros, encode},
    session::{Arg, Session, args},
};
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{Fence, RunPk, TaskIdx, TiPk},
    row::{XcomRow, XcomValue},
};
use gristmill_store::{CachedResult, StoreError, StoreResult, UpstreamXcom};
use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! xcom_row {
    () => {
        "json_array(x.run, x.ti, x.task_idx, x.map_index, x.key, x.fence, x.value, x.object, x.size)"
    };
}

#[derive(Deserialize)]
struct Record {
    run: RunPk,
    ti: TiPk,
    task_idx: TaskIdx,
    map_index: i32,
    key: String,
    fence: Fence,
    value: Option<Document<Value>>,
    object: Option<String>,
    size: Option<u64>,
}

impl TryFrom<Record> for XcomRow {
    type Error = StoreError;

    fn try_from(r: Record) -> StoreResult<Self> {
        let value = match (r.value, r.object, r.size) {
            (Some(value), None, None) => XcomValue::Inline(value.0),
            (None, Some(key), Some(size)) => XcomValue::Object { key, size },
            _ => {
                return Err(StoreError::Corrupt(format!(
                    "XCom {:?} of task instance {} is neither a value nor an object",
                    r.key, r.ti
                )));
            }
        };
        Ok(Self {
            run: r.run,
            ti: r.ti,
            task_idx: r.task_idx,
            map_index: r.map_index,
            key: r.key,
            fence: r.fence,
            value,
        })
    }
}

type RefRecord = (TaskIdx, i32, TiPk, Fence, String, Option<String>);

fn upstream((task_idx, map_index, ti, fence, key, object): RefRecord) -> UpstreamXcom {
    UpstreamXcom {
        task_idx,
        map_index,
        ti,
        fence,
        key,
        object,
    }
}

impl Session {
    pub(crate) async fn put_xcoms(&mut self, xcoms: &[XcomRow]) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO xcoms (run, ti, task_idx, map_index, key, fence, value, object, size)
            SELECT value ->> 'run', value ->> 'ti', value ->> 'task_idx', value ->> 'map_index', value ->> 'key',
                value ->> 'fence', value ->> 'value', value ->> 'object', value ->> 'size'
            FROM jsonb_each(?1) WHERE true
            ON CONFLICT (run, task_idx, map_index, key) DO UPDATE SET
                fence = excluded.fence, value = excluded.value, object = excluded.object, size = excluded.size
            WHERE excluded.fence >= xcoms.fence";
        #[derive(Serialize)]
        struct Json<'a> {
            run: RunPk,
            ti: TiPk,
            task_idx: TaskIdx,
            map_index: i32,
            key: &'a str,
            fence: Fence,
            object: Option<&'a str>,
            size: Option<u64>,
            value: Option<Document<&'a Value>>,
        }
        if xcoms.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = xcoms
            .iter()
            .map(|x| {
                let (value, object, size) = match &x.value {
                    XcomValue::Inline(value) => (Some(Document(value)), None, None),
                    XcomValue::Object { key, size } => (None, Some(key.as_str()), Some(*size)),
                };
                Json {
                    run: x.run,
                    ti: x.ti,
                    task_idx: x.task_idx,
                    map_index: x.map_index,
                    key: &x.key,
                    fence: x.fence,
                    object,
                    size,
                    value,
                }
            })
            .collect();
        self.execute(SQL, args![encode(&rows)?]).await?;
        Ok(())
    }

    pub(crate) async fn xcoms_of_tasks(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        keys: &[String],
    ) -> StoreResult<Vec<XcomRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            xcom_row!(),
            " FROM xcoms AS x
              WHERE x.run = ?1 AND x.task_idx IN (SELECT value FROM jsonb_each(?2))
                AND x.key IN (SELECT value FROM jsonb_each(?3))
              ORDER BY x.task_idx, x.map_index, x.key"
        );
        self.xcom_rows(SQL, args![run.0, encode(tasks)?, encode(keys)?])
            .await
    }

    pub(crate) async fn xcom_refs(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        max: i64,
    ) -> StoreResult<Vec<UpstreamXcom>> {
        const SQL: &str = "
            SELECT json_array(task_idx, map_index, ti, fence, key, object) FROM xcoms
            WHERE run = ?1 AND task_idx IN (SELECT value FROM jsonb_each(?2))
            ORDER BY task_idx, map_index, key LIMIT ?3";
        let args = args![run.0, encode(tasks)?, max.saturating_add(1)];
        let rows: Vec<RefRecord> = self.rows(SQL, args).await?;
        Ok(rows.into_iter().map(upstream).collect())
    }

    pub(crate) async fn xcom_refs_at(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        map_indexes: &[i32],
    ) -> StoreResult<Vec<UpstreamXcom>> {
        const SQL: &str = "
            SELECT json_array(task_idx, map_index, ti, fence, key, object) FROM xcoms
            WHERE run = ?1 AND task_idx IN (SELECT value FROM jsonb_each(?2))
                AND map_index IN (SELECT value FROM jsonb_each(?3))
            ORDER BY task_idx, map_index, key";
        let args = args![run.0, encode(tasks)?, encode(map_indexes)?];
        let rows: Vec<RefRecord> = self.rows(SQL, args).await?;
        Ok(rows.into_iter().map(upstream).collect())
    }

    pub(crate) async fn xcoms(
        &mut self,
        run: RunPk,
        ti: Option<TiPk>,
        key: Option<&str>,
    ) -> StoreResult<Vec<XcomRow>> {
        const OF_RUN: &str = concat!(
            "SELECT ",
            xcom_row!(),
            " FROM xcoms AS x WHERE x.run = ?1 AND (?2 IS NULL OR x.key = ?2)
              ORDER BY x.task_idx, x.map_index, x.key"
        );
        // An instance is found by its place in the run, which is what XComs are indexed by.
        const OF_INSTANCE: &str = concat!(
            "SELECT ",
            xcom_row!(),
            " FROM task_instances AS t CROSS JOIN xcoms AS x
                ON x.run = t.run AND x.task_idx = t.task_idx AND x.map_index = t.map_index
              WHERE t.pk = ?3 AND t.run = ?1 AND (?2 IS NULL OR x.key = ?2) ORDER BY x.key"
        );
        match ti {
            Some(ti) => self.xcom_rows(OF_INSTANCE, args![run.0, key, ti.0]).await,
            None => self.xcom_rows(OF_RUN, args![run.0, key]).await,
        }
    }

    pub(crate) async fn xcoms_of_task(
        &mut self,
        run: RunPk,
        task: TaskIdx,
        key: &str,
    ) -> StoreResult<Vec<XcomRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            xcom_row!(),
            " FROM xcoms AS x WHERE x.run = ?1 AND x.task_idx = ?2 AND x.key = ?3 ORDER BY x.map_index"
        );
        self.xcom_rows(SQL, args![run.0, task, key]).await
    }

    async fn xcom_rows(&mut self, sql: &'static str, args: Vec<Arg>) -> StoreResult<Vec<XcomRow>> {
        let records: Vec<Record> = self.rows(sql, args).await?;
        records.into_iter().map(XcomRow::try_from).collect()
    }

    pub(crate) async fn cached_result(
        &mut self,
        key: &str,
        since: DateTime<Utc>,
    ) -> StoreResult<Option<CachedResult>> {
        // The two conditions on the key are the partial index's.
        const SQL: &str = "
            SELECT json_array(r.pk, t.pk, r.dag_id, r.run_id, t.task_id, t.map_index, t.ended_at)
            FROM xcoms AS x CROSS JOIN task_instances AS t ON t.pk = x.ti CROSS JOIN dag_runs AS r ON r.pk = x.run
            WHERE x.key = ?1 AND x.key >= 'cache:' AND x.key < 'cache;' AND t.state = 'success' AND t.ended_at >= ?2
            ORDER BY t.ended_at DESC, t.pk DESC LIMIT 1";
        type Found = (RunPk, TiPk, String, String, String, i32, Micros);
        let found: Option<Found> = self.row(SQL, args![key, since]).await?;
        Ok(found.map(
            |(run, ti, dag_id, run_id, task_id, map_index, ended_at)| CachedResult {
                run,
                ti,
                dag_id,
                run_id,
                task_id,
                map_index,
                ended_at: ended_at.0,
            },
        ))
    }
}
