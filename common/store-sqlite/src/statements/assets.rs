//! Assets: who uses them, their updates, and the queues of DAGs that wait for them.

use super::dags::{dag_row, dags_with_version};
use crate::{
    codec::{Document, Micros, encode},
    session::{Session, args},
};
use chrono::{DateTime, Utc};
use gristmill_common::ids::RunPk;
use gristmill_store::{
    AssetEventFilter, AssetEventRow, AssetReference, AssetRow, AssetSource, AssetUse, DagRow,
    NewAssetEvent, NewAssetReference, Page, StoreResult, WaitingAsset,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// An asset `a` with who uses it and its newest event, in the order of [`AssetRecord`].
macro_rules! assets {
    () => {
        "SELECT json_array(a.id, a.name, a.uri, a.grp, a.extra, a.created_at, a.updated_at,
            (SELECT json_group_array(json_array(dag_id, kind, task_id, created_at)) FROM (
                SELECT * FROM asset_references WHERE asset_id = a.id ORDER BY kind, dag_id, task_id)),
            e.id, e.at)
         FROM assets AS a
         LEFT JOIN asset_events AS e ON e.id = (SELECT max(id) FROM asset_events WHERE asset_id = a.id) "
    };
}

#[derive(Deserialize)]
struct AssetRecord {
    id: i64,
    name: String,
    uri: String,
    group: String,
    extra: Document<Map<String, Value>>,
    created_at: Micros,
    updated_at: Micros,
    references: Vec<(String, AssetUse, String, Micros)>,
    event: Option<i64>,
    event_at: Option<Micros>,
}

impl From<AssetRecord> for AssetRow {
    fn from(r: AssetRecord) -> Self {
        let reference = |(dag_id, kind, task_id, created_at): (_, _, _, Micros)| AssetReference {
            dag_id,
            kind,
            task_id,
            created_at: created_at.0,
        };
        Self {
            id: r.id,
            name: r.name,
            uri: r.uri,
            group: r.group,
            extra: r.extra.0,
            created_at: r.created_at.0,
            updated_at: r.updated_at.0,
            references: r.references.into_iter().map(reference).collect(),
            last_event: r.event.zip(r.event_at.map(|at| at.0)),
        }
    }
}

/// An event `e` of an asset `a`, in the order of [`EventRecord`], without the runs that it made.
macro_rules! event_row {
    () => {
        "json_array(e.id, e.asset_id, a.name, a.uri, a.grp, e.at, e.extra, e.dag_id, e.run_id, e.task_id, e.map_index, json_array())"
    };
}

#[derive(Deserialize)]
struct EventRecord {
    id: i64,
    asset_id: i64,
    name: String,
    uri: String,
    group: String,
    at: Micros,
    extra: Document<Map<String, Value>>,
    dag_id: Option<String>,
    run_id: Option<String>,
    task_id: Option<String>,
    map_index: Option<i32>,
    runs: Vec<RunPk>,
}

impl From<EventRecord> for AssetEventRow {
    fn from(r: EventRecord) -> Self {
        let source = match (r.dag_id, r.run_id, r.task_id) {
            (Some(dag_id), Some(run_id), Some(task_id)) => Some(AssetSource {
                dag_id,
                run_id,
                task_id,
                map_index: r.map_index.unwrap_or(gristmill_common::ids::UNMAPPED),
            }),
            _ => None,
        };
        Self {
            id: r.id,
            asset_id: r.asset_id,
            name: r.name,
            uri: r.uri,
            group: r.group,
            at: r.at.0,
            extra: r.extra.0,
            source,
            runs: r.runs,
        }
    }
}

#[derive(Deserialize)]
struct WaitingRecord {
    dag_id: String,
    asset_id: i64,
    name: String,
    event: i64,
    at: Micros,
}

impl Session {
    pub(crate) async fn put_asset_references(
        &mut self,
        dag_id: &str,
        references: &[NewAssetReference],
    ) -> StoreResult<()> {
        const FORGET: &str = "DELETE FROM asset_references WHERE dag_id = ?1";
        const NAME: &str = "
            INSERT INTO assets (name, uri, grp, extra, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?5)
            ON CONFLICT (name) DO NOTHING";
        // What only names an asset leaves its description alone.
        const DESCRIBE: &str = "
            UPDATE assets SET uri = ?2, grp = ?3, extra = ?4, updated_at = ?5
            WHERE name = ?1 AND (uri, grp, extra) IS NOT (?2, ?3, ?4)";
        const REFER: &str = "
            INSERT INTO asset_references (asset_id, kind, dag_id, task_id, created_at)
            SELECT id, ?2, ?3, ?4, ?5 FROM assets WHERE name = ?1
            ON CONFLICT DO NOTHING";
        self.execute(FORGET, args![dag_id]).await?;
        for NewAssetReference {
            asset,
            kind,
            task_id,
        } in references
        {
            let described = args![
                asset.name.as_str(),
                asset.uri(),
                asset.group(),
                encode(&asset.extra)?,
                self.now,
            ];
            self.execute(NAME, described.clone()).await?;
            if asset.is_described() {
                self.execute(DESCRIBE, described).await?;
            }
            let reference = args![
                asset.name.as_str(),
                kind.as_str(),
                dag_id,
                task_id.as_str(),
                self.now,
            ];
            self.execute(REFER, reference).await?;
        }
        Ok(())
    }

    pub(crate) async fn put_asset_events(
        &mut self,
        events: &[NewAssetEvent],
    ) -> StoreResult<Vec<i64>> {
        const EVENT: &str = "
            INSERT INTO asset_events (asset_id, at, extra, dag_id, run_id, task_id, map_index)
            SELECT id, ?2, ?3, ?4, ?5, ?6, ?7 FROM assets WHERE name = ?1 RETURNING json_array(id)";
        const QUEUE: &str = "
            INSERT INTO asset_queue (dag_id, event_id, asset_id)
            SELECT r.dag_id, e.id, e.asset_id
            FROM asset_events AS e
            CROSS JOIN asset_references AS r ON r.asset_id = e.asset_id AND r.kind = 'schedule'
            CROSS JOIN dags AS d ON d.dag_id = r.dag_id AND d.is_paused = 0 AND d.is_stale = 0
            WHERE e.id = ?1";
        let mut ids = Vec::with_capacity(events.len());
        for event in events {
            let source = event.source.as_ref();
            let inserted: Option<(i64,)> = self
                .row(
                    EVENT,
                    args![
                        event.asset.as_str(),
                        self.now,
                        encode(&event.extra)?,
                        source.map(|s| s.dag_id.as_str()),
                        source.map(|s| s.run_id.as_str()),
                        source.map(|s| s.task_id.as_str()),
                        source.map(|s| s.map_index),
                    ],
                )
                .await?;
            if let Some((id,)) = inserted {
                self.execute(QUEUE, args![id]).await?;
                ids.push(id);
            }
        }
        Ok(ids)
    }

    pub(crate) async fn dags_with_asset_events(&mut self, max: i64) -> StoreResult<Vec<DagRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            dag_row!(),
            dags_with_version!(),
            "WHERE d.dag_id IN (SELECT dag_id FROM asset_queue WHERE looked = 0) ORDER BY d.dag_id LIMIT ?1"
        );
        self.dag_rows(SQL, args![max]).await
    }

    pub(crate) async fn take_asset_events(
        &mut self,
        dag_id: &str,
        up_to: i64,
        run: Option<RunPk>,
    ) -> StoreResult<()> {
        const LINK: &str = "
            INSERT INTO run_asset_events (run, event_id)
            SELECT ?3, event_id FROM asset_queue WHERE dag_id = ?1 AND event_id <= ?2";
        const TAKE: &str = "DELETE FROM asset_queue WHERE dag_id = ?1 AND event_id <= ?2";
        if let Some(run) = run {
            self.execute(LINK, args![dag_id, up_to, run.0]).await?;
        }
        self.execute(TAKE, args![dag_id, up_to]).await.map(drop)
    }

    pub(crate) async fn keep_asset_events(
        &mut self,
        dag_id: &str,
        up_to: i64,
        keep: i64,
    ) -> StoreResult<()> {
        const LOOKED: &str =
            "UPDATE asset_queue SET looked = 1 WHERE dag_id = ?1 AND event_id <= ?2 AND looked = 0";
        const FORGET: &str = "
            DELETE FROM asset_queue WHERE dag_id = ?1 AND event_id IN (
                SELECT event_id FROM (
                    SELECT event_id, row_number() OVER (PARTITION BY asset_id ORDER BY event_id DESC) AS nth
                    FROM asset_queue WHERE dag_id = ?1)
                WHERE nth > ?2)";
        self.execute(LOOKED, args![dag_id, up_to]).await?;
        self.execute(FORGET, args![dag_id, keep]).await.map(drop)
    }

    pub(crate) async fn queued_asset_events(
        &mut self,
        dag_id: Option<&str>,
        asset_id: Option<i64>,
    ) -> StoreResult<Vec<WaitingAsset>> {
        const SQL: &str = "
            SELECT json_array(q.dag_id, q.asset_id, a.name, max(q.event_id), max(e.at))
            FROM asset_queue AS q
            CROSS JOIN assets AS a ON a.id = q.asset_id CROSS JOIN asset_events AS e ON e.id = q.event_id
            WHERE (?1 IS NULL OR q.dag_id = ?1) AND (?2 IS NULL OR q.asset_id = ?2)
            GROUP BY q.dag_id, q.asset_id ORDER BY q.dag_id, a.name";
        let records: Vec<WaitingRecord> = self.rows(SQL, args![dag_id, asset_id]).await?;
        let waiting = records.into_iter().map(|r| WaitingAsset {
            dag_id: r.dag_id,
            asset_id: r.asset_id,
            name: r.name,
            event: r.event,
            at: r.at.0,
        });
        Ok(waiting.collect())
    }

    pub(crate) async fn delete_queued_asset_events(
        &mut self,
        dag_id: Option<&str>,
        asset_id: Option<i64>,
    ) -> StoreResult<u64> {
        const SQL: &str = "
            DELETE FROM asset_queue WHERE (?1 IS NULL OR dag_id = ?1) AND (?2 IS NULL OR asset_id = ?2)";
        self.execute(SQL, args![dag_id, asset_id]).await
    }

    pub(crate) async fn asset(&mut self, id: i64) -> StoreResult<Option<AssetRow>> {
        const SQL: &str = concat!(assets!(), "WHERE a.id = ?1");
        let record: Option<AssetRecord> = self.row(SQL, args![id]).await?;
        Ok(record.map(AssetRow::from))
    }

    pub(crate) async fn assets(
        &mut self,
        pattern: Option<&str>,
        dag_ids: &[String],
        limit: i64,
        offset: i64,
    ) -> StoreResult<Page<AssetRow>> {
        macro_rules! matching {
            () => {
                "WHERE (?1 IS NULL OR instr(a.name, ?1) > 0 OR instr(a.uri, ?1) > 0)
                    AND (?2 = '[]' OR EXISTS (SELECT 1 FROM asset_references AS r
                        WHERE r.asset_id = a.id AND r.dag_id IN (SELECT value FROM jsonb_each(?2))))"
            };
        }
        const ROWS: &str = concat!(
            assets!(),
            matching!(),
            " ORDER BY a.name LIMIT ?3 OFFSET ?4"
        );
        const TOTAL: &str = concat!("SELECT json_array(count(*)) FROM assets AS a ", matching!());
        let dags = encode(dag_ids)?;
        let (total,) = self.one(TOTAL, args![pattern, dags.as_str()]).await?;
        let records: Vec<AssetRecord> =
            self.rows(ROWS, args![pattern, dags, limit, offset]).await?;
        let rows = records.into_iter().map(AssetRow::from).collect();
        Ok(Page { rows, total })
    }

    pub(crate) async fn asset_events(
        &mut self,
        filter: &AssetEventFilter,
    ) -> StoreResult<Page<AssetEventRow>> {
        macro_rules! matching {
            () => {
                " FROM asset_events AS e CROSS JOIN assets AS a ON a.id = e.asset_id
                  WHERE (?1 IS NULL OR e.id = ?1) AND (?2 IS NULL OR e.asset_id = ?2)
                    AND (?3 IS NULL OR e.dag_id = ?3) AND (?4 IS NULL OR e.run_id = ?4)
                    AND (?5 IS NULL OR e.task_id = ?5)
                    AND (?6 IS NULL OR e.id IN (SELECT event_id FROM run_asset_events WHERE run = ?6))"
            };
        }
        const ROWS: &str = concat!(
            "SELECT json_array(e.id, e.asset_id, a.name, a.uri, a.grp, e.at, e.extra, e.dag_id, e.run_id, e.task_id, e.map_index,
                (SELECT json_group_array(run) FROM (
                    SELECT run FROM run_asset_events WHERE event_id = e.id ORDER BY run)))",
            matching!(),
            " ORDER BY e.id DESC LIMIT ?7 OFFSET ?8"
        );
        const TOTAL: &str = concat!("SELECT json_array(count(*))", matching!());
        let mut args = args![
            filter.id,
            filter.asset_id,
            filter.source_dag_id.as_deref(),
            filter.source_run_id.as_deref(),
            filter.source_task_id.as_deref(),
            filter.run.map(|run| run.0),
        ];
        let (total,) = self.one(TOTAL, args.clone()).await?;
        args.extend(args![filter.limit, filter.offset]);
        let records: Vec<EventRecord> = self.rows(ROWS, args).await?;
        let rows = records.into_iter().map(AssetEventRow::from).collect();
        Ok(Page { rows, total })
    }

    pub(crate) async fn newest_asset_events(
        &mut self,
        wanted: &[(String, DateTime<Utc>)],
    ) -> StoreResult<Vec<Option<AssetEventRow>>> {
        const SQL: &str = concat!(
            "SELECT ",
            event_row!(),
            " FROM assets AS a CROSS JOIN asset_events AS e ON e.asset_id = a.id
              WHERE a.name = ?1 AND e.at >= ?2 ORDER BY e.id DESC LIMIT 1"
        );
        let mut found = Vec::with_capacity(wanted.len());
        for (name, since) in wanted {
            let record: Option<EventRecord> = self.row(SQL, args![name.as_str(), *since]).await?;
            found.push(record.map(AssetEventRow::from));
        }
        Ok(found)
    }

    pub(crate) async fn asset_events_of_run(
        &mut self,
        run: RunPk,
        max: i64,
    ) -> StoreResult<Vec<AssetEventRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            event_row!(),
            " FROM run_asset_events AS r CROSS JOIN asset_events AS e ON e.id = r.event_id
              CROSS JOIN assets AS a ON a.id = e.asset_id
              WHERE r.run = ?1 ORDER BY e.id DESC LIMIT ?2"
        );
        let records: Vec<EventRecord> = self.rows(SQL, args![run.0, max]).await?;
        Ok(records.into_iter().map(AssetEventRow::from).collect())
    }
}
