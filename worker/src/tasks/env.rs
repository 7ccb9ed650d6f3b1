//! The environment of a task's process: minimal, and exact.

use super::{artifacts::inputs_folder, scratch::Scratch};
use crate::run::Execution;
use gristmill_common::message::WorkMessage;
use serde_json::Value;
use std::ffi::OsString;

/// A longer value has to go by `stdin:` or `files:`.
const LONGEST_VALUE: usize = 100 * 1024;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One environment of a process.
pub(crate) type Env = Vec<(OsString, OsString)>;

/// Everything that a task's process sees: Gristmill's own names, what the worker passes on, and the task's `env`.
pub(crate) fn of_task(execution: &Execution, scratch: &Scratch) -> Result<Env, String> {
    let message = &execution.message;
    let mut env = base(message, scratch);
    if !message.task.artifacts.is_empty() {
        set(&mut env, "GRISTMILL_ARTIFACTS", scratch.path());
    }
    if !message.task.inputs.is_empty() {
        set(&mut env, "GRISTMILL_INPUTS", inputs_folder(scratch.path()));
    }
    if !message.run.asset_events.is_empty() {
        let events = Value::Object(message.run.asset_events.clone()).to_string();
        set(&mut env, "GRISTMILL_ASSET_EVENTS", events);
    }
    for name in &execution.worker.config.pass_env {
        if let Some(value) = std::env::var_os(name) {
            set(&mut env, name, value);
        }
    }
    for (name, template) in &message.task.env {
        let value = execution
            .context
            .renderer
            .render(template)
            .map_err(|error| format!("env.{name}: {error}"))?
            .into_owned();
        if value.len() > LONGEST_VALUE {
            return Err(format!(
                "env.{name} is {} bytes, at most {LONGEST_VALUE} fit into an environment: pass it by `stdin:` or `files:`",
                value.len()
            ));
        }
        if value.contains('\0') {
            return Err(format!("env.{name} holds a NUL character"));
        }
        set(&mut env, name, value);
    }
    Ok(env)
}

fn base(message: &WorkMessage, scratch: &Scratch) -> Env {
    let run = &message.run;
    let key = format!(
        "{}/{}/{}/{}",
        run.dag_id, run.run_id, message.task.task_id, message.map_index
    );
    let json = |map: &serde_json::Map<String, Value>| Value::Object(map.clone()).to_string();
    let pairs: [(&str, OsString); 18] = [
        (
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| PATH.into()),
        ),
        ("HOME", scratch.path().into()),
        ("TMPDIR", scratch.path().into()),
        ("LANG", "C.UTF-8".into()),
        ("GRISTMILL_DAG_ID", run.dag_id.as_str().into()),
        ("GRISTMILL_RUN_ID", run.run_id.as_str().into()),
        ("GRISTMILL_TASK_ID", message.task.task_id.as_str().into()),
        ("GRISTMILL_MAP_INDEX", message.map_index.to_string().into()),
        (
            "GRISTMILL_TRY_NUMBER",
            message.try_number.to_string().into(),
        ),
        ("GRISTMILL_ATTEMPT_ID", message.attempt.to_string().into()),
        ("GRISTMILL_FENCE", message.dispatch.fence.to_string().into()),
        // The same for every attempt: an outside effect made under it is made once.
        ("GRISTMILL_IDEMPOTENCY_KEY", key.into()),
        ("GRISTMILL_XCOM", scratch.xcom_file().into()),
        ("GRISTMILL_FILES", scratch.path().join("files").into()),
        ("GRISTMILL_PARAMS", json(&run.params).into()),
        ("GRISTMILL_CONF", json(&run.conf).into()),
        (
            "GRISTMILL_LOGICAL_DATE",
            run.logical_date
                .map(|d| d.to_rfc3339())
                .unwrap_or_default()
                .into(),
        ),
        ("GRISTMILL_RUN_TYPE", run.run_type.as_str().into()),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect()
}

/// Sets a variable, replacing one of that name.
fn set(env: &mut Env, name: &str, value: impl Into<OsString>) {
    env.retain(|(known, _)| known != name);
    env.push((name.into(), value.into()));
}
