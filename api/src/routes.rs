//! The routes, a file per noun.

mod absent;
mod amend;
mod artifacts;
mod assets;
mod backfills;
mod bulk;
mod callbacks;
mod clear;
mod connections;
mod dag_list;
mod dag_runs;
mod dag_stats;
mod dags;
mod deploy;
mod event_logs;
mod explain;
mod health;
mod hitl;
mod home;
mod internal;
mod jobs;
mod logs;
mod lookup;
mod mark;
mod openapi;
mod parallelism;
mod patch_run;
mod pools;
mod queues;
mod settings;
mod task_instances;
mod tokens;
mod trigger;
mod variables;
mod versions;
mod wait;
mod workers;
mod xcoms;

use crate::{
    error::ApiError,
    extract::raw_body,
    parts::{ApiParts, App},
    shared::Shared,
};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use gristmill_objects::bundle;
use std::{any::Any, sync::Arc, time::Duration};
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, timeout::TimeoutLayer,
    trace::TraceLayer,
};

/// Longest body of a request that is no deployment.
const MAX_BODY: usize = 1 << 20;
/// Longest a request may take that does not wait for something on purpose.
const TIMEOUT: Duration = Duration::from_secs(60);

const DAG: &str = "/api/v2/dags/{dag_id}";
const RUN: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}";
const TI: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}";

/// Every route. Needs a tokio runtime to serve.
pub fn router(parts: ApiParts) -> Router {
    let app: App = Arc::new(Shared::new(parts));
    let at_once = Router::new()
        .merge(open())
        .merge(dag_routes())
        .merge(run_routes())
        .merge(other_routes())
        .merge(time_routes())
        .layer(middleware::from_fn(body_first))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            TIMEOUT,
        ))
        .layer(CompressionLayer::new());
    Router::new()
        .merge(at_once)
        .merge(waiting())
        .fallback(|| async { ApiError::NotFound("Not Found".to_owned()) })
        .method_not_allowed_fallback(|| async {
            let body = axum::Json(serde_json::json!({ "detail": "Method Not Allowed" }));
            (StatusCode::METHOD_NOT_ALLOWED, body)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TraceLayer::new_for_http())
        .with_state(app)
}

/// What needs no token.
fn open() -> Router<App> {
    Router::new()
        .route("/", get(home::page))
        .route("/docs", get(home::docs))
        .route("/openapi.json", get(openapi::document))
        .route("/auth/token", post(tokens::sign_in))
        .route("/health", get(health::health))
        .route("/metrics", get(health::metrics))
        .route("/api/v2/monitor/health", get(health::monitor))
        .route("/api/v2/version", get(health::version))
        .route("/api/v2/auth/login", get(absent::login))
        .route("/api/v2/auth/logout", get(absent::login))
        // With a run's own token.
        .route("/internal/v1/runs/{run}/xcoms", get(internal::xcoms))
        .route("/internal/v1/runs/{run}/cache", get(internal::cache))
}

fn dag_routes() -> Router<App> {
    Router::new()
        .route(
            "/api/v2/dags",
            get(dag_list::list).patch(dag_list::patch_all),
        )
        .route("/api/v2/dagTags", get(dag_list::tags))
        .route("/api/v2/dagWarnings", get(settings::dag_warnings))
        .route(&format!("{DAG}/favorite"), post(dag_list::favorite))
        .route(&format!("{DAG}/unfavorite"), post(dag_list::unfavorite))
        .route(&format!("{DAG}/details"), get(dags::details))
        .route(&format!("{DAG}/tasks"), get(dags::tasks))
        .route(&format!("{DAG}/tasks/{{task_id}}"), get(dags::task))
        .route(&format!("{DAG}/dagVersions"), get(dags::versions))
        .route(
            &format!("{DAG}/dagVersions/{{version_number}}"),
            get(dags::version),
        )
        .route(
            &format!("{DAG}/dagVersions/{{version_number}}/diff"),
            get(versions::diff),
        )
        .route("/api/v2/dagSources/{dag_id}", get(dags::source))
        .route("/api/v2/dagStats", get(dag_stats::stats))
        .route("/api/v2/importErrors", get(event_logs::import_errors))
        .route(
            "/api/v2/importErrors/{import_error_id}",
            get(event_logs::one_import_error),
        )
        .route(
            "/api/v2/parseDagFile/{file_token}",
            put(absent::parse_dag_file),
        )
}

fn run_routes() -> Router<App> {
    Router::new()
        .route(
            RUN,
            get(dag_runs::get_one)
                // `POST …/dagRuns/list`: a run may be called `list`.
                .post(dag_runs::list_batch)
                .patch(patch_run::patch)
                .delete(dag_runs::delete),
        )
        .route(&format!("{RUN}/cancel"), post(patch_run::cancel))
        .route(&format!("{RUN}/clear"), post(clear::run))
        .route(
            &format!("{DAG}/clearTaskInstances"),
            post(clear::task_instances),
        )
        .route(&format!("{DAG}/clearDagRuns"), post(clear::runs))
        .route(&format!("{DAG}/clearPartitions"), post(absent::partitions))
        .route(
            &format!("{RUN}/taskInstances"),
            get(task_instances::list).patch(bulk::task_instances),
        )
        .route(
            &format!("{RUN}/taskGroupInstances/{{group_id}}"),
            axum::routing::patch(mark::patch_group),
        )
        .route(
            &format!("{RUN}/taskGroupInstances/{{group_id}}/dry_run"),
            axum::routing::patch(mark::dry_run_group),
        )
        .merge(ti_routes())
        .route(
            TI,
            get(task_instances::get_one)
                // `POST …/taskInstances/list`: a task may be called `list`.
                .post(task_instances::list_batch)
                .patch(mark::patch)
                .delete(absent::delete_task_instance),
        )
        .route(
            &format!("{TI}/dry_run"),
            axum::routing::patch(mark::dry_run),
        )
        .route(
            &format!("{TI}/{{map_index}}"),
            get(task_instances::get_mapped).patch(mark::patch),
        )
        .route(
            &format!("{TI}/{{map_index}}/dry_run"),
            axum::routing::patch(mark::dry_run),
        )
        .route(
            &format!("{TI}/listMapped"),
            get(task_instances::list_mapped),
        )
        .route(&format!("{TI}/tries"), get(task_instances::tries))
        .route(
            &format!("{TI}/{{map_index}}/tries"),
            get(task_instances::mapped_tries),
        )
        .route(
            &format!("{TI}/tries/{{task_try_number}}"),
            get(task_instances::one_try),
        )
        .route(
            &format!("{TI}/{{map_index}}/tries/{{task_try_number}}"),
            get(task_instances::one_try),
        )
        .route(&format!("{TI}/explain"), get(explain::explain))
        .route(
            &format!("{TI}/{{map_index}}/explain"),
            get(explain::explain_mapped),
        )
        .route(&format!("{TI}/dependencies"), get(explain::dependencies))
        .route(
            &format!("{TI}/{{map_index}}/dependencies"),
            get(explain::mapped_dependencies),
        )
        .route(&format!("{RUN}/hitlDetails"), get(hitl::list))
        .route(
            &format!("{TI}/{{map_index}}/hitlDetails"),
            get(hitl::get_one).patch(hitl::answer),
        )
        .route(
            &format!("{TI}/{{map_index}}/hitlDetails/tries/{{try_number}}"),
            get(hitl::one_try),
        )
        .route(
            &format!("{TI}/xcomEntries"),
            get(xcoms::list).post(xcoms::create),
        )
        .route(
            &format!("{TI}/xcomEntries/{{xcom_key}}"),
            get(xcoms::get_one)
                .patch(xcoms::update)
                .delete(xcoms::delete),
        )
}

/// What Airflow has of task instances and we have otherwise, or not.
fn ti_routes() -> Router<App> {
    let store = &format!("{TI}/state-store");
    let absent = absent::task_state_store;
    Router::new()
        .route(&format!("{TI}/links"), get(explain::links))
        .route(
            &format!("{TI}/externalLogUrl/{{try_number}}"),
            get(absent::external_log_url),
        )
        .route(store, get(absent).delete(absent))
        .route(
            &format!("{store}/{{key}}"),
            get(absent).put(absent).patch(absent).delete(absent),
        )
        .route(&format!("{RUN}/artifacts"), get(artifacts::of_run))
        .route(&format!("{TI}/artifacts"), get(artifacts::list))
        .route(
            &format!("{TI}/artifacts/{{*name}}"),
            get(artifacts::download),
        )
}

fn other_routes() -> Router<App> {
    Router::new()
        .route("/api/v2/queues", get(queues::list))
        .route(
            "/api/v2/queues/{queue}",
            get(queues::get_one).patch(queues::patch),
        )
        .route("/api/v2/queues/{queue}/pause", post(queues::pause))
        .route("/api/v2/queues/{queue}/resume", post(queues::resume))
        .route(
            "/api/v2/queues/{queue}/rateLimit",
            axum::routing::put(queues::rate_limit),
        )
        .route(
            "/api/v2/parallelism",
            get(parallelism::get).put(parallelism::put),
        )
        .route("/api/v2/workers", get(workers::list))
        .route(
            "/api/v2/pools",
            get(pools::list).post(pools::create).patch(bulk::pools),
        )
        .route(
            "/api/v2/pools/{pool_name}",
            get(pools::get_one)
                .patch(pools::patch)
                .delete(pools::delete),
        )
        .route(
            "/api/v2/variables",
            get(variables::list)
                .post(variables::create)
                .patch(bulk::variables),
        )
        .route(
            "/api/v2/variables/{variable_key}",
            get(variables::get_one)
                .patch(variables::patch)
                .delete(variables::delete),
        )
        .route(
            "/api/v2/connections",
            get(connections::list)
                .post(connections::create)
                .patch(bulk::connections),
        )
        .route(
            "/api/v2/connections/{connection_id}",
            get(connections::get_one)
                // `POST /connections/test` and others: a connection may be called `test`.
                .post(connections::post_to)
                .patch(connections::patch)
                .delete(connections::delete),
        )
        .route("/api/v2/config", get(settings::config))
        .route(
            "/api/v2/config/section/{section}/option/{option}",
            get(settings::config_value),
        )
        .route("/api/v2/plugins", get(settings::plugins))
        .route("/api/v2/plugins/importErrors", get(settings::plugin_errors))
        .route("/api/v2/providers", get(settings::providers))
        .route("/api/v2/callbacks", get(callbacks::list))
        .route("/api/v2/callbacks/{callback_id}", get(callbacks::get_one))
        .route(
            "/api/v2/callbacks/{callback_id}/retry",
            post(callbacks::retry),
        )
        .route(&format!("{RUN}/deadlines"), get(callbacks::deadlines))
        .route("/api/v2/eventLogs", get(event_logs::list))
        .route("/api/v2/eventLogs/{event_log_id}", get(event_logs::get_one))
        .route("/api/v2/jobs", get(jobs::list))
        .route("/api/v2/tokens", get(tokens::list).post(tokens::create))
        .route(
            "/api/v2/tokens/{name}",
            axum::routing::delete(tokens::delete),
        )
}

/// Assets and backfills.
fn time_routes() -> Router<App> {
    const BACKFILL: &str = "/api/v2/backfills/{backfill_id}";
    const ASSET: &str = "/api/v2/assets/{asset_id}";
    Router::new()
        .route(
            "/api/v2/backfills",
            get(backfills::list).post(backfills::create),
        )
        .route("/api/v2/backfills/dry_run", post(backfills::dry_run))
        .route(BACKFILL, get(backfills::get_one))
        .route(&format!("{BACKFILL}/pause"), put(backfills::pause))
        .route(&format!("{BACKFILL}/unpause"), put(backfills::unpause))
        .route(&format!("{BACKFILL}/cancel"), put(backfills::cancel))
        .route("/api/v2/assets", get(assets::list))
        .route(
            "/api/v2/assets/events",
            get(assets::events).post(assets::create_event),
        )
        .route("/api/v2/assets/aliases", get(assets::aliases))
        .route(
            "/api/v2/assets/aliases/{asset_alias_id}",
            get(assets::alias),
        )
        .route(ASSET, get(assets::get_one))
        .route(&format!("{ASSET}/materialize"), post(assets::materialize))
        .route(
            &format!("{ASSET}/state-store"),
            get(absent::asset_state_store).delete(absent::asset_state_store),
        )
        .route(
            &format!("{ASSET}/state-store/{{key}}"),
            get(absent::asset_state_store)
                .put(absent::asset_state_store)
                .delete(absent::asset_state_store),
        )
        .route(
            &format!("{ASSET}/queuedEvents"),
            get(assets::queued_of_asset).delete(assets::forget_of_asset),
        )
        .route(
            &format!("{DAG}/assets/queuedEvents"),
            get(assets::queued_of_dag).delete(assets::forget_of_dag),
        )
        .route(
            &format!("{DAG}/assets/{{asset_id}}/queuedEvents"),
            get(assets::queued_of_dag_and_asset).delete(assets::forget_of_dag_and_asset),
        )
        .route(&format!("{RUN}/upstreamAssetEvents"), get(assets::of_run))
}

/// What may take its time: it bounds itself.
fn waiting() -> Router<App> {
    let deploy = post(deploy::deploy).layer(DefaultBodyLimit::max(bundle::MAX_BYTES as usize));
    Router::new()
        // One path for DAGs and for `POST /dags/deploy`: a DAG may be called `deploy`.
        .route(
            DAG,
            get(dags::get_one)
                .patch(dags::patch)
                .delete(dags::delete)
                .layer(middleware::from_fn(body_first))
                .merge(deploy),
        )
        .route(
            &format!("{DAG}/dagRuns"),
            get(dag_runs::list)
                .post(trigger::trigger)
                .patch(bulk::dag_runs)
                .layer(middleware::from_fn(body_first)),
        )
        .route(&format!("{RUN}/wait"), get(wait::wait))
        .route(&format!("{TI}/logs/{{try_number}}"), get(logs::logs))
}

/// Reads the whole body before anything is judged. A refusal that leaves some of it unread would cost the client its
/// connection, and the next request on it.
async fn body_first(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let read = Request::from_parts(parts.clone(), body);
    match raw_body(read, &()).await {
        Ok(body) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(refusal) => ([(header::CONNECTION, "close")], refusal).into_response(),
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> Response {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    ApiError::Internal(format!("a request handler panicked: {text}")).into_response()
}
