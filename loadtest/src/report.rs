//! Figures and how they are shown.

mod figure;
mod machine;
mod table;

pub use figure::Figure;
pub use machine::Machine;

use crate::{
    deployment::{Deployment, Kind},
    error::Result,
    measure::{Cost, Samples},
};
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

/// CPU seconds per 1000 tasks, by scenario and group of processes.
type CpuByGroup = BTreeMap<&'static str, BTreeMap<&'static str, Samples>>;

/// What was measured of one deployment.
#[derive(Debug)]
pub struct Results {
    kind: Kind,
    figures: BTreeMap<Figure, Samples>,
    cpu: CpuByGroup,
    /// Servers whose CPU time is in no figure.
    unseen: Vec<&'static str>,
}

impl Results {
    pub fn new(deployment: &Deployment) -> Self {
        Self {
            kind: deployment.kind,
            figures: BTreeMap::new(),
            cpu: BTreeMap::new(),
            unseen: deployment.processes.unseen.clone(),
        }
    }

    /// Adds a sample, in the unit of its figure.
    pub fn add(&mut self, figure: Figure, value: f64) {
        self.figures.entry(figure).or_default().add(value);
    }

    /// Adds the CPU time of one repetition of `scenario`, which ran so many tasks.
    pub fn add_cost(&mut self, scenario: &'static str, cost: &Cost, tasks: usize) {
        let groups = self.cpu.entry(scenario).or_default();
        for (group, seconds) in &cost.cpu {
            groups
                .entry(group)
                .or_default()
                .add(seconds * 1000.0 / tasks as f64);
        }
    }

    /// The figure as it is reported: its median or percentile over all samples.
    fn value(&self, figure: Figure) -> Option<f64> {
        figure.reduce(self.figures.get(&figure)?)
    }

    fn json(&self) -> Value {
        let figures: BTreeMap<&str, Value> = self
            .figures
            .iter()
            .map(|(figure, samples)| {
                let values = samples.values();
                let summary = json!({
                    "value": figure.reduce(samples),
                    "unit": figure.facts().unit,
                    "min": values.iter().copied().reduce(f64::min),
                    "max": values.iter().copied().reduce(f64::max),
                    "samples": values.len(),
                    "aim": figure.aim(self.kind),
                    "met": figure.met(self.kind, figure.reduce(samples)),
                });
                (figure.facts().key, summary)
            })
            .collect();
        let cpu: BTreeMap<&str, BTreeMap<&str, Option<f64>>> = self
            .cpu
            .iter()
            .map(|(scenario, groups)| {
                (
                    *scenario,
                    groups
                        .iter()
                        .map(|(group, s)| (*group, s.median()))
                        .collect(),
                )
            })
            .collect();
        json!({
            "deployment": self.kind,
            "figures": figures,
            "cpu_s_per_1000_tasks": cpu,
            "servers_not_counted": self.unseen,
        })
    }
}

/// Everything that one call of the benchmark found.
#[derive(Debug, Serialize)]
pub struct Report {
    measured_at: DateTime<Utc>,
    took: Duration,
    machine: Machine,
    /// Load average of one minute at the end.
    load_after: f64,
    concurrency: u32,
    fanout_tasks: u32,
    #[serde(skip)]
    results: Vec<Results>,
}

impl Report {
    pub fn new(
        machine: Machine,
        concurrency: u32,
        fanout_tasks: u32,
        results: Vec<Results>,
    ) -> Self {
        Self {
            measured_at: machine.looked_at,
            took: (Utc::now() - machine.looked_at)
                .to_std()
                .unwrap_or_default(),
            load_after: machine::load_average(),
            machine,
            concurrency,
            fanout_tasks,
            results,
        }
    }

    pub fn print(&self, format: Format) -> Result<()> {
        match format {
            Format::Json => println!("{}", serde_json::to_string_pretty(&self.json()?)?),
            Format::Table => table::print(self),
        }
        Ok(())
    }

    fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        json["took"] = self.took.as_secs_f64().into();
        json["deployments"] = self.results.iter().map(Results::json).collect();
        Ok(json)
    }
}
