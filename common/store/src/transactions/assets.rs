//! Updates of assets, and the runs that follow them.

use crate::{
    Backend, StoreError, StoreResult, Tx,
    records::{
        AssetEventRow, AssetSource, AssetUse, DagRow, NewAssetEvent, NewAssetReference, NewRun,
        VersionRow, WaitingAsset,
    },
};
use chrono::{DateTime, SecondsFormat, Utc};
use gristmill_common::{
    asset::Asset,
    deadline,
    engine::WorkingSet,
    ids::RunPk,
    row::{RunRow, RunType, TiRow},
    spec::{DagSpec, SensorOn, TaskKind},
    state::TaskState,
};
use serde_json::{Map, Value, json};

/// DAGs that one transaction looks at.
const PASS: i64 = 50;
/// Events of one asset that wait for a DAG at most; older ones are forgotten.
const MAX_WAITING: i64 = 1000;
/// Updates that a run's templates see at most, the newest ones, and their bytes: they go into every message.
const SHOWN: i64 = 100;
const SHOWN_BYTES: usize = 16 * 1024;

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
        if let TaskKind::Sensor(sensor) = &task.kind
            && let SensorOn::Asset(update) = &sensor.on
        {
            references.push(NewAssetReference {
                asset: Asset::named(&update.name),
                kind: AssetUse::Inlet,
                task_id: task.task_id.clone(),
            });
        }
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

/// Loads the updates that made a run, unless they are there: what templates see. Of all other runs it asks nothing.
pub(super) async fn load_events<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    run: RunPk,
) -> StoreResult<()> {
    let made_by_assets = |row: &RunRow| row.run_type == RunType::AssetTriggered;
    if ws.asset_events.contains_key(&run) || !ws.run(run).is_some_and(made_by_assets) {
        return Ok(());
    }
    let mut events = tx.asset_events_of_run(run, SHOWN).await?;
    let mut shown = described(&events);
    while serde_json::to_vec(&shown).map_or(0, |text| text.len()) > SHOWN_BYTES {
        // The oldest go first.
        events.truncate(events.len() / 2);
        shown = described(&events);
    }
    ws.asset_events.insert(run, shown);
    Ok(())
}

/// Updates as templates see them: by asset, the oldest first, with Airflow's names.
fn described(events: &[AssetEventRow]) -> Map<String, Value> {
    let mut by_asset: Map<String, Value> = Map::new();
    for event in events.iter().rev() {
        if let Value::Array(list) = by_asset
            .entry(event.name.clone())
            .or_insert_with(|| Value::Array(Vec::new()))
        {
            list.push(description(event));
        }
    }
    by_asset
}

/// One update, with Airflow's names.
pub(super) fn description(event: &AssetEventRow) -> Value {
    let source = event.source.as_ref();
    json!({
        "asset": event.name,
        "uri": event.uri,
        "timestamp": event.at.to_rfc3339_opts(SecondsFormat::AutoSi, false),
        "extra": event.extra,
        "source_dag_id": source.map(|s| &s.dag_id),
        "source_run_id": source.map(|s| &s.run_id),
        "source_task_id": source.map(|s| &s.task_id),
        "source_map_index": source.map(|s| s.map_index),
    })
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
