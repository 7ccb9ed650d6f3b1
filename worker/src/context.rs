//! Prepares what a task sees: its templates' values, its bundle, its secrets.

use crate::{mask::Mask, run::Outcome, worker::Incarnation};
use bytes::Bytes;
use gristmill_common::{
    message::{WorkMessage, XcomRef},
    row::ARTIFACTS,
    template::{Renderer, TemplateContext, XComMap, XComSource, running_references},
};
use gristmill_objects::{
    artifacts::{Artifact, listed},
    bundle::{Bundle, Digest},
};
use gristmill_presence::XComKey;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What a task sees.
pub(crate) struct TaskContext {
    pub(crate) renderer: Renderer,
    pub(crate) mask: Mask,
    /// Connections that the task names, opened.
    pub(crate) connections: Map<String, Value>,
    /// Files of upstreams that the task fetches, by task.
    pub(crate) inputs: BTreeMap<String, Vec<Artifact>>,
    /// Kept until the task has ended, so that the folder is not evicted.
    pub(crate) bundle: Option<Bundle>,
}

/// Prepares a task's context. An error is how the attempt ends: what other servers could not give now is worth another
/// try, what is wrong in itself is not.
pub(crate) async fn prepare(
    worker: &Incarnation,
    message: &WorkMessage,
) -> Result<TaskContext, Outcome> {
    let xcoms = xcoms(worker, message).await.map_err(Outcome::failed)?;
    let (connections, variables, secrets) =
        open_secrets(worker, message).map_err(Outcome::failed_for_good)?;
    let bundle =
        match &message.bundle {
            // A poke runs no command: it needs no folder to run it in.
            Some(_) if message.task.kind.pokes() => None,
            None => None,
            Some(digest) => {
                let digest: Digest = digest.parse().map_err(|_| {
                    Outcome::failed_for_good(format!("{digest:?} is no bundle's digest"))
                })?;
                let bundle = worker.bundles.fetch(&worker.objects, &digest).await;
                Some(bundle.map_err(|error| {
                    Outcome::failed(format!("cannot unpack the bundle: {error}"))
                })?)
            }
        };
    let inputs = inputs(message, &xcoms);
    let run = &message.run;
    let template = TemplateContext {
        dag_id: run.dag_id.clone(),
        task_id: message.task.task_id.clone(),
        run_id: run.run_id.clone(),
        run_type: run.run_type.clone(),
        logical_date: run.logical_date,
        data_interval_start: run.data_interval_start,
        data_interval_end: run.data_interval_end,
        run_after: run.run_after,
        queued_at: None,
        start_date: run.started_at,
        conf: Value::Object(run.conf.clone()),
        params: run.params.clone(),
        asset_events: run.asset_events.clone(),
        map: message.map.clone().unwrap_or_default(),
        try_number: message.try_number,
        max_tries: message.max_tries,
        map_index: message.map_index,
        mapped_group: message.task.mapped_group.clone(),
        xcoms: Arc::new(xcoms),
        vars: variables,
        conns: connections.clone(),
    };
    Ok(TaskContext {
        renderer: Renderer::new(template),
        mask: Mask::new(secrets),
        connections,
        inputs,
        bundle,
    })
}

/// The files that upstreams have left, as their XComs list them.
fn inputs(message: &WorkMessage, xcoms: &Pulled) -> BTreeMap<String, Vec<Artifact>> {
    let of = |task: &String| {
        let key = (task.clone(), ARTIFACTS.to_owned());
        let files = match (xcoms.own.get(&key), xcoms.values.0.get(&key)) {
            // One instance's alone: there is nothing to tell them apart from.
            (Some(own), _) => listed(own)
                .into_iter()
                .map(|file| Artifact {
                    map_index: None,
                    ..file
                })
                .collect(),
            (None, Some(all)) => listed(all),
            (None, None) => Vec::new(),
        };
        (task.clone(), files)
    };
    message.task.inputs.iter().map(of).collect()
}

/// The values that the task's templates pull: from Redis, else from the durable copy through the API.
async fn xcoms(worker: &Incarnation, message: &WorkMessage) -> Result<Pulled, String> {
    let mut pulled = Pulled {
        map_index: message.map_index,
        ..Pulled::default()
    };
    let group = message.task.mapped_group.as_deref();
    let is_mate = |task: &str| {
        let rest = group.and_then(|group| task.strip_prefix(group));
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let values = &mut pulled.values;
    if message.xcoms.by_api {
        for (task, key) in &running_references(&message.task).xcom_pulls {
            let key_of = (task.clone(), key.clone());
            if is_mate(task) {
                let value = from_api(worker, message, task, key, Some(message.map_index)).await?;
                pulled.own.insert(key_of, value);
            } else {
                let value = from_api(worker, message, task, key, None).await?;
                values.0.insert(key_of, value);
            }
        }
        return Ok(pulled);
    }
    let mut found: HashMap<(String, String), Vec<(i32, Value)>> = HashMap::new();
    for (task, refs) in &message.xcoms.by_task {
        let fetched = fetch(worker, message, refs).await;
        for (reference, value) in refs.iter().zip(fetched) {
            if is_mate(task) {
                let key = &reference.key;
                let value = match value {
                    Some(value) => value,
                    None => from_api(worker, message, task, key, Some(message.map_index)).await?,
                };
                pulled.own.insert((task.clone(), key.clone()), value);
                continue;
            }
            let value = match value {
                Some(value) => value,
                None => {
                    // Redis has lost it: everything of this task and key comes from the durable copy.
                    let value = from_api(worker, message, task, &reference.key, None).await?;
                    values
                        .0
                        .insert((task.clone(), reference.key.clone()), value);
                    continue;
                }
            };
            found
                .entry((task.clone(), reference.key.clone()))
                .or_default()
                .push((reference.map_index, value));
        }
    }
    for (key, mut list) in found {
        if values.0.contains_key(&key) {
            continue;
        }
        list.sort_by_key(|(map_index, _)| *map_index);
        let value = match list.as_mut_slice() {
            [(gristmill_common::ids::UNMAPPED, value)] => value.take(),
            _ => Value::Array(list.into_iter().map(|(_, value)| value).collect()),
        };
        values.0.insert(key, value);
    }
    Ok(pulled)
}

/// The values that a task's templates pull.
#[derive(Debug, Default)]
struct Pulled {
    values: XComMap,
    /// Of members of the same mapped group: the values of the same index, by (task id, key).
    own: HashMap<(String, String), Value>,
    map_index: i32,
}

impl XComSource for Pulled {
    fn pull(
        &self,
        task_id: &str,
        key: &str,
        map_index: Option<i32>,
    ) -> Result<Option<Value>, String> {
        let own = self.own.get(&(task_id.to_owned(), key.to_owned()));
        match own.filter(|_| map_index.is_none_or(|index| index == self.map_index)) {
            Some(value) => Ok(Some(value.clone())),
            None => self.values.pull(task_id, key, map_index),
        }
    }
}

async fn fetch(
    worker: &Incarnation,
    message: &WorkMessage,
    refs: &[XcomRef],
) -> Vec<Option<Value>> {
    let keys: Vec<XComKey> = refs
        .iter()
        .map(|x| XComKey {
            run: message.run.pk.0,
            ti: x.ti.0,
            fence: x.fence.0,
            key: x.key.clone(),
        })
        .collect();
    let cached = worker
        .presence
        .get_xcoms(&keys)
        .await
        .unwrap_or_else(|_| vec![None; refs.len()]);
    let mut values = Vec::with_capacity(refs.len());
    for (reference, bytes) in refs.iter().zip(cached) {
        let bytes: Option<Bytes> = match (bytes, &reference.object) {
            (Some(bytes), _) => Some(bytes),
            (None, Some(object)) => worker.objects.get(object).await.ok(),
            (None, None) => None,
        };
        values.push(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()));
    }
    values
}

/// The durable copy of a task's XCom, by the API with the run's own token.
async fn from_api(
    worker: &Incarnation,
    message: &WorkMessage,
    task: &str,
    key: &str,
    map_index: Option<i32>,
) -> Result<Value, String> {
    let api = worker.config.api_url.as_deref().ok_or_else(|| {
        format!("the XCom {key:?} of {task} is not in Redis any more, and GRISTMILL_API_URL is not set to read its durable copy")
    })?;
    let mut url =
        url::Url::parse(api).map_err(|error| format!("GRISTMILL_API_URL {api:?}: {error}"))?;
    url.set_path(&format!("/internal/v1/runs/{}/xcoms", message.run.pk));
    url.query_pairs_mut()
        .append_pair("task_id", task)
        .append_pair("key", key)
        .extend_pairs(map_index.map(|index| ("map_index", index.to_string())));
    let answer = worker
        .http()
        .get(url)
        .bearer_auth(&message.token)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| {
            format!(
                "cannot read the XCom {key:?} of {task} from the API: {}",
                error.without_url()
            )
        })?;
    answer.json().await.map_err(|error| {
        format!(
            "the API's answer for the XCom {key:?} of {task} is no JSON: {}",
            error.without_url()
        )
    })
}

type Opened = (Map<String, Value>, Map<String, Value>, Vec<String>);

/// The connections and variables that the task names: from the worker's own environment and files, else as they came,
/// sealed. Also lists every secret text in them, for masking.
fn open_secrets(worker: &Incarnation, message: &WorkMessage) -> Result<Opened, String> {
    let mut secrets = Vec::new();
    let (mut connections, mut variables) = (Map::new(), Map::new());
    if !worker.secrets.is_empty() {
        let refs = running_references(&message.task);
        for id in refs.conns {
            let found = worker.secrets.connection(&id);
            let found = found.map_err(|error| format!("connection {id:?}: {error}"))?;
            if let Some((connection, _)) = found {
                connections.insert(id, Value::Object(connection));
            }
        }
        for name in refs.vars {
            let found = worker.secrets.variable(&name);
            let found = found.map_err(|error| format!("variable {name:?}: {error}"))?;
            if let Some((text, _)) = found {
                // Whatever it is called: it is kept among secrets.
                secrets.push(text.clone());
                variables.insert(name, Value::String(text));
            }
        }
    }
    for (id, sealed) in &message.sealed.connections {
        if connections.contains_key(id) {
            continue;
        }
        let text = worker
            .secret
            .open(sealed)
            .map_err(|error| format!("connection {id:?}: {error}"))?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|_| format!("connection {id:?} is not readable"))?;
        connections.insert(id.clone(), value);
    }
    for connection in connections.values() {
        secrets.extend(
            connection
                .get("password")
                .and_then(Value::as_str)
                .map(str::to_owned),
        );
        if let Some(Value::Object(extra)) = connection.get("extra") {
            secrets.extend(extra.values().filter_map(Value::as_str).map(str::to_owned));
        }
    }
    for (name, sealed) in &message.sealed.variables {
        if variables.contains_key(name) {
            continue;
        }
        let text = worker
            .secret
            .open(sealed)
            .map_err(|error| format!("variable {name:?}: {error}"))?;
        let text = String::from_utf8(text).map_err(|_| format!("variable {name:?} is not text"))?;
        if is_secret_name(name) {
            secrets.push(text.clone());
        }
        variables.insert(name.clone(), Value::String(text));
    }
    Ok((connections, variables, secrets))
}

/// Variables whose names say that they hold a secret are masked in logs.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "password",
        "passwd",
        "secret",
        "token",
        "api_key",
        "apikey",
        "private_key",
        "credential",
    ]
    .iter()
    .any(|word| name.contains(word))
}
