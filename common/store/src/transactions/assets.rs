//! Updates of assets, and the runs that follow them.

use crate::{
    Backend, StoreError, StoreResult, Tx,
    records::{
        AssetSource, AssetUse, DagRow, NewAssetEvent, NewAssetReference, NewRun, VersionRow,
        WaitingAsset,
    },
};
use chrono::{DateTime, SecondsFormat, Utc};
use gristmill_common::{
    asset::Asset,
    deadline,
    engine::WorkingSet,
    row::{RunType, TiRow},
    spec::DagSpec,
    state::TaskState,
};
use serde_json::Map;

/// DAGs that one transaction looks at.
const PASS: i64 = 50;
/// Events of one asset that wait for a DAG at most; older ones are forgotten.
const MAX_WAITING: i64 = 1000;

/// Every use of an asset in a DAG.
pub(super) fn references(spec: &DagSpec) -> Vec<NewAssetReference> {
    let scheduled = spec.schedule.assets().map(|when| when.names());
    let mut references: Vec<NewAssetReference> = scheduled
        .into_iter()
        .flatten()
        .map(|name| NewAssetReference {
            asset: Asset::named(name),
            kind: AssetUse::Schedule,
            task_id: String::new(),
        })
        .collect();
    for task in &spec.tasks {
        let of = |assets: &[Asset], kind| -> Vec<NewAssetReference> {
            let reference = |asset: &Asset| NewAssetReference {
                asset: asset.clone(),
                kind,
                task_id: task.task_id.clone(),
            };
            assets.iter().map(reference).collect()
        };
        references.extend(of(&task.inlets, AssetUse::Inlet));
        references.extend(of(&task.outlets, AssetUse::Outlet));
    }
    references
}

/// The updates that an instance's success is, if it has just succeeded.
pub(super) fn updates(
    ws: &WorkingSet,
    before: Option<TaskState>,
    row: &TiRow,
) -> Vec<NewAssetEvent> {
    if row.state != TaskState::Success || before == Some(TaskState::Success) || !row.is_visible() {
        return Vec::new();
    }
    let task = ws.plan_of(row.run).and_then(|plan| plan.task(row.task_idx));
    let Some((task, run)) = task
        .filter(|task| !task.outlets.is_empty())
        .zip(ws.run(row.run))
    else {
        return Vec::new();
    };
    let event = |asset: &Asset| NewAssetEvent {
        asset: asset.name.clone(),
        extra: Map::new(),
        source: Some(AssetSource {
            dag_id: run.dag_id.clone(),
            run_id: run.run_id.clone(),
            task_id: row.task_id.clone(),
            map_index: row.map_index,
        }),
    };
    task.outlets.iter().map(event).collect()
}

pub(crate) async fn create_asset_event<B: Backend>(
    store: &B,
    event: &NewAssetEvent,
) -> StoreResult<i64> {
    let mut tx = store.begin().await?;
    let ids = tx.put_asset_events(std::slice::from_ref(event)).await?;
    let id = ids.into_iter().next().ok_or_else(|| StoreError::NotFound {
        what: "asset",
        name: event.asset.clone(),
    })?;
    tx.commit().await?;
    Ok(id)
}

pub(crate) async fn create_asset_runs<B: Backend>(store: &B) -> StoreResult<usize> {
    let mut tx = store.begin().await?;
    let dags = tx.lock_dags_with_asset_events(PASS).await?;
    for dag in &dags {
        let waiting = tx.waiting_assets(&dag.dag_id).await?;
        let Some(newest) = waiting.iter().max_by_key(|asset| asset.event) else {
            continue;
        };
        let version = tx.version(dag.version).await?.ok_or_else(|| {
            StoreError::Corrupt(format!("DAG {} has no version {}", dag.dag_id, dag.version))
        })?;
        let updated = waiting.iter().map(|asset| asset.name.as_str()).collect();
        match version.spec.schedule.assets() {
            // It does not wait for assets any more.
            None => {
                tx.take_asset_events(&dag.dag_id, newest.event, None)
                    .await?
            }
            Some(when) if when.holds(&updated) && !dag.is_stale => {
                let run = new_run(dag, &version, newest, tx.now());
                // A run of that id is there only if these events have made it already.
                let made = tx.insert_runs(&[run]).await?.pop().flatten();
                tx.take_asset_events(&dag.dag_id, newest.event, made)
                    .await?;
            }
            Some(_) => {
                tx.keep_asset_events(&dag.dag_id, newest.event, MAX_WAITING)
                    .await?;
            }
        }
    }
    tx.commit().await?;
    Ok(dags.len())
}

fn new_run(
    dag: &DagRow,
    version: &VersionRow,
    newest: &WaitingAsset,
    now: DateTime<Utc>,
) -> NewRun {
    let spec = &version.spec;
    let at = newest.at.to_rfc3339_opts(SecondsFormat::Micros, false);
    NewRun {
        dag_id: dag.dag_id.clone(),
        // An event makes one run of a DAG at most.
        run_id: format!("asset_triggered__{at}_{}", newest.event),
        version: dag.version,
        run_type: RunType::AssetTriggered,
        triggered_by: "asset".to_owned(),
        backfill: None,
        logical_date: None,
        data_interval_start: None,
        data_interval_end: None,
        run_after: now,
        conf: Map::new(),
        params: spec.param_defaults(),
        note: None,
        max_active_tasks: i32::try_from(spec.max_active_tasks).unwrap_or(i32::MAX),
        timeout_ms: spec.dagrun_timeout.map(|t| t.millis()),
        next_deadline: deadline::of_new(spec, None, now),
        idempotency: None,
    }
}
