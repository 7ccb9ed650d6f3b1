//! Figures of a steady load.

use super::{args::RunArgs, driver::Outcome, plan::Plan};
use crate::{
    deployment::Deployment,
    measure::{Cost, Samples},
    report::{FigureValue, Measured},
};
use std::collections::BTreeMap;

/// What is reported of a load: what was asked for and reached, latencies, and what a task cost.
pub(super) fn measured(
    deployment: &Deployment,
    args: &RunArgs,
    plan: &Plan,
    outcome: Outcome,
    starts: &Samples,
    cost: &Cost,
    messages: Option<f64>,
) -> Measured {
    let tasks: usize = outcome.runs.iter().map(|run| run.tasks).sum();
    let failures: u64 = outcome.runs.iter().map(|run| run.failures).sum();
    let seconds = outcome.took.as_secs_f64();
    let mut figures = Figures::default();
    figures.one("runs_due", "runs that were due", "runs", plan.runs as f64);
    figures.one(
        "runs_ended",
        "  ended in success",
        "runs",
        outcome.runs.len() as f64,
    );
    figures.one(
        "runs_wrong",
        "  ended otherwise",
        "runs",
        outcome.wrong as f64,
    );
    figures.one(
        "errors",
        "  refused, or not ended in time",
        "runs",
        outcome.error_count() as f64,
    );
    figures.one(
        "runs_dropped",
        "  given up (Ctrl-C)",
        "runs",
        outcome.dropped as f64,
    );
    figures.one(
        "tasks_ended",
        "task instances that ended in success",
        "tasks",
        tasks as f64,
    );
    figures.one(
        "tasks_retried",
        "  that had failed once",
        "tasks",
        failures as f64,
    );
    figures.one(
        "run_rate",
        "reached, until the last run had ended",
        "runs/s",
        outcome.runs.len() as f64 / seconds,
    );
    figures.one("task_rate", "  likewise", "tasks/s", tasks as f64 / seconds);
    let milliseconds = |of: fn(&super::driver::Ended) -> std::time::Duration| {
        let mut samples = Samples::default();
        outcome
            .runs
            .iter()
            .for_each(|run| samples.add(of(run).as_secs_f64() * 1e3));
        samples
    };
    figures.latency(
        "accepted",
        "due to accepted",
        &milliseconds(|run| run.accepted_after),
    );
    figures.latency("started", "due to first task's start", starts);
    figures.latency(
        "ended",
        "due to run's end known",
        &milliseconds(|run| run.ended_after),
    );
    let per_task = |count: f64| count / tasks as f64;
    let mut cpu = BTreeMap::new();
    if tasks > 0 && !cost.cpu.is_empty() {
        let per_1000 = per_task(cost.cpu_total()) * 1000.0;
        figures.one("cpu", "CPU, all processes", "s/1000 tasks", per_1000);
        let groups = cost
            .cpu
            .iter()
            .map(|(group, used)| ((*group).to_owned(), per_task(*used) * 1000.0));
        cpu.insert(args.scenario.name().to_owned(), groups.collect());
    }
    if tasks > 0 {
        let counted = [
            ("statements", "SQL statements", cost.statements),
            ("commits", "commits that write", cost.commits),
            ("messages", "messages published", messages),
        ];
        for (key, label, count) in counted {
            if let Some(count) = count {
                figures.counted(key, label, per_task(count));
            }
        }
    }
    Measured {
        deployment: deployment.kind,
        figures: figures.0,
        cpu_s_per_1000_tasks: cpu,
        servers_not_counted: deployment
            .processes
            .unseen
            .iter()
            .map(|&name| name.to_owned())
            .collect(),
        timeline: outcome.timeline,
    }
}

#[derive(Default)]
struct Figures(Vec<FigureValue>);

impl Figures {
    fn one(&mut self, key: &str, label: &str, unit: &str, value: f64) {
        if value.is_finite() {
            self.0.push(FigureValue::plain(key, label, unit, value));
        }
    }

    fn counted(&mut self, key: &str, label: &str, value: f64) {
        self.one(key, label, "per task", value);
        if let Some(figure) = self.0.last_mut() {
            figure.gate = true;
        }
    }

    /// Percentiles of latencies in milliseconds.
    fn latency(&mut self, key: &str, label: &str, samples: &Samples) {
        for percent in [50.0, 95.0, 99.0, 100.0] {
            let name = match percent {
                100.0 => "max".to_owned(),
                _ => format!("p{percent}"),
            };
            let Some(value) = samples.percentile(percent) else {
                return;
            };
            let label = match percent {
                50.0 => format!("{label}: {name}"),
                _ => format!("  {name}"),
            };
            self.0.push(FigureValue {
                samples: samples.values().len(),
                distribution: samples.distribution(),
                ..FigureValue::plain(&format!("{key}_{name}"), &label, "ms", value)
            });
        }
    }
}
