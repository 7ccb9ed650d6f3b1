//! The `sql` task: statements on a database, in one transaction, made by the worker itself.

use super::{
    SqlError,
    script::{self, Parameters},
    session::{Done, Keep, Session, Stopper},
    target::Target,
};
use crate::{
    held::Wish,
    run::{Execution, Outcome},
    tasks::xcom,
};
use gristmill_common::spec::{SqlOutput, SqlParameters, SqlTask};
use serde_json::{Map, Value, json};
use std::{
    path::Path,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A script above this is refused.
const LARGEST_SCRIPT: u64 = 4 * 1024 * 1024;
/// How long an attempt that is stopped waits for its query's end.
const STOPPING: Duration = Duration::from_secs(10);

/// All that is known before the database is asked.
struct Plan {
    target: Target,
    /// As in the log.
    name: String,
    statements: Vec<(String, Vec<Value>)>,
}

/// What an attempt and who stops it share.
#[derive(Default)]
struct Shared {
    stop: Arc<AtomicBool>,
    stopper: OnceLock<Stopper>,
}

pub(in crate::tasks) async fn run(execution: &Execution, task: &SqlTask) -> Outcome {
    execution.report_started(None);
    let plan = match plan(execution, task) {
        Ok(plan) => plan,
        Err(reason) => return Outcome::failed_for_good(execution.context.mask.apply(reason)),
    };
    let shared = Shared::default();
    let mut work = pin!(work(execution, task, plan, &shared));
    let timeout = execution.message.task.execution_timeout;
    let late = async {
        match timeout {
            Some(after) => tokio::time::sleep(after.duration()).await,
            None => std::future::pending().await,
        }
    };
    let stopped = tokio::select! {
        outcome = &mut work => return outcome,
        wish = execution.wished() => Outcome::wished(wish),
        () = late => Outcome::failed(format!(
            "timed out after {}",
            timeout.map(|after| after.to_string()).unwrap_or_default()
        )),
    };
    // No more statement is sent, and the one that runs is ended at the server: only then is it told that this attempt ended.
    shared.stop.store(true, Ordering::SeqCst);
    let Some(stopper) = shared.stopper.get() else {
        return stopped;
    };
    if let Err(error) = stopper.stop().await {
        let note = format!("the query could not be stopped at the database: {error}");
        execution.log.error(&note).await;
    }
    match tokio::time::timeout(STOPPING, work).await {
        // It was faster.
        Ok(done) if done.ending == Outcome::success(Vec::new()).ending => done,
        _ => stopped,
    }
}

/// Renders and takes apart what is to run. An error is one that another try cannot mend.
fn plan(execution: &Execution, task: &SqlTask) -> Result<Plan, String> {
    let renderer = &execution.context.renderer;
    let name = renderer
        .render(&task.connection)
        .map_err(|error| format!("sql.connection: {error}"))?
        .trim()
        .to_owned();
    let connection = super::connection(execution, "sql.connection", &name)?;
    let target = Target::of(connection).map_err(|error| format!("connection {name:?}: {error}"))?;
    let dialect = target.dialect();
    let mut statements = Vec::new();
    for text in &task.statements {
        let text = renderer
            .render(text)
            .map_err(|error| format!("sql.statements: {error}"))?;
        statements.extend(script::split(&text, dialect));
    }
    if let Some(file) = &task.file {
        let folder = execution
            .context
            .bundle
            .as_ref()
            .map(|bundle| bundle.path());
        let text = read(folder, file).map_err(|error| format!("sql.file {file:?}: {error}"))?;
        statements.extend(script::split(&text, dialect));
    }
    if statements.is_empty() {
        return Err("sql: there is no statement to run".to_owned());
    }
    let parameters = parameters(execution, &task.parameters)
        .map_err(|error| format!("sql.parameters: {error}"))?;
    let statements =
        script::bind(&statements, &parameters, dialect).map_err(|error| format!("sql: {error}"))?;
    Ok(Plan {
        target,
        name,
        statements,
    })
}

fn parameters(execution: &Execution, given: &SqlParameters) -> Result<Parameters, String> {
    let render = |value: &Value| {
        let rendered = execution.context.renderer.render_value(value);
        rendered.map_err(|error| error.to_string())
    };
    Ok(match given {
        SqlParameters::List(list) => {
            Parameters::List(list.iter().map(render).collect::<Result<_, _>>()?)
        }
        SqlParameters::Named(named) => {
            let named = named
                .iter()
                .map(|(name, value)| Ok((name.clone(), render(value)?)));
            Parameters::Named(named.collect::<Result<Map<_, _>, String>>()?)
        }
    })
}

/// A script of the bundle.
fn read(folder: Option<&Path>, file: &str) -> Result<String, String> {
    let folder = folder.ok_or("the DAG was deployed without a folder, so there are no files")?;
    let text = |error: std::io::Error| error.to_string();
    let folder = folder.canonicalize().map_err(text)?;
    let path = folder.join(file).canonicalize().map_err(text)?;
    if !path.starts_with(&folder) {
        return Err("it is not in the bundle".to_owned());
    }
    let size = path.metadata().map_err(text)?.len();
    if size > LARGEST_SCRIPT {
        return Err(format!(
            "it is {size} bytes, at most {LARGEST_SCRIPT} are read"
        ));
    }
    std::fs::read_to_string(path).map_err(text)
}

async fn work(execution: &Execution, task: &SqlTask, plan: Plan, shared: &Shared) -> Outcome {
    let mask = &execution.context.mask;
    let name = plan.name.clone();
    match query(execution, task, plan, shared).await {
        Ok(value) => {
            let Some(value) = value else {
                return Outcome::success(Vec::new());
            };
            match xcom::return_value(execution, value).await {
                Ok(xcoms) => Outcome::success(xcoms),
                Err(reason) => Outcome::failed(reason),
            }
        }
        Err(Failure::Interrupted) => Outcome::wished(Wish::Interrupt),
        Err(Failure::Sql(statement, error)) => {
            let reason = match statement {
                Some(number) => format!("sql on {name}, statement {number}: {error}"),
                None => format!("sql on {name}: {error}"),
            };
            failed(mask.apply(reason))
        }
        Err(Failure::Check(reason)) => failed(mask.apply(reason)),
    }
}

/// What the task's retry rules look at is the reason.
fn failed(reason: String) -> Outcome {
    Outcome {
        output: vec![reason.clone()],
        ..Outcome::failed(reason)
    }
}

enum Failure {
    /// The lease is over: another attempt may be under way.
    Interrupted,
    /// Of the statement with this number, if of one.
    Sql(Option<usize>, SqlError),
    Check(String),
}

/// Runs the statements; gives the return value, if there is to be one.
async fn query(
    execution: &Execution,
    task: &SqlTask,
    plan: Plan,
    shared: &Shared,
) -> Result<Option<Value>, Failure> {
    let general = |error| Failure::Sql(None, error);
    let go_on = || {
        if shared.stop.load(Ordering::SeqCst) {
            return Err(Failure::Sql(None, SqlError::Stopped));
        }
        if !execution.worker.lease.holds() {
            return Err(Failure::Interrupted);
        }
        Ok(())
    };
    go_on()?;
    let (mut session, stopper) = Session::open(plan.target, shared.stop.clone())
        .await
        .map_err(general)?;
    // Set once: each attempt has one session.
    let _ = shared.stopper.set(stopper);
    if !task.autocommit {
        go_on()?;
        session.begin().await.map_err(general)?;
    }
    let last = plan.statements.len();
    let mut done = Done::default();
    for (i, (text, values)) in plan.statements.iter().enumerate() {
        go_on()?;
        let number = i + 1;
        let keep = match task.output {
            _ if number < last => Keep::None,
            _ if !task.checks.is_empty() => Keep::UpTo(task.max_rows),
            SqlOutput::Rows => Keep::UpTo(task.max_rows),
            SqlOutput::Value => Keep::First,
            SqlOutput::Count | SqlOutput::None => Keep::None,
        };
        let started = Instant::now();
        done = session
            .run(text, values, keep)
            .await
            .map_err(|error| Failure::Sql(Some(number), error))?;
        let rows = match done.count {
            1 => "1 row".to_owned(),
            count => format!("{count} rows"),
        };
        let took = started.elapsed().as_millis();
        let note = format!("{number}/{last} {}: {rows}, {took} ms", beginning(text));
        execution.log.note(&note).await;
    }
    check(execution, task, &done)?;
    if !task.autocommit {
        go_on()?;
        session.commit().await.map_err(general)?;
    }
    session.close().await;
    Ok(match task.output {
        SqlOutput::None => None,
        SqlOutput::Count => Some(json!(done.count)),
        SqlOutput::Rows => Some(json!(done.rows)),
        SqlOutput::Value => {
            let first = done.rows.into_iter().next();
            Some(first.map_or(Value::Null, first_value))
        }
    })
}

/// The expressions that have to be true before anything is committed.
fn check(execution: &Execution, task: &SqlTask, done: &Done) -> Result<(), Failure> {
    if task.checks.is_empty() {
        return Ok(());
    }
    let facts = json!({"rows": done.rows, "count": done.count});
    let facts = facts.as_object().cloned().unwrap_or_default();
    for check in &task.checks {
        match execution.context.renderer.eval(check, facts.clone()) {
            Ok(Value::Bool(true)) => {}
            Ok(other) => {
                let first = done.rows.first().map(|row| {
                    let row = Value::Object(row.clone()).to_string();
                    format!(", the first is {}", beginning(&row))
                });
                return Err(Failure::Check(format!(
                    "the check {check:?} is {other}, not true ({} rows{})",
                    done.count,
                    first.unwrap_or_default()
                )));
            }
            Err(error) => return Err(Failure::Check(format!("sql.checks: {error}"))),
        }
    }
    Ok(())
}

fn first_value(row: Map<String, Value>) -> Value {
    row.into_iter()
        .next()
        .map_or(Value::Null, |(_, value)| value)
}

/// A text's beginning, on one line.
fn beginning(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_from_the_bundle_only() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("bundle");
        std::fs::create_dir_all(folder.join("sql")).unwrap();
        std::fs::write(folder.join("sql/load.sql"), "SELECT 1").unwrap();
        std::fs::write(around.path().join("secret"), "x").unwrap();
        let of = |file: &str| read(Some(&folder), file);
        assert_eq!(of("sql/load.sql").unwrap(), "SELECT 1");
        assert!(of("../secret").unwrap_err().contains("not in the bundle"));
        assert!(of("sql/none.sql").unwrap_err().contains("No such file"));
        assert!(
            read(None, "a.sql")
                .unwrap_err()
                .contains("without a folder")
        );
    }
}
