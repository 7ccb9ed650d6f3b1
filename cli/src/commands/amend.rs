//! Clearing and marking: what `gristmill tasks` and `gristmill runs` share.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Context;
use super::exit::CommandError;
use super::output::Output;
use crate::client::{Client, Instance, RunName};

/// Task instances shown at most; the count says how many there are.
const SHOWN: usize = 200;

/// Which instances beside the tasks that are named.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// And every task that they depend on
    #[arg(long)]
    upstream: bool,
    /// And every task that depends on them
    #[arg(long)]
    downstream: bool,
    /// And the same in all runs with an earlier logical date
    #[arg(long)]
    past: bool,
    /// And the same in all runs with a later logical date
    #[arg(long)]
    future: bool,
    /// Only this instance of a mapped task
    #[arg(long, value_name = "N")]
    map_index: Option<u32>,
    /// Only say what would be changed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClearTasks {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The tasks, or groups of tasks; all if none is given
    task_ids: Vec<String>,
    #[command(flatten)]
    reach: Reach,
    /// Only instances that failed
    #[arg(long)]
    only_failed: bool,
    /// Only instances that run; they are stopped first
    #[arg(long)]
    only_running: bool,
    /// Refuse it if an instance is running
    #[arg(long)]
    prevent_running: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct MarkTask {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The task
    task_id: String,
    /// What it is to have ended in
    #[arg(long, value_enum)]
    state: TaskState,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ClearRun {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// Only instances that failed
    #[arg(long)]
    only_failed: bool,
    /// Only say what would be cleared
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct MarkRun {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// Its new state: queued starts an ended run again, as its tasks are
    #[arg(long, value_enum)]
    state: RunState,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TaskState {
    Success,
    Failed,
    Skipped,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RunState {
    Queued,
    Success,
    Failed,
}

/// The word on the wire.
fn word<T: ValueEnum>(value: T) -> String {
    value
        .to_possible_value()
        .map(|word| word.get_name().to_owned())
        .unwrap_or_default()
}

impl ClearTasks {
    pub(super) async fn run(
        self,
        client: &Client,
        context: &Context<'_>,
    ) -> Result<(), CommandError> {
        let task_ids: Vec<Value> = self
            .task_ids
            .iter()
            .map(|id| match self.reach.map_index {
                Some(index) => json!([id, index]),
                None => json!(id),
            })
            .collect();
        let mut body = json!({
            "dag_run_id": self.run_id,
            "dry_run": self.reach.dry_run,
            "only_failed": self.only_failed,
            "only_running": self.only_running,
            "prevent_running_task": self.prevent_running,
            "include_upstream": self.reach.upstream,
            "include_downstream": self.reach.downstream,
            "include_past": self.reach.past,
            "include_future": self.reach.future,
        });
        if !task_ids.is_empty() {
            body["task_ids"] = task_ids.into();
        }
        let path = ["dags", &self.dag_id, "clearTaskInstances"];
        let answer = client.post(&path, &body).await?;
        report(
            context,
            &self.output,
            &answer,
            "cleared",
            self.reach.dry_run,
        )
    }
}

impl MarkTask {
    pub(super) async fn run(
        self,
        client: &Client,
        context: &Context<'_>,
    ) -> Result<(), CommandError> {
        let state = word(self.state);
        let body = json!({
            "new_state": state,
            "include_upstream": self.reach.upstream,
            "include_downstream": self.reach.downstream,
            "include_past": self.reach.past,
            "include_future": self.reach.future,
        });
        let map_index = self.reach.map_index.map(|index| index.to_string());
        let mut path = vec![
            "dags",
            &self.dag_id,
            "dagRuns",
            &self.run_id,
            "taskInstances",
            &self.task_id,
        ];
        path.extend(map_index.as_deref());
        if self.reach.dry_run {
            path.push("dry_run");
        }
        let answer = client.patch(&path, &body).await?;
        let done = format!("marked {state}");
        report(context, &self.output, &answer, &done, self.reach.dry_run)
    }
}

impl ClearRun {
    pub(super) async fn run(
        self,
        client: &Client,
        context: &Context<'_>,
    ) -> Result<(), CommandError> {
        let body = json!({ "dry_run": self.dry_run, "only_failed": self.only_failed });
        let path = ["dags", &self.dag_id, "dagRuns", &self.run_id, "clear"];
        let answer = client.post(&path, &body).await?;
        if self.dry_run {
            return report(context, &self.output, &answer, "cleared", true);
        }
        let name = RunName {
            dag_id: self.dag_id,
            run_id: self.run_id,
        };
        told(context, &self.output, &answer, &format!("cleared {name}"))
    }
}

impl MarkRun {
    pub(super) async fn run(
        self,
        client: &Client,
        context: &Context<'_>,
    ) -> Result<(), CommandError> {
        let state = word(self.state);
        let path = ["dags", &self.dag_id, "dagRuns", &self.run_id];
        let answer = client.patch(&path, &json!({ "state": state })).await?;
        let name = RunName {
            dag_id: self.dag_id,
            run_id: self.run_id,
        };
        told(
            context,
            &self.output,
            &answer,
            &format!("marked {name} {state}"),
        )
    }
}

fn told(
    context: &Context<'_>,
    output: &Output,
    answer: &Value,
    text: &str,
) -> Result<(), CommandError> {
    if output.is_json() {
        context.console.json(answer)?;
    } else {
        context.console.note(text);
    }
    Ok(())
}

/// Lists the instances of an answer, and counts them.
fn report(
    context: &Context<'_>,
    output: &Output,
    answer: &Value,
    done: &str,
    dry_run: bool,
) -> Result<(), CommandError> {
    if output.is_json() {
        return Ok(context.console.json(answer)?);
    }
    let rows: Vec<Value> = answer["task_instances"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let instances = Instance::all_of(rows)?;
    for instance in instances.iter().take(SHOWN) {
        let run = instance.dag_run_id.as_deref().unwrap_or_default();
        let line = format!("{run}  {}  {}", instance.label(), instance.state());
        context.console.line(&line)?;
    }
    let total = answer["total_entries"].as_u64().unwrap_or_default();
    let would = if dry_run { "would be " } else { "" };
    context.console.note(&match total {
        1 => format!("1 task instance {would}{done}"),
        n => format!("{n} task instances {would}{done}"),
    });
    Ok(())
}
