//! `POST /api/v2/dags/{dag_id}/dagRuns`: accepts a run.

use super::{dag_runs::whole, wait};
use crate::{
    auth::{About, Caller, User},
    error::{ApiError, FieldError},
    extract::{At, Query, must_be_json, parse_json, raw_body},
    parts::App,
    view,
};
use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};
use gristmill_common::{
    deadline,
    ids::valid_run_id,
    params::{MAX_CONF, check_params},
    row::{RunRow, RunType},
    timetable::Timetable,
};
use gristmill_store::{DagRow, NewRun, StateCounts, StoreError, Trigger, Triggered, VersionRow};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const MAX_NOTE: usize = 1000;
const MAX_KEY: usize = 250;

/// `TriggerDAGRunPostBody`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TriggerBody {
    dag_run_id: Option<String>,
    /// Absent is another thing than null: then the run's date is when it may start.
    #[serde(default, deserialize_with = "given")]
    logical_date: Option<Option<DateTime<Utc>>>,
    data_interval_start: Option<DateTime<Utc>>,
    data_interval_end: Option<DateTime<Utc>>,
    run_after: Option<DateTime<Utc>>,
    conf: Option<Map<String, Value>>,
    note: Option<String>,
    partition_key: Option<String>,
}

fn given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<DateTime<Utc>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// How a run comes about.
#[derive(Debug)]
pub(super) struct Wish {
    /// `triggered_by`.
    pub(super) by: &'static str,
    pub(super) run_type: RunType,
    /// The request's key and the hash of its body.
    pub(super) idempotency: Option<(String, String)>,
}

/// A run that was made, or that was made before under the same key.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) row: RunRow,
    pub(super) version: Arc<VersionRow>,
    pub(super) is_new: bool,
}

/// Makes a run.
pub(super) async fn accept(
    app: &App,
    caller: &Caller,
    dag_id: &str,
    body: TriggerBody,
    wish: Wish,
) -> Result<Accepted, ApiError> {
    let (dag, version) = triggerable(app, dag_id).await?;
    let mut new = new_run(&dag, &version, body, app.store.now(), &wish)?;
    new.idempotency = wish.idempotency;
    let triggered = loop {
        let about = About::run(dag_id, &new.run_id);
        let extra = json!({ "by": wish.by });
        let audit = caller.entry(app.store.now(), "trigger_dag_run", about, extra);
        let asked = Trigger {
            run: new.clone(),
            audit: Some(audit),
        };
        match app.triggers.ask(asked).await? {
            // Two in one microsecond: an id of our own making is made anew.
            Err(StoreError::Exists { .. })
                if new.run_id == generated_id(new.run_type, new.run_after) =>
            {
                new.run_after += TimeDelta::microseconds(1);
                new.run_id = generated_id(new.run_type, new.run_after);
            }
            other => break other?,
        }
    };
    let row = match triggered {
        Triggered::Accepted { run, at } => new.accepted(run, at),
        Triggered::Repeated { run } => {
            let row = app.runs.ask(run).await??;
            row.ok_or_else(|| ApiError::no_run(dag_id, &new.run_id))?
        }
    };
    Ok(Accepted {
        row,
        version,
        is_new: matches!(triggered, Triggered::Accepted { .. }),
    })
}

pub(super) async fn trigger(
    User(caller): User,
    State(app): State<App>,
    At(dag_id): At<String>,
    query: Query,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let patience = query
        .text("wait")
        .map(|text| wait::patience("wait", text))
        .transpose()?;
    must_be_json(&headers)?;
    let body = raw_body(request, &app).await?;
    let wish = Wish {
        by: match headers
            .get("x-gristmill-client")
            .and_then(|v| v.to_str().ok())
        {
            Some("cli") => "cli",
            Some("ui") => "ui",
            _ => "rest_api",
        },
        run_type: RunType::Manual,
        idempotency: idempotency_key(&headers)?
            .map(|key| (key, hex::encode(Sha256::digest(&body)))),
    };
    let accepted = accept(&app, &caller, &dag_id, parse_json(&body)?, wish).await?;
    let Accepted {
        row,
        version,
        is_new,
    } = accepted;
    match patience {
        None if is_new => {
            // As it was accepted: without instances yet.
            let body = view::run::run(&row, &version, Some(&StateCounts::new()));
            Ok(Json(body).into_response())
        }
        None => Ok(Json(whole(&app, &row).await?).into_response()),
        Some(patience) => {
            let row = wait::until_ended(&app, row.pk, patience).await?;
            let body = Json(whole(&app, &row).await?);
            if row.state.is_finished() {
                return Ok(body.into_response());
            }
            let run = gristmill_objects::encode_segment(&row.run_id);
            let location = format!("/api/v2/dags/{}/dagRuns/{run}/wait", row.dag_id);
            let headers = [
                (header::LOCATION, location),
                (header::RETRY_AFTER, "1".to_owned()),
            ];
            Ok((StatusCode::ACCEPTED, headers, body).into_response())
        }
    }
}

/// The DAG and its newest version, if runs of it may be made.
async fn triggerable(app: &App, dag_id: &str) -> Result<(DagRow, Arc<VersionRow>), ApiError> {
    let found = app.dags.ask(dag_id.to_owned()).await??;
    let (dag, broken) = found.ok_or_else(|| ApiError::no_dag(dag_id))?;
    if dag.is_stale {
        return Err(ApiError::no_dag(dag_id));
    }
    if let Some(broken) = broken {
        return Err(ApiError::BadRequest(format!(
            "DAG with dag_id: '{dag_id}' has import errors and cannot be triggered: {}",
            broken.error
        )));
    }
    let version = app.versions.get(&*app.store, dag.version).await?;
    Ok((dag, version))
}

fn new_run(
    dag: &DagRow,
    version: &VersionRow,
    trigger: TriggerBody,
    now: DateTime<Utc>,
    wish: &Wish,
) -> Result<NewRun, ApiError> {
    if trigger.partition_key.is_some() {
        return Err(ApiError::NotYet(
            "this version has no partitioned runs yet".to_owned(),
        ));
    }
    if trigger
        .note
        .as_ref()
        .is_some_and(|note| note.chars().count() > MAX_NOTE)
    {
        let msg = format!("String should have at most {MAX_NOTE} characters");
        return Err(ApiError::field(FieldError::body("note", msg, Value::Null)));
    }
    let spec = &version.spec;
    let conf = trigger.conf.unwrap_or_default();
    let size = serde_json::to_vec(&conf).map_or(usize::MAX, |text| text.len());
    if size > MAX_CONF {
        return Err(ApiError::TooLarge(format!(
            "conf has {size} bytes; it may have {MAX_CONF}: pass large data by reference"
        )));
    }
    // A DAG without parameters takes any conf.
    let params = if spec.params.is_empty() {
        Map::new()
    } else {
        check_params(spec, &conf).map_err(ApiError::BadParams)?
    };
    // Databases keep microseconds.
    let run_after = trigger.run_after.unwrap_or(now).trunc_subsecs(6);
    let logical_date = trigger.logical_date.unwrap_or(Some(run_after));
    let interval = match (trigger.data_interval_start, trigger.data_interval_end) {
        (Some(start), Some(end)) if start <= end => Some((start, end)),
        (None, None) => interval(dag, version, logical_date)?,
        _ => {
            let msg = "Either both data_interval_start and data_interval_end must be provided, in this order, or neither".to_owned();
            return Err(ApiError::field(FieldError::body(
                "data_interval_start",
                msg,
                Value::Null,
            )));
        }
    };
    let run_id = match trigger.dag_run_id {
        Some(id) => checked_id(id)?,
        None => generated_id(wish.run_type, run_after),
    };
    Ok(NewRun {
        dag_id: dag.dag_id.clone(),
        run_id,
        version: version.pk,
        run_type: wish.run_type,
        triggered_by: wish.by.to_owned(),
        backfill: None,
        logical_date,
        data_interval_start: interval.map(|(start, _)| start),
        data_interval_end: interval.map(|(_, end)| end),
        run_after,
        conf,
        params,
        note: trigger.note,
        max_active_tasks: i32::try_from(spec.max_active_tasks).unwrap_or(i32::MAX),
        timeout_ms: spec
            .dagrun_timeout
            .map(gristmill_common::span::Span::millis),
        next_deadline: deadline::of_new(spec, logical_date, now),
        idempotency: None,
    })
}

type Interval = Option<(DateTime<Utc>, DateTime<Utc>)>;

/// The data interval that the DAG's timetable gives a run triggered for this date.
fn interval(
    dag: &DagRow,
    version: &VersionRow,
    date: Option<DateTime<Utc>>,
) -> Result<Interval, ApiError> {
    let Some(date) = date else { return Ok(None) };
    let timetable = Timetable::of(&version.spec, dag.created_at)
        .map_err(|error| ApiError::BadRequest(format!("the DAG's schedule: {error}")))?;
    Ok(Some(
        timetable.map_or((date, date), |t| t.manual_interval(date)),
    ))
}

/// Airflow's form of a run's id.
fn generated_id(run_type: RunType, run_after: DateTime<Utc>) -> String {
    format!(
        "{run_type}__{}",
        run_after.to_rfc3339_opts(SecondsFormat::Micros, false)
    )
}

fn checked_id(id: String) -> Result<String, ApiError> {
    if !valid_run_id(&id) {
        let msg = "a run id has 1 to 250 letters, digits and characters of _.~:+-".to_owned();
        return Err(ApiError::field(FieldError::body(
            "dag_run_id",
            msg,
            id.into(),
        )));
    }
    if let Some(kind) = ["scheduled__", "backfill__", "asset_triggered__"]
        .iter()
        .find(|kind| id.starts_with(**kind))
    {
        return Err(ApiError::BadRequest(format!(
            "the run id {id:?} begins with {kind:?}, which is kept for runs that the scheduler makes"
        )));
    }
    Ok(id)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY => Ok(Some(key.to_owned())),
        _ => Err(ApiError::BadRequest(format!(
            "the header Idempotency-Key must be 1 to {MAX_KEY} visible ASCII characters"
        ))),
    }
}
