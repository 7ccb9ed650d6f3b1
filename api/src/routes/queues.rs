//! `/api/v2/queues`: how deep each queue is, who consumes it, pausing, and its rate.

use crate::{
    auth::{About, Caller, Op, Viewer},
    error::{ApiError, FieldError},
    extract::{At, Body},
    parts::App,
};
use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use gristmill_broker::{BrokerError, Source};
use gristmill_common::{
    ids::valid_name,
    limit::RateLimit,
    spec::{DEFAULT_QUEUE, POKE_QUEUE_SUFFIX},
};
use gristmill_presence::LeaseView;
use gristmill_store::QueueCounts;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Questions to the broker at one time.
const AT_ONCE: usize = 8;

/// Workers of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Consumers {
    pub(super) consumers: u64,
    pub(super) slots: u64,
    pub(super) free: u64,
}

/// What the leases say of one queue. A worker of several queues counts in each, and in the queues of their sensors' looks.
pub(super) fn consumers_of(queue: &str, leases: &[LeaseView]) -> Consumers {
    let beside = queue.strip_suffix(POKE_QUEUE_SUFFIX);
    let serving = leases.iter().filter(|l| {
        l.info
            .queues
            .iter()
            .any(|q| q == queue || Some(q.as_str()) == beside)
    });
    serving.fold(Consumers::default(), |sum, lease| {
        let takes_work = !lease.status.paused && !lease.status.draining;
        Consumers {
            consumers: sum.consumers + 1,
            slots: sum.slots + u64::from(lease.info.slots),
            free: sum.free
                + if takes_work {
                    u64::from(lease.status.free)
                } else {
                    0
                },
        }
    })
}

/// One queue's line. What a part that is away would know is null.
fn line(
    counts: &QueueCounts,
    ready: Option<u64>,
    workers: Option<Consumers>,
    now: DateTime<Utc>,
) -> Value {
    let age = counts
        .oldest_ready_at
        .map(|at| (now - at).num_milliseconds().max(0) as f64 / 1000.0);
    json!({
        "queue": counts.queue,
        "scheduled": counts.scheduled,
        "broker": ready,
        "running": counts.running,
        "oldest_age_s": age,
        "consumers": workers.map(|w| w.consumers),
        "slots": workers.map(|w| w.slots),
        "free_slots": workers.map(|w| w.free),
        "paused": counts.paused,
        "rate_limit": counts.rate_limit,
        "dead": counts.dead,
    })
}

/// Messages ready in the broker; `None` while it is away. A queue that nobody has declared holds none.
async fn ready(app: &App, queue: &str) -> Option<u64> {
    match app.broker.depth(&Source::Work(queue.to_owned())).await {
        Ok(depth) => Some(depth.ready),
        Err(BrokerError::NotFound { .. }) => Some(0),
        Err(error) => {
            tracing::debug!(%error, queue, "the broker does not tell a queue's depth");
            None
        }
    }
}

async fn lines(app: &App, only: Option<&str>) -> Result<Vec<Value>, ApiError> {
    let leases = app
        .presence
        .leases()
        .await
        .ok()
        .map(|snapshot| snapshot.leases);
    let mut queues: BTreeMap<String, QueueCounts> = app
        .store
        .queue_counts()
        .await?
        .into_iter()
        .map(|counts| (counts.queue.clone(), counts))
        .collect();
    let served = leases
        .iter()
        .flatten()
        .flat_map(|lease| lease.info.queues.iter().cloned());
    for name in served.chain([DEFAULT_QUEUE.to_owned()]) {
        queues.entry(name.clone()).or_insert_with(|| QueueCounts {
            queue: name,
            ..QueueCounts::default()
        });
    }
    if let Some(only) = only {
        queues.retain(|name, _| name == only);
    }
    let leases = &leases;
    let lines = stream::iter(queues.into_values())
        .map(|counts| async move {
            let ready = ready(app, &counts.queue).await;
            let workers = leases
                .as_ref()
                .map(|leases| consumers_of(&counts.queue, leases));
            line(&counts, ready, workers, app.store.now())
        })
        .buffered(AT_ONCE);
    Ok(lines.collect().await)
}

pub(super) async fn list(_: Viewer, State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let lines = lines(&app, None).await?;
    Ok(Json(
        json!({ "total_entries": lines.len(), "queues": lines }),
    ))
}

async fn one(app: &App, queue: &str) -> Result<Json<Value>, ApiError> {
    lines(app, Some(queue))
        .await?
        .pop()
        .map(Json)
        .ok_or_else(|| {
            ApiError::NotFound(format!(
                "no queue {queue:?}: no task waits in it and no worker serves it"
            ))
        })
}

pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At(queue): At<String>,
) -> Result<Json<Value>, ApiError> {
    one(&app, &queue).await
}

fn check_name(queue: &str) -> Result<(), ApiError> {
    if valid_name(queue) {
        return Ok(());
    }
    Err(ApiError::BadRequest(format!(
        "{queue:?} is no queue name: use letters, digits, _ - and ."
    )))
}

async fn set_paused(
    app: &App,
    caller: &Caller,
    queue: &str,
    paused: bool,
) -> Result<Json<Value>, ApiError> {
    check_name(queue)?;
    app.store.set_queue_paused(queue, paused).await?;
    if !queue.ends_with(POKE_QUEUE_SUFFIX) {
        // The looks of its sensors, which have a queue of their own beside it.
        let looks = format!("{queue}{POKE_QUEUE_SUFFIX}");
        app.store.set_queue_paused(&looks, paused).await?;
    }
    let event = if paused {
        "pause_queue"
    } else {
        "resume_queue"
    };
    caller
        .audit(
            &*app.store,
            event,
            About::nothing(),
            json!({ "queue": queue }),
        )
        .await;
    one(app, queue).await
}

pub(super) async fn pause(
    Op(caller): Op,
    State(app): State<App>,
    At(queue): At<String>,
) -> Result<Json<Value>, ApiError> {
    set_paused(&app, &caller, &queue, true).await
}

pub(super) async fn resume(
    Op(caller): Op,
    State(app): State<App>,
    At(queue): At<String>,
) -> Result<Json<Value>, ApiError> {
    set_paused(&app, &caller, &queue, false).await
}

/// `null` lifts the rate; a rate that is absent stays as it is.
async fn set_rate(app: &App, caller: &Caller, queue: &str, rate: &Value) -> Result<(), ApiError> {
    check_name(queue)?;
    let rate: Option<RateLimit> = serde_json::from_value(rate.clone()).map_err(|error| {
        ApiError::field(FieldError::body(
            "rate_limit",
            error.to_string(),
            rate.clone(),
        ))
    })?;
    app.store.set_queue_rate(queue, rate).await?;
    let extra = json!({ "queue": queue, "rate_limit": rate });
    caller
        .audit(&*app.store, "rate_limit_queue", About::nothing(), extra)
        .await;
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    rate_limit: Value,
}

pub(super) async fn rate_limit(
    Op(caller): Op,
    State(app): State<App>,
    At(queue): At<String>,
    Body(body): Body<Rate>,
) -> Result<Json<Value>, ApiError> {
    set_rate(&app, &caller, &queue, &body.rate_limit).await?;
    one(&app, &queue).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    paused: Option<bool>,
    /// Some(null) where the body says null.
    #[serde(default, deserialize_with = "given")]
    rate_limit: Option<Value>,
}

fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

pub(super) async fn patch(
    Op(caller): Op,
    State(app): State<App>,
    At(queue): At<String>,
    Body(body): Body<Patch>,
) -> Result<Json<Value>, ApiError> {
    if let Some(rate) = &body.rate_limit {
        set_rate(&app, &caller, &queue, rate).await?;
    }
    match body.paused {
        Some(paused) => set_paused(&app, &caller, &queue, paused).await,
        None => one(&app, &queue).await,
    }
}
