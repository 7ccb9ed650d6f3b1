//! The `data` task: each phase is a run of the data engine as a child process.

use super::{child, env, scratch::Scratch, xcom};
use crate::run::{Execution, Outcome};
use gristmill_common::{
    message::Ending,
    spec::{DataPhase, DataTask},
};
use gristmill_guardian::{Limits, SpawnRequest};
use serde_json::{Value, json};
use uuid::Uuid;

/// Exit codes of the engine, as it documents them.
mod exit {
    pub(super) const USER_ERROR: i32 = 1;
    pub(super) const BAD_REQUEST: i32 = 2;
}
const DEFAULT_MEMORY: u64 = 1024 * 1024 * 1024;
/// Beside the operators' memory the process needs room of its own.
const LEAST_OVERHEAD: u64 = 256 * 1024 * 1024;

pub(crate) async fn run(execution: &Execution, task: &DataTask) -> Outcome {
    let message = &execution.message;
    let work_dir = &execution.worker.config.work_dir;
    let scratch = match Scratch::make(work_dir, message.attempt, message.dispatch.fence.0) {
        Ok(scratch) => scratch,
        Err(error) => {
            return Outcome::failed(format!(
                "cannot make a scratch folder in {}: {error}",
                work_dir.display()
            ));
        }
    };
    let request = match request(execution, task) {
        Ok(request) => request,
        Err(reason) => return Outcome::failed_for_good(reason),
    };
    let (request_file, result_file) = (
        scratch.path().join("request.json"),
        scratch.path().join("result.json"),
    );
    if let Err(error) = tokio::fs::write(&request_file, request.to_string()).await {
        return Outcome::failed(format!("cannot write the engine's request: {error}"));
    }
    let mut env = match env::of_task(execution, &scratch) {
        Ok(env) => env,
        Err(reason) => return Outcome::failed_for_good(reason),
    };
    env.extend(std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")));
    let phase = phase_name(task.phase);
    let memory = task.resources.memory.unwrap_or(DEFAULT_MEMORY);
    let spawn = SpawnRequest {
        env,
        cwd: execution.context.bundle.as_ref().map_or_else(
            || scratch.path().to_owned(),
            |bundle| bundle.path().to_owned(),
        ),
        limits: Limits {
            memory_bytes: Some(memory + LEAST_OVERHEAD.max(memory / 4)),
            ..Limits::default()
        },
        ..SpawnRequest::new([
            execution.worker.config.data_engine.as_os_str(),
            phase.as_ref(),
            "--request".as_ref(),
            request_file.as_os_str(),
            "--result".as_ref(),
            result_file.as_os_str(),
        ])
    };
    let spec = child::Spec {
        request: spawn,
        stdin: None,
        grace: gristmill_common::span::Span::from_secs(5),
        output_limit: execution.worker.config.output_limit,
    };
    let ended = match child::run(execution, spec).await {
        Ok(ended) => ended,
        Err(outcome) => return outcome,
    };
    let code = match ended.code(None) {
        Ok(code) => code,
        Err(outcome) => return outcome,
    };
    let result = xcom::from_file(&result_file).await;
    let mut outcome = match (code, result) {
        (0, Ok(Some(value))) => match xcom::return_value(execution, value).await {
            Ok(xcoms) => Outcome::success(xcoms),
            Err(reason) => Outcome::failed(reason),
        },
        (0, Ok(None)) => Outcome::failed("the data engine left no result"),
        (0, Err(reason)) => Outcome::failed(reason),
        (code, result) => failure(
            code,
            result.ok().flatten().as_ref(),
            ended.last_error.as_deref(),
        ),
    };
    outcome.exit_code = Some(code);
    outcome.pid = Some(ended.pid as i32);
    outcome
}

fn failure(code: i32, result: Option<&Value>, last_error: Option<&str>) -> Outcome {
    let told = result
        .and_then(|value| value.pointer("/error/message"))
        .and_then(Value::as_str);
    let reason = told.or(last_error).unwrap_or("the data engine crashed");
    let ending = match code {
        exit::USER_ERROR | exit::BAD_REQUEST => Ending::FailedForGood,
        _ => Ending::Failed,
    };
    Outcome {
        ending: Some(ending),
        reason: Some(reason.to_owned()),
        ..Outcome::default()
    }
}

fn phase_name(phase: DataPhase) -> &'static str {
    match phase {
        DataPhase::Plan => "plan",
        DataPhase::Part => "part",
        DataPhase::Commit => "commit",
    }
}

/// The task's id without its phase: `totals` of `totals.part`.
fn group_of(task_id: &str) -> &str {
    task_id.rsplit_once('.').map_or(task_id, |(group, _)| group)
}

fn request(execution: &Execution, task: &DataTask) -> Result<Value, String> {
    let message = &execution.message;
    let group = group_of(&message.task.task_id);
    let mut spec = serde_json::to_value(task).map_err(|error| error.to_string())?;
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("phase");
    }
    let spec = execution
        .context
        .renderer
        .render_value(&spec)
        .map_err(|error| format!("data: {error}"))?;
    let work_dir = format!(
        "{}/{}/task={}/{}-{}-f{}/",
        execution.worker.objects.url().trim_end_matches('/'),
        gristmill_common::message::data_prefix(message.run.pk),
        gristmill_objects::encode_segment(group),
        phase_name(task.phase),
        message.map_index,
        message.dispatch.fence,
    );
    let mut request = json!({"spec": spec, "work_dir": work_dir});
    let fields = request.as_object_mut().ok_or("no object")?;
    match task.phase {
        DataPhase::Plan => {}
        DataPhase::Part => {
            let partition = message.map.as_ref().and_then(|map| map.get("partition"));
            fields.insert(
                "partition".to_owned(),
                partition
                    .cloned()
                    .ok_or("the mapped instance has no partition")?,
            );
        }
        DataPhase::Commit => {
            let pull = |phase: &str| {
                execution
                    .context
                    .renderer
                    .render_native(&format!("{{{{ ti.xcom_pull('{group}.{phase}') }}}}"))
                    .map_err(|error| format!("data: {error}"))
            };
            let plan = pull("plan")?;
            fields.insert(
                "plan".to_owned(),
                plan.get("plan").cloned().unwrap_or_default(),
            );
            fields.insert("parts".to_owned(), pull("part")?);
            fields.insert(
                "run_key".to_owned(),
                Value::String(run_key(message.run.pk.0, group)),
            );
        }
    }
    Ok(request)
}

/// The same for every attempt of this run and task.
fn run_key(run: i64, group: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{run}/{group}").as_bytes()).to_string()
}
