//! What can be changed in bulk. Each change is the one that the noun's own operations make.

use super::{Body, Noun, Request, carry_out};
use crate::{
    auth::{Op, User},
    error::ApiError,
    extract::{At, Body as JsonBody, Query, from_value},
    parts::App,
    routes::{
        connections as connection, dag_runs as run, lookup, lookup::ALL, lookup::TiPath, mark,
        patch_run, pools as pool, variables as variable,
    },
};
use axum::{Json, extract::State};
use gristmill_common::ids::UNMAPPED;
use serde_json::{Map, Value};
use std::fmt;

/// A key, as text or as one field of an object.
fn text(entity: &Value, field: &str) -> Option<String> {
    let found = match entity {
        Value::String(text) => Some(text.as_str()),
        other => other.get(field).and_then(Value::as_str),
    };
    found.map(str::to_owned)
}

/// The error of what one cannot do to many of a kind.
fn not_in_bulk(what: &str) -> ApiError {
    ApiError::NotYet(format!("{what} is not supported in bulk"))
}

struct Pools;

impl Noun for Pools {
    type Key = String;
    const NAME: &'static str = "pools";

    fn key(&self, entity: &Value) -> Option<String> {
        text(entity, "name").or_else(|| text(entity, "pool"))
    }

    async fn exists(&self, of: Request<'_>, key: &String) -> Result<bool, ApiError> {
        found(pool::find(of.app, key).await)
    }

    async fn create(&self, of: Request<'_>, entity: Value) -> Result<(), ApiError> {
        let body = JsonBody(from_value(entity)?);
        let caller = Op(of.caller.clone());
        pool::create(caller, State(of.app.clone()), body)
            .await
            .map(drop)
    }

    async fn update(
        &self,
        of: Request<'_>,
        key: &String,
        entity: Value,
        mask: Query,
    ) -> Result<(), ApiError> {
        let (caller, body) = (Op(of.caller.clone()), JsonBody(from_value(entity)?));
        pool::patch(caller, State(of.app.clone()), At(key.clone()), mask, body)
            .await
            .map(drop)
    }

    async fn delete(&self, of: Request<'_>, key: &String) -> Result<(), ApiError> {
        let caller = Op(of.caller.clone());
        pool::delete(caller, State(of.app.clone()), At(key.clone()))
            .await
            .map(drop)
    }
}

struct Variables;

impl Noun for Variables {
    type Key = String;
    const NAME: &'static str = "variables";

    fn key(&self, entity: &Value) -> Option<String> {
        text(entity, "key")
    }

    async fn exists(&self, of: Request<'_>, key: &String) -> Result<bool, ApiError> {
        found(variable::find(of.app, key).await)
    }

    async fn create(&self, of: Request<'_>, entity: Value) -> Result<(), ApiError> {
        let body = JsonBody(from_value(entity)?);
        let caller = Op(of.caller.clone());
        variable::create(caller, State(of.app.clone()), body)
            .await
            .map(drop)
    }

    async fn update(
        &self,
        of: Request<'_>,
        key: &String,
        entity: Value,
        mask: Query,
    ) -> Result<(), ApiError> {
        let (caller, body) = (Op(of.caller.clone()), JsonBody(from_value(entity)?));
        variable::patch(caller, State(of.app.clone()), At(key.clone()), mask, body)
            .await
            .map(drop)
    }

    async fn delete(&self, of: Request<'_>, key: &String) -> Result<(), ApiError> {
        let caller = Op(of.caller.clone());
        variable::delete(caller, State(of.app.clone()), At(key.clone()))
            .await
            .map(drop)
    }
}

struct Connections;

impl Noun for Connections {
    type Key = String;
    const NAME: &'static str = "connections";

    fn key(&self, entity: &Value) -> Option<String> {
        text(entity, "connection_id")
    }

    async fn exists(&self, of: Request<'_>, key: &String) -> Result<bool, ApiError> {
        found(connection::find(of.app, key).await)
    }

    async fn create(&self, of: Request<'_>, entity: Value) -> Result<(), ApiError> {
        let body = JsonBody(from_value::<Map<String, Value>>(entity)?);
        let caller = Op(of.caller.clone());
        connection::create(caller, State(of.app.clone()), body)
            .await
            .map(drop)
    }

    async fn update(
        &self,
        of: Request<'_>,
        key: &String,
        entity: Value,
        mask: Query,
    ) -> Result<(), ApiError> {
        let (caller, body) = (Op(of.caller.clone()), JsonBody(from_value(entity)?));
        connection::patch(caller, State(of.app.clone()), At(key.clone()), mask, body)
            .await
            .map(drop)
    }

    async fn delete(&self, of: Request<'_>, key: &String) -> Result<(), ApiError> {
        let caller = Op(of.caller.clone());
        connection::delete(caller, State(of.app.clone()), At(key.clone()))
            .await
            .map(drop)
    }
}

/// Whether something was found; any other failure is one.
fn found<T>(looked: Result<T, ApiError>) -> Result<bool, ApiError> {
    match looked {
        Ok(_) => Ok(true),
        Err(ApiError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A run's DAG and id.
struct RunKey {
    dag_id: String,
    run_id: String,
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.dag_id, self.run_id)
    }
}

/// The path's name, unless that is `~`: then the entity's own, which otherwise has to be the same or absent.
fn within(path: &str, entity: &Value, field: &str) -> Option<String> {
    match entity.get(field).and_then(Value::as_str) {
        Some(own) if path == ALL || path == own => Some(own.to_owned()),
        None if path != ALL => Some(path.to_owned()),
        _ => None,
    }
}

struct Runs {
    dag_id: String,
}

impl Noun for Runs {
    type Key = RunKey;
    const NAME: &'static str = "DAG runs";

    fn key(&self, entity: &Value) -> Option<RunKey> {
        Some(RunKey {
            dag_id: within(&self.dag_id, entity, "dag_id")?,
            run_id: text(entity, "dag_run_id")?,
        })
    }

    async fn exists(&self, of: Request<'_>, key: &RunKey) -> Result<bool, ApiError> {
        found(lookup::run(of.app, &key.dag_id, &key.run_id).await)
    }

    async fn create(&self, _: Request<'_>, _: Value) -> Result<(), ApiError> {
        Err(not_in_bulk("creating DAG runs"))
    }

    async fn update(
        &self,
        of: Request<'_>,
        key: &RunKey,
        mut entity: Value,
        mask: Query,
    ) -> Result<(), ApiError> {
        keep(&mut entity, &["dag_id", "dag_run_id"], &mask);
        let body = from_value(entity)?;
        patch_run::patch_one(of.app, of.caller, &key.dag_id, &key.run_id, body)
            .await
            .map(drop)
    }

    async fn delete(&self, of: Request<'_>, key: &RunKey) -> Result<(), ApiError> {
        run::delete_one(of.app, of.caller, &key.dag_id, &key.run_id).await
    }
}

/// Leaves of an entity what the mask has, without what names it.
fn keep(entity: &mut Value, names: &[&str], mask: &Query) {
    if let Value::Object(fields) = entity {
        fields.retain(|field, _| !names.contains(&field.as_str()) && mask.masks(field));
    }
}

struct TaskInstances {
    dag_id: String,
    run_id: String,
}

/// A task instance's path; without a map index all instances of a mapped task.
struct TiKey(TiPath);

impl fmt::Display for TiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TiPath {
            dag_id,
            dag_run_id,
            task_id,
            map_index,
        } = &self.0;
        write!(f, "{dag_id}.{dag_run_id}.{task_id}[{map_index}]")
    }
}

impl Noun for TaskInstances {
    type Key = TiKey;
    const NAME: &'static str = "task instances";

    fn key(&self, entity: &Value) -> Option<TiKey> {
        let map_index = entity.get("map_index").and_then(Value::as_i64);
        Some(TiKey(TiPath {
            dag_id: within(&self.dag_id, entity, "dag_id")?,
            dag_run_id: within(&self.run_id, entity, "dag_run_id")?,
            task_id: text(entity, "task_id")?,
            map_index: map_index.map_or(Some(UNMAPPED), |index| i32::try_from(index).ok())?,
        }))
    }

    async fn exists(&self, of: Request<'_>, TiKey(path): &TiKey) -> Result<bool, ApiError> {
        let Ok(run) = path.run(of.app).await else {
            return Ok(false);
        };
        let row = of
            .app
            .store
            .task_instance(run.pk, &path.task_id, path.map_index)
            .await?;
        Ok(row.is_some())
    }

    async fn create(&self, _: Request<'_>, _: Value) -> Result<(), ApiError> {
        Err(not_in_bulk("creating task instances"))
    }

    async fn update(
        &self,
        of: Request<'_>,
        TiKey(path): &TiKey,
        mut entity: Value,
        mask: Query,
    ) -> Result<(), ApiError> {
        let names = ["dag_id", "dag_run_id", "task_id", "map_index"];
        if let Value::Object(fields) = &mut entity {
            let masked = |field: &str| field.starts_with("include_") || mask.masks(field);
            fields.retain(|field, _| !names.contains(&field.as_str()) && masked(field));
        }
        let body = from_value(entity)?;
        mark::mark(of.app, of.caller, path, &body, false)
            .await
            .map(drop)
    }

    async fn delete(&self, _: Request<'_>, _: &TiKey) -> Result<(), ApiError> {
        Err(not_in_bulk("deleting task instances"))
    }
}

/// Changes many pools.
pub(in crate::routes) async fn pools(
    Op(caller): Op,
    State(app): State<App>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    let of = Request {
        app: &app,
        caller: &caller,
    };
    carry_out(&Pools, of, body).await
}

/// Changes many variables.
pub(in crate::routes) async fn variables(
    Op(caller): Op,
    State(app): State<App>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    let of = Request {
        app: &app,
        caller: &caller,
    };
    carry_out(&Variables, of, body).await
}

/// Changes many connections.
pub(in crate::routes) async fn connections(
    Op(caller): Op,
    State(app): State<App>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    let of = Request {
        app: &app,
        caller: &caller,
    };
    carry_out(&Connections, of, body).await
}

/// Changes or deletes many runs, of one DAG or with `~` of any.
pub(in crate::routes) async fn dag_runs(
    User(caller): User,
    State(app): State<App>,
    At(dag_id): At<String>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    let of = Request {
        app: &app,
        caller: &caller,
    };
    carry_out(&Runs { dag_id }, of, body).await
}

/// Changes many task instances, of one run or with `~` of any.
pub(in crate::routes) async fn task_instances(
    User(caller): User,
    State(app): State<App>,
    At((dag_id, run_id)): At<(String, String)>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    let of = Request {
        app: &app,
        caller: &caller,
    };
    carry_out(&TaskInstances { dag_id, run_id }, of, body).await
}
