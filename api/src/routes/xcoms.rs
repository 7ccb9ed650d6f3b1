//! `…/xcomEntries`. Large values rest in the object store and are streamed from there.

use super::{
    dag_runs,
    lookup::{self, ALL, TiPath},
};
use crate::{
    auth::{About, Caller, User, Viewer},
    error::{ApiError, FieldError},
    extract::{At, Body as JsonBody, Query},
    listing::Small,
    parts::App,
    view,
};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt, stream};
use gristmill_common::{
    ids::UNMAPPED,
    row::{RETURN_VALUE, RunRow, TiRow, XcomRow, XcomValue},
};
use gristmill_objects::{ByteStream, ObjectError, ObjectStore};
use gristmill_presence::XComKey;
use gristmill_store::{Listing, RunFilter, VersionRow};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::time::Duration;

/// Largest value that an answer made of several takes in; a larger one is asked for by itself.
const MAX_WITHIN: u64 = 4 << 20;

/// Runs whose XComs are listed together at most.
const MOST_RUNS: i64 = 1000;
/// Longest key.
const MAX_KEY: usize = 512;
/// How long a value that was set by hand stays where workers look first.
const FAST_COPY: Duration = Duration::from_secs(24 * 3600);

/// `XComResponse`: all but the value.
fn entry(row: &XcomRow, run: &RunRow, version: &VersionRow) -> Value {
    let task_id = version
        .spec
        .task(row.task_idx)
        .map_or("", |t| t.task_id.as_str());
    let size = match &row.value {
        XcomValue::Inline(_) => None,
        XcomValue::Object { size, .. } => Some(*size),
    };
    json!({
        "key": row.key,
        // Accepted with the ending of its try, which the run's end bounds.
        "timestamp": view::time(run.ended_at.or(run.started_at).unwrap_or(run.queued_at)),
        "logical_date": view::time_or_null(run.logical_date),
        "map_index": row.map_index,
        "task_id": task_id,
        "task_display_name": task_id,
        "dag_id": run.dag_id,
        "dag_display_name": run.dag_id,
        "run_id": run.run_id,
        "run_after": view::time(run.run_after),
        "size": size,
    })
}

const ENTRIES: Small = Small {
    name: "xcom_entries",
    patterns: &[
        ("xcom_key", "key"),
        ("task_id", "task_id"),
        ("dag_display_name", "dag_display_name"),
    ],
    texts: &[("xcom_key", "key")],
    times: &[],
    order: &[
        ("key", "key"),
        ("xcom_key", "key"),
        ("dag_id", "dag_id"),
        ("run_id", "run_id"),
        ("task_id", "task_id"),
        ("map_index", "map_index"),
        ("timestamp", "timestamp"),
        ("run_after", "run_after"),
        ("logical_date", "logical_date"),
    ],
};

/// The runs whose XComs are listed: one, or with `~` the newest of those that the query's conditions leave.
async fn runs_of(app: &App, path: &TiPath, query: &Query) -> Result<Vec<RunRow>, ApiError> {
    let dag_id = (path.dag_id != ALL).then(|| path.dag_id.clone());
    if path.dag_run_id != ALL {
        if dag_id.is_none() {
            return Err(ApiError::BadRequest(
                "dag_id is required when dag_run_id is specified".to_owned(),
            ));
        }
        path.run(app).await?;
    } else if let Some(dag_id) = &dag_id {
        lookup::dag(app, dag_id).await?;
    }
    let listing = Listing {
        conditions: dag_runs::NAMES.conditions(query)?,
        ..Listing::default()
    };
    let filter = RunFilter {
        dag_id,
        run_id: (path.dag_run_id != ALL).then(|| path.dag_run_id.clone()),
        listing,
        limit: MOST_RUNS,
        ..RunFilter::default()
    };
    Ok(app.store.runs(&filter).await?.rows)
}

pub(super) async fn list(
    _: Viewer,
    State(app): State<App>,
    At(path): At<TiPath>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let key = query.text("xcom_key");
    let map_index = query.parse::<i32>("map_index")?;
    let indexes = query.numbers("map_index_filter")?;
    let runs = runs_of(&app, &path, &query).await?;
    let named = path.dag_run_id != ALL;
    let mut entries = Vec::new();
    for run in &runs {
        let version = lookup::version(&app, run).await?;
        let idx = version.spec.idx(&path.task_id);
        if path.task_id != ALL && idx.is_none() {
            if named {
                return Err(path.not_found());
            }
            continue;
        }
        let rows = app.store.xcoms(run.pk, None, key).await?;
        let fits = |row: &&XcomRow| {
            (path.task_id == ALL || Some(row.task_idx) == idx)
                && map_index.is_none_or(|wanted| wanted == row.map_index)
                && (indexes.is_empty() || indexes.contains(&row.map_index.into()))
        };
        entries.extend(
            rows.iter()
                .filter(fits)
                .map(|row| entry(row, run, &version)),
        );
    }
    ENTRIES.answer(&query, entries)
}

/// `XComCreateBody`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    key: String,
    #[serde(default, deserialize_with = "given")]
    value: Option<Value>,
    #[serde(default = "lookup::unmapped")]
    map_index: i32,
}

/// `XComUpdateBody`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    #[serde(default, deserialize_with = "given")]
    value: Option<Value>,
    #[serde(default = "lookup::unmapped")]
    map_index: i32,
}

/// Null is a value; absent is none.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn required(value: Option<Value>) -> Result<Value, ApiError> {
    value.ok_or_else(|| {
        ApiError::field(FieldError {
            kind: "missing",
            loc: vec!["body".into(), "value".into()],
            msg: "Field required".to_owned(),
            input: Value::Null,
        })
    })
}

/// Writes a value: first where it is kept, then where workers look first. A worker that looked in between has the old one.
async fn put(
    app: &App,
    caller: &Caller,
    at: (&RunRow, &TiRow),
    key: &str,
    value: &Value,
    event: &str,
) -> Result<Value, ApiError> {
    let (run, ti) = at;
    let set = app.store.set_xcom(ti.pk, key, value).await?;
    let row = set.ok_or_else(|| ApiError::no_run(&run.dag_id, &run.run_id))?;
    let name = XComKey {
        run: run.pk.0,
        ti: row.ti.0,
        fence: row.fence.0,
        key: key.to_owned(),
    };
    let bytes = Bytes::from(value.to_string());
    app.presence.put_xcoms(&[(name, bytes)], FAST_COPY).await?;
    let about = About::run(&run.dag_id, &run.run_id);
    let extra = json!({ "task_id": ti.task_id, "map_index": ti.map_index, "key": key });
    caller.audit(&*app.store, event, about, extra).await;
    let version = lookup::version(app, run).await?;
    let mut body = entry(&row, run, &version);
    body["value"] = value.clone();
    Ok(body)
}

pub(super) async fn create(
    User(caller): User,
    State(app): State<App>,
    At(mut path): At<TiPath>,
    JsonBody(body): JsonBody<Create>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    if body.key.is_empty() || body.key.len() > MAX_KEY || body.key.contains('\0') {
        let msg = format!("an XCom's key has 1 to {MAX_KEY} characters");
        let input = body.key.into();
        return Err(ApiError::field(FieldError::body("key", msg, input)));
    }
    let value = required(body.value)?;
    path.map_index = body.map_index;
    let (run, ti) = path.find(&app).await?;
    let there = app
        .store
        .xcoms(run.pk, Some(ti.pk), Some(&body.key))
        .await?;
    if !there.is_empty() {
        return Err(ApiError::Conflict(format!(
            "The XCom with key: `{}` with mentioned task instance already exists.",
            body.key
        )));
    }
    let made = put(&app, &caller, (&run, &ti), &body.key, &value, "create_xcom").await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// The path of an XCom.
#[derive(Debug, Deserialize)]
pub(super) struct XcomPath {
    dag_id: String,
    dag_run_id: String,
    task_id: String,
    xcom_key: String,
}

impl XcomPath {
    /// The instance that has it.
    async fn find(&self, app: &App, map_index: i32) -> Result<(RunRow, TiRow), ApiError> {
        let path = TiPath {
            dag_id: self.dag_id.clone(),
            dag_run_id: self.dag_run_id.clone(),
            task_id: self.task_id.clone(),
            map_index,
        };
        path.find(app).await
    }

    fn not_found(&self) -> ApiError {
        ApiError::NotFound(format!(
            "XCom entry with key: `{}` not found",
            self.xcom_key
        ))
    }
}

pub(super) async fn update(
    User(caller): User,
    State(app): State<App>,
    At(path): At<XcomPath>,
    JsonBody(body): JsonBody<Update>,
) -> Result<Json<Value>, ApiError> {
    let value = required(body.value)?;
    let (run, ti) = path.find(&app, body.map_index).await?;
    let key = &path.xcom_key;
    let there = app.store.xcoms(run.pk, Some(ti.pk), Some(key)).await?;
    if there.is_empty() {
        return Err(path.not_found());
    }
    let set = put(&app, &caller, (&run, &ti), key, &value, "update_xcom").await?;
    Ok(Json(set))
}

pub(super) async fn delete(
    User(caller): User,
    State(app): State<App>,
    At(path): At<XcomPath>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    let map_index = query.parse("map_index")?.unwrap_or(UNMAPPED);
    let (run, ti) = path.find(&app, map_index).await?;
    if !app.store.delete_xcom(run.pk, ti.pk, &path.xcom_key).await? {
        return Err(path.not_found());
    }
    let about = About::run(&run.dag_id, &run.run_id);
    let extra = json!({ "task_id": ti.task_id, "map_index": map_index, "key": path.xcom_key });
    caller.audit(&*app.store, "delete_xcom", about, extra).await;
    Ok(StatusCode::NO_CONTENT)
}

/// One value, as JSON of its own type.
pub(super) async fn get_one(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, run_id, task_id, key)): At<(String, String, String, String)>,
    query: Query,
) -> Result<Response, ApiError> {
    let map_index = query.parse("map_index")?.unwrap_or(UNMAPPED);
    let missing = || ApiError::NotFound(format!("XCom entry with key: `{key}` not found"));
    let run = lookup::run(&app, &dag_id, &run_id).await?;
    let version = lookup::version(&app, &run).await?;
    let ti = app
        .store
        .task_instance(run.pk, &task_id, map_index)
        .await?
        .ok_or_else(missing)?;
    let rows = app.store.xcoms(run.pk, Some(ti.pk), Some(&key)).await?;
    let row = rows.into_iter().next().ok_or_else(missing)?;
    let mut body = entry(&row, &run, &version);
    let as_text = query.flag("stringify")?.unwrap_or(false);
    match row.value {
        XcomValue::Inline(value) => {
            body["value"] = if as_text {
                value.to_string().into()
            } else {
                value
            };
            Ok(Json(body).into_response())
        }
        object @ XcomValue::Object { .. } => {
            let head = body.to_string();
            let head = head.trim_end_matches('}').to_owned();
            let value = value_stream(&app.objects, object).await?;
            let all = stream::iter([Ok(Bytes::from(format!("{head},\"value\":")))])
                .chain(value)
                .chain(stream::iter([Ok(Bytes::from_static(b"}"))]));
            Ok(json_stream(all.boxed()))
        }
    }
}

pub(super) fn json_stream(stream: ByteStream) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(stream),
    )
        .into_response()
}

/// A value's JSON, wherever it is.
pub(super) async fn value_stream(
    objects: &ObjectStore,
    value: XcomValue,
) -> Result<ByteStream, ObjectError> {
    match value {
        XcomValue::Inline(value) => Ok(stream::iter([Ok(Bytes::from(value.to_string()))]).boxed()),
        XcomValue::Object { key, .. } => objects.stream_get(&key).await,
    }
}

/// A task's return value; of a mapped task the list of its instances' values; null where there is none.
pub(super) async fn result_of(app: &App, run: &RunRow, task_id: &str) -> Result<Value, ApiError> {
    let version = lookup::version(app, run).await?;
    let idx = version
        .spec
        .idx(task_id)
        .ok_or_else(|| ApiError::NotFound(format!("Task with id {task_id} was not found")))?;
    let rows = app.store.xcoms_of_task(run.pk, idx, RETURN_VALUE).await?;
    let is_mapped = version
        .spec
        .task(idx)
        .is_some_and(|task| version.spec.mapping(task).is_some());
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        values.push(match row.value {
            XcomValue::Inline(value) => value,
            XcomValue::Object { size, .. } if size > MAX_WITHIN => {
                return Err(ApiError::TooLarge(format!(
                    "the result of {task_id} has {size} bytes; read it from xcomEntries/{RETURN_VALUE}"
                )));
            }
            object @ XcomValue::Object { .. } => {
                let pieces: Vec<Bytes> = value_stream(&app.objects, object).await?.try_collect().await?;
                serde_json::from_slice(&pieces.concat())
                    .map_err(|error| ApiError::Internal(format!("an XCom of {task_id} is no JSON: {error}")))?
            }
        });
    }
    Ok(match (is_mapped, values.pop()) {
        (false, value) => value.unwrap_or(Value::Null),
        (true, None) => json!([]),
        (true, Some(last)) => {
            values.push(last);
            Value::Array(values)
        }
    })
}
