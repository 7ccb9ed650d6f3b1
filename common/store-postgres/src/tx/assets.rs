//! Assets: who uses them, their updates, and the queues of DAGs that wait for them.

use super::PgTx;
use crate::{
    bind::{column, json},
    rows::{dag_columns, decode, get},
};
use gristmill_common::ids::RunPk;
use gristmill_store::{DagRow, NewAssetEvent, NewAssetReference, StoreResult, WaitingAsset};
use sqlx::query;
use std::collections::BTreeMap;

pub(super) async fn put_references(
    tx: &mut PgTx,
    dag_id: &str,
    references: &[NewAssetReference],
) -> StoreResult<()> {
    // By name, so that two deployments meet in one order. What only names an asset leaves its description alone.
    const ASSETS: &str = "
        INSERT INTO assets AS a (name, uri, grp, extra, created_at, updated_at)
        SELECT n.name, n.uri, n.grp, n.extra::json, $1, $1
        FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS n (name, uri, grp, extra)
        ORDER BY n.name COLLATE \"C\"
        ON CONFLICT (name) DO NOTHING";
    const DESCRIBE: &str = "
        UPDATE assets a SET uri = n.uri, grp = n.grp, extra = n.extra::json, updated_at = $1
        FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS n (name, uri, grp, extra)
        WHERE a.name = n.name AND (a.uri, a.grp, a.extra::text) IS DISTINCT FROM (n.uri, n.grp, n.extra)";
    const FORGET: &str = "DELETE FROM asset_references WHERE dag_id = $1";
    const REFER: &str = "
        INSERT INTO asset_references (asset_id, created_at, dag_id, kind, task_id)
        SELECT a.id, $1, $2, n.kind, n.task_id
        FROM unnest($3::text[], $4::text[], $5::text[]) AS n (name, kind, task_id)
        JOIN assets a ON a.name = n.name
        ON CONFLICT DO NOTHING";
    tx.execute(query(FORGET).bind(dag_id)).await?;
    if references.is_empty() {
        return Ok(());
    }
    // Of several descriptions in one DAG the last counts.
    let mut assets = BTreeMap::new();
    for reference in references {
        let asset = &reference.asset;
        if asset.is_described() || !assets.contains_key(asset.name.as_str()) {
            assets.insert(asset.name.as_str(), asset);
        }
    }
    let assets: Vec<_> = assets.into_values().collect();
    let insert = query(ASSETS)
        .bind(tx.now)
        .bind(column(&assets, |a| a.name.as_str()))
        .bind(column(&assets, |a| a.uri()))
        .bind(column(&assets, |a| a.group()))
        .bind(column(&assets, |a| json(&a.extra)));
    tx.execute(insert).await?;
    let described: Vec<_> = assets.into_iter().filter(|a| a.is_described()).collect();
    if !described.is_empty() {
        let describe = query(DESCRIBE)
            .bind(tx.now)
            .bind(column(&described, |a| a.name.as_str()))
            .bind(column(&described, |a| a.uri()))
            .bind(column(&described, |a| a.group()))
            .bind(column(&described, |a| json(&a.extra)));
        tx.execute(describe).await?;
    }
    let refer = query(REFER)
        .bind(tx.now)
        .bind(dag_id)
        .bind(column(references, |r| r.asset.name.as_str()))
        .bind(column(references, |r| r.kind.as_str()))
        .bind(column(references, |r| r.task_id.as_str()));
    tx.execute(refer).await.map(drop)
}

pub(super) async fn put_events(tx: &mut PgTx, events: &[NewAssetEvent]) -> StoreResult<Vec<i64>> {
    const SQL: &str = "
        WITH event AS (
            INSERT INTO asset_events (asset_id, at, extra, dag_id, run_id, task_id, map_index)
            SELECT a.id, $1, n.extra::json, n.dag_id, n.run_id, n.task_id, n.map_index
            FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[])
                WITH ORDINALITY AS n (name, extra, dag_id, run_id, task_id, map_index, place)
            JOIN assets a ON a.name = n.name
            ORDER BY n.place
            RETURNING id, asset_id),
        queued AS (
            INSERT INTO asset_queue (event_id, asset_id, dag_id)
            SELECT e.id, e.asset_id, r.dag_id
            FROM event e
            JOIN asset_references r ON r.asset_id = e.asset_id AND r.kind = 'schedule'
            JOIN dags d ON d.dag_id = r.dag_id AND NOT d.is_paused AND NOT d.is_stale)
        SELECT id FROM event ORDER BY id";
    let source = |event: &NewAssetEvent| event.source.clone();
    let statement = query(SQL)
        .bind(tx.now)
        .bind(column(events, |e| e.asset.as_str()))
        .bind(column(events, |e| json(&e.extra)))
        .bind(column(events, |e| source(e).map(|s| s.dag_id)))
        .bind(column(events, |e| source(e).map(|s| s.run_id)))
        .bind(column(events, |e| source(e).map(|s| s.task_id)))
        .bind(column(events, |e| source(e).map(|s| s.map_index)));
    tx.all(statement)
        .await?
        .iter()
        .map(|row| get(row, "id"))
        .collect()
}

pub(super) async fn lock_dags(tx: &mut PgTx, max: i64) -> StoreResult<Vec<DagRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        dag_columns!(),
        " FROM dags d WHERE EXISTS (SELECT FROM asset_queue q WHERE q.dag_id = d.dag_id AND NOT q.looked)
         ORDER BY d.dag_id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED"
    );
    decode(&tx.all(query(SQL).bind(max)).await?)
}

pub(super) async fn waiting(tx: &mut PgTx, dag_id: &str) -> StoreResult<Vec<WaitingAsset>> {
    const SQL: &str = "
        SELECT q.dag_id, q.asset_id, a.name, max(q.event_id) AS event, max(e.at) AS at
        FROM asset_queue q JOIN assets a ON a.id = q.asset_id JOIN asset_events e ON e.id = q.event_id
        WHERE q.dag_id = $1 GROUP BY q.dag_id, q.asset_id, a.name ORDER BY a.name";
    decode(&tx.all(query(SQL).bind(dag_id)).await?)
}

pub(super) async fn take_events(
    tx: &mut PgTx,
    dag_id: &str,
    up_to: i64,
    run: Option<RunPk>,
) -> StoreResult<()> {
    const SQL: &str = "
        WITH taken AS (DELETE FROM asset_queue WHERE dag_id = $1 AND event_id <= $2 RETURNING event_id)
        INSERT INTO run_asset_events (run_pk, event_id) SELECT $3, event_id FROM taken WHERE $3 IS NOT NULL";
    let statement = query(SQL)
        .bind(dag_id)
        .bind(up_to)
        .bind(run.map(|run| run.0));
    tx.execute(statement).await.map(drop)
}

pub(super) async fn keep_events(
    tx: &mut PgTx,
    dag_id: &str,
    up_to: i64,
    keep: i64,
) -> StoreResult<()> {
    const LOOKED: &str = "
        UPDATE asset_queue SET looked = true WHERE dag_id = $1 AND event_id <= $2 AND NOT looked";
    const FORGET: &str = "
        DELETE FROM asset_queue q
        USING (SELECT event_id, row_number() OVER (PARTITION BY asset_id ORDER BY event_id DESC) AS nth
               FROM asset_queue WHERE dag_id = $1) o
        WHERE q.dag_id = $1 AND q.event_id = o.event_id AND o.nth > $2";
    tx.execute(query(LOOKED).bind(dag_id).bind(up_to)).await?;
    tx.execute(query(FORGET).bind(dag_id).bind(keep))
        .await
        .map(drop)
}
