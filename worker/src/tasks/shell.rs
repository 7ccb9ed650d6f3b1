//! The `shell` task.

use super::{artifacts, child, env, scratch::Scratch, xcom};
use crate::run::{Execution, Outcome};
use gristmill_common::{
    message::{Ending, XcomOut},
    spec::{OutputMode, ShellTask},
    template::TemplateError,
};
use gristmill_guardian::{Limits, SpawnRequest, User};
use serde_json::{Value, json};
use std::{borrow::Cow, io, path::PathBuf};

pub(crate) async fn run(execution: &Execution, task: &ShellTask) -> Outcome {
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
    if let Err(reason) = artifacts::fetch(execution, scratch.path()).await {
        return Outcome::failed(reason);
    }
    let spec = match prepare(execution, task, &scratch) {
        Ok(spec) => spec,
        Err(failure) => return failure,
    };
    let ended = match child::run(execution, spec).await {
        Ok(ended) => ended,
        Err(outcome) => return outcome,
    };
    let code = match ended.code(None) {
        Ok(code) => code,
        Err(outcome) => return outcome,
    };
    let output: Vec<String> = match code {
        0 => Vec::new(),
        _ => [&ended.last_line, &ended.last_error]
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
    };
    let mut outcome = match code {
        0 => match result(execution, task, &scratch, ended.last_line).await {
            Ok(xcoms) => Outcome::success(xcoms),
            Err(reason) => Outcome::failed(reason),
        },
        code if task.skip_on_exit_code == Some(code) => Outcome {
            ending: Some(Ending::Skipped),
            reason: Some(format!("exit code {code} means skipped")),
            ..Outcome::default()
        },
        code => Outcome::failed(match ended.last_error {
            Some(line) => format!(
                "exit code {code}: {}",
                shorten(&execution.context.mask.apply(line))
            ),
            None => format!("exit code {code}"),
        }),
    };
    outcome.output = output;
    outcome.exit_code = Some(code);
    outcome.pid = Some(ended.pid as i32);
    outcome
}

/// A line as a reason: not longer than one reads at a glance.
fn shorten(line: &str) -> Cow<'_, str> {
    match line.char_indices().nth(300) {
        Some((end, _)) => Cow::Owned(format!("{}…", &line[..end])),
        None => Cow::Borrowed(line),
    }
}

fn prepare(
    execution: &Execution,
    task: &ShellTask,
    scratch: &Scratch,
) -> Result<child::Spec, Outcome> {
    let renderer = &execution.context.renderer;
    let bad =
        |what: &str, error: TemplateError| Outcome::failed_for_good(format!("{what}: {error}"));
    let command = renderer
        .render(&task.command)
        .map_err(|error| bad("shell.command", error))?;
    let stdin = task
        .stdin
        .as_deref()
        .map(|text| {
            renderer
                .render(text)
                .map(|text| text.into_owned().into_bytes())
        })
        .transpose()
        .map_err(|error| bad("shell.stdin", error))?;
    let mut files = Vec::with_capacity(task.files.len());
    for (name, template) in &task.files {
        let text = renderer
            .render(template)
            .map_err(|error| bad(&format!("shell.files.{name}"), error))?;
        files.push((name, text.into_owned()));
    }
    write_files(scratch, &files)
        .map_err(|error| Outcome::failed(format!("cannot write shell.files: {error}")))?;
    let cwd = execution.context.bundle.as_ref().map_or_else(
        || scratch.path().to_owned(),
        |bundle| bundle.path().to_owned(),
    );
    let user = task
        .user
        .as_deref()
        .map(User::lookup)
        .transpose()
        .map_err(|error| Outcome::failed_for_good(format!("shell.user: {error}")))?;
    if let Some(user) = &user {
        std::os::unix::fs::chown(scratch.path(), Some(user.uid), Some(user.gid)).map_err(
            |error| {
                Outcome::failed_for_good(format!(
                    "shell.user: this worker may not run tasks as another user: {error}"
                ))
            },
        )?;
    }
    let request = SpawnRequest {
        env: env::of_task(execution, scratch).map_err(Outcome::failed_for_good)?,
        cwd,
        limits: Limits {
            memory_bytes: task.resources.memory,
            cpu_seconds: task
                .resources
                .cpu_time
                .map(|span| span.duration().as_secs().max(1)),
            open_files: task.resources.open_files,
            file_size_bytes: None,
        },
        user,
        ..SpawnRequest::new(["/bin/sh", "-c", &*command])
    };
    Ok(child::Spec {
        request,
        stdin,
        grace: task.kill_grace,
        output_limit: task
            .resources
            .output
            .unwrap_or(execution.worker.config.output_limit),
    })
}

fn write_files(scratch: &Scratch, files: &[(&String, String)]) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let folder = scratch.path().join("files");
    std::fs::create_dir(&folder)?;
    for (name, text) in files {
        let inside = PathBuf::from(name);
        if inside.components().count() != 1 || name.contains(['/', '\0']) || *name == ".." {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is not a plain file name"),
            ));
        }
        std::fs::write(folder.join(inside), text)?;
    }
    Ok(())
}

/// What it leaves: files, and the return value, which is what the task wrote to `$GRISTMILL_XCOM`, else its last line as `output` says.
async fn result(
    execution: &Execution,
    task: &ShellTask,
    scratch: &Scratch,
    last_line: Option<String>,
) -> Result<Vec<XcomOut>, String> {
    let value = match xcom::from_file(&scratch.xcom_file()).await? {
        Some(value) => Some(value),
        None => match (task.output, last_line) {
            (OutputMode::None, _) | (_, None) => None,
            (OutputMode::Last, Some(line)) => Some(Value::String(line)),
            (OutputMode::Json, Some(line)) => {
                Some(serde_json::from_str(&line).map_err(|error| {
                    format!("output: json, but the last line is no JSON: {error}")
                })?)
            }
        },
    };
    let mut xcoms = match value {
        Some(value) => xcom::return_value(execution, value).await?,
        None => Vec::new(),
    };
    if !execution.message.task.artifacts.is_empty() {
        let kept = artifacts::keep(execution, scratch.path())
            .await
            .map_err(|reason| format!("artifacts: {reason}"))?;
        xcoms.push(xcom::put(execution, artifacts::KEY, json!(kept)).await?);
    }
    Ok(xcoms)
}
