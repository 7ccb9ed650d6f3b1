//! `…/explain`: why an instance is not running. The facts are gathered here; what they mean is decided in
//! [`crate::explain`].

use super::{
    lookup::{self, TiPath},
    queues::consumers_of,
};
use crate::{
    auth::Viewer,
    error::ApiError,
    explain::{Facts, QueueWorkers, Upstream, reasons},
    extract::{At, Query},
    parts::App,
    view,
};
use axum::{Json, extract::State};
use gristmill_broker::{BrokerError, Source};
use gristmill_common::{
    engine::shared_limit,
    graph::Graph,
    ids::UNMAPPED,
    limit::{LimitKey, LimitRow},
    row::{RunRow, SharedKey, TiRow},
    spec::{DagSpec, TaskSpec},
    state::TaskState,
};
use gristmill_store::TiFilter;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Instances of an upstream that are counted; a mapped one may have more.
const COUNTED: i64 = 10_000;

/// What a task waits for: what it depends on, the setups that it needs besides, and of a teardown what is between its setups and
/// itself. Of members of the same mapped group an instance waits for the one of its own index.
async fn upstreams(
    app: &App,
    run: &RunRow,
    spec: &DagSpec,
    task: &TaskSpec,
    map_index: i32,
) -> Result<Vec<Upstream>, ApiError> {
    let graph = Graph::of(spec);
    let idx = spec.idx(&task.task_id).unwrap_or_default();
    let direct = graph.upstream(idx).iter().map(|up| (up, false));
    let is_teardown = task.teardown.is_some();
    let indirect = graph.indirect_upstream(idx).iter();
    let indirect = indirect.map(|up| (up, !is_teardown));
    let mut upstreams = Vec::with_capacity(task.depends_on.len());
    for (up, is_needed_setup) in direct.chain(indirect) {
        let Some(upstream) = spec.task(*up) else {
            continue;
        };
        let task_id = &upstream.task_id;
        let is_mate = upstream.shares_map(task);
        let filter = TiFilter {
            run: Some(run.pk),
            task_id: Some(task_id.clone()),
            map_index: Some(map_index).filter(|index| is_mate && *index != UNMAPPED),
            limit: COUNTED,
            ..TiFilter::default()
        };
        let mut states: BTreeMap<TaskState, usize> = BTreeMap::new();
        for row in app.store.task_instances(&filter).await?.rows {
            *states.entry(row.state).or_default() += 1;
        }
        upstreams.push(Upstream {
            task_id: task_id.clone(),
            is_needed_setup,
            states,
        });
    }
    Ok(upstreams)
}

async fn broker_ready(app: &App, queue: &str) -> Result<u64, String> {
    match app.broker.depth(&Source::Work(queue.to_owned())).await {
        Ok(depth) => Ok(depth.ready),
        Err(BrokerError::NotFound { .. }) => Ok(0),
        Err(error) => Err(error.to_string()),
    }
}

async fn workers(app: &App, queue: &str) -> Result<QueueWorkers, String> {
    let snapshot = app
        .presence
        .leases()
        .await
        .map_err(|error| error.to_string())?;
    let found = consumers_of(queue, &snapshot.leases);
    Ok(QueueWorkers {
        consumers: found.consumers,
        slots: found.slots,
        free: found.free,
    })
}

/// The worker that has claimed the current dispatch. Without presence nobody knows.
async fn holder(app: &App, ti: &TiRow) -> Option<String> {
    let dispatch = [(ti.pk.0, ti.fence.0)];
    let holders = app.presence.holders(&dispatch).await.ok()?;
    let holder = holders.holders.into_iter().next().flatten()?;
    (!holder.released).then_some(holder.incarnation)
}

/// Whether the worker that runs it has a lease, of presence or over the broker.
async fn lease(app: &App, ti: &TiRow) -> Option<bool> {
    let worker = ti.worker.as_deref()?;
    let leases = app.presence.leases().await.ok()?.leases;
    if leases.iter().any(|lease| lease.info.incarnation == worker) {
        return Some(true);
    }
    let rows = app.store.busy_workers().await.ok()?;
    let row = rows.iter().find(|row| row.incarnation == worker)?;
    let now = app.store.now();
    Some(row.held_until.is_some_and(|until| until > now))
}

/// A pool, with what waits in it added to what is used, if that counts.
async fn pool_with_waits(app: &App, pool: Option<LimitRow>) -> Result<Option<LimitRow>, ApiError> {
    let Some(mut pool) = pool else {
        return Ok(None);
    };
    if let (true, LimitKey::Pool { name }) = (pool.include_deferred, &pool.key) {
        pool.used += app.store.pool_use(name).await?.deferred_slots;
    }
    Ok(Some(pool))
}

async fn facts(app: &App, path: &TiPath) -> Result<Facts, ApiError> {
    let run = path.run(app).await?;
    let version = lookup::version(app, &run).await?;
    let idx = version
        .spec
        .idx(&path.task_id)
        .ok_or_else(|| path.not_found())?;
    let task = version
        .spec
        .task(idx)
        .cloned()
        .ok_or_else(|| path.not_found())?;
    let ti = app
        .store
        .task_instance(run.pk, &path.task_id, path.map_index)
        .await?;
    // Before the run starts there are no instances; every one of them waits for the same.
    if ti.is_none() && !(run.started_at.is_none() && path.map_index == UNMAPPED) {
        return Err(path.not_found());
    }
    let queue = ti.as_ref().map_or(&task.queue, |ti| &ti.queue).clone();
    let pool = ti.as_ref().map_or(&task.pool, |ti| &ti.pool).clone();
    let runs_key = run.limit();
    let pool_key = LimitKey::Pool { name: pool };
    let queue_key = LimitKey::queue(&queue);
    let task_key = LimitKey::Task {
        dag_id: run.dag_id.clone(),
        task_id: task.task_id.clone(),
    };
    let in_run_key = LimitKey::TaskInRun {
        run: run.pk,
        task_id: task.task_id.clone(),
    };
    let mut keys: Vec<LimitKey> = [&runs_key, &pool_key, &queue_key, &task_key, &in_run_key]
        .map(Clone::clone)
        .into();
    let run_key = shared_limit(&run);
    keys.extend(run_key.clone());
    let shared_key = ti
        .as_ref()
        .and_then(|ti| ti.shared.as_ref())
        .map(SharedKey::limit_key);
    keys.extend(shared_key.clone());
    let limits = app.store.limits(&keys).await?;
    let limit =
        |key: &LimitKey| -> Option<LimitRow> { limits.iter().find(|l| l.key == *key).cloned() };
    let dag = app.store.dag(&run.dag_id).await?;
    let holder = match &ti {
        Some(ti) if ti.state == TaskState::Queued => holder(app, ti).await,
        _ => None,
    };
    let lease = match &ti {
        Some(ti) if ti.state == TaskState::Running => lease(app, ti).await,
        _ => None,
    };
    let parallelism = match &ti {
        Some(ti) if ti.state == TaskState::Scheduled => app.store.parallelism().await?,
        _ => (None, 0),
    };
    let components = app.store.components().await?;
    Ok(Facts {
        now: app.store.now(),
        dag_paused: dag.as_ref().is_some_and(|dag| dag.is_paused),
        pause_reason: dag.and_then(|dag| dag.pause_reason),
        backfill_paused: match run.backfill {
            Some(id) if run.started_at.is_none() => {
                let backfill = app.store.backfill(id).await?;
                backfill.is_some_and(|backfill| backfill.is_paused)
            }
            _ => false,
        },
        upstreams: upstreams(app, &run, &version.spec, &task, path.map_index).await?,
        runs_limit: limit(&runs_key),
        run_key: run_key.as_ref().and_then(limit),
        pool: pool_with_waits(app, limit(&pool_key)).await?,
        task_limit: limit(&task_key),
        task_in_run_limit: limit(&in_run_key),
        key_used: shared_key
            .as_ref()
            .and_then(limit)
            .map_or(0, |limit| limit.used),
        queue: limit(&queue_key),
        workers: workers(app, &queue).await,
        broker_ready: broker_ready(app, &queue).await,
        holder,
        lease,
        parallelism,
        scheduler_heard: components
            .iter()
            .filter(|c| c.kind == "scheduler")
            .map(|c| c.heartbeat_at)
            .max(),
        run,
        task,
        ti,
    })
}

async fn answer(app: &App, path: &TiPath) -> Result<Json<Value>, ApiError> {
    let facts = facts(app, path).await?;
    let state = facts
        .ti
        .as_ref()
        .map_or(Value::Null, |ti| view::task_instance::state(ti.state));
    Ok(Json(json!({
        "dag_id": path.dag_id,
        "dag_run_id": path.dag_run_id,
        "task_id": path.task_id,
        "map_index": path.map_index,
        "state": state,
        "run_state": facts.run.state,
        "reasons": reasons(&facts),
    })))
}

pub(super) async fn explain(
    _: Viewer,
    State(app): State<App>,
    At(mut path): At<TiPath>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    path.map_index = query.parse("map_index")?.unwrap_or(UNMAPPED);
    answer(&app, &path).await
}

pub(super) async fn explain_mapped(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
) -> Result<Json<Value>, ApiError> {
    answer(&app, &path).await
}

/// Airflow's form of the same: what blocks an instance, as name and reason.
async fn blocked_by(app: &App, path: &TiPath) -> Result<Json<Value>, ApiError> {
    let facts = facts(app, path).await?;
    let dependencies: Vec<Value> = reasons(&facts)
        .into_iter()
        .map(|reason| json!({ "name": reason["kind"], "reason": reason["message"] }))
        .collect();
    Ok(Json(json!({ "dependencies": dependencies })))
}

pub(super) async fn dependencies(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
) -> Result<Json<Value>, ApiError> {
    blocked_by(&app, &path).await
}

pub(super) async fn mapped_dependencies(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
) -> Result<Json<Value>, ApiError> {
    blocked_by(&app, &path).await
}

/// Links that a task offers to other pages: none has any.
pub(super) async fn links(
    _: Viewer,
    State(app): State<App>,
    At(mut path): At<TiPath>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    if let Some(map_index) = query.parse("map_index")? {
        path.map_index = map_index;
    }
    path.find(&app).await?;
    Ok(Json(json!({ "extra_links": {}, "total_entries": 0 })))
}
