//! Options of `bench`.

use super::setting;
use crate::{
    deployment::Kind,
    peers::PeerName,
    report::{Document, Format},
};
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

/// Starts private deployments and measures them; prints the figures with the targets and the peers' beside
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Only PostgreSQL, RabbitMQ and Redis; those of `GRISTMILL_TEST_{DATABASE,AMQP,REDIS}_URL` if set, else private ones
    #[arg(long)]
    real: bool,
    /// Only `gristmill standalone`
    #[arg(long)]
    standalone: bool,
    /// What to measure; may be repeated. By default everything that takes less than a minute
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// Also what takes minutes: the run of 100,000 mapped tasks and the long history
    #[arg(long)]
    all: bool,
    /// How often each fan-out and burst is repeated; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repetitions: u32,
    /// Task instances of the fan-out of shell tasks
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) tasks: u32,
    /// Task instances of the fan-out of tasks that do nothing
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) noop_tasks: u32,
    /// Ended task instances of the long history
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1000..=1_000_000_000))]
    pub(super) history: u64,
    /// Slots of the worker
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) concurrency: u32,
    /// Seconds of idling to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) idle: u64,
    /// Others to measure in the same run, one after the other, on the same servers as ours; by hand, not in CI
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) peers: Vec<PeerName>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
    /// Also write the figures to this file, for `report` and `compare`
    #[arg(long)]
    pub(super) save: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// What a deployment without work uses
    Idle,
    /// Single shell tasks: from the request to the start of the process
    Trigger,
    /// Ten shell tasks one after the other
    Chain,
    /// Shell tasks side by side in one run
    FanoutShell,
    /// The same with tasks that do nothing
    FanoutNoop,
    /// 50 runs of a diamond of four shell tasks, triggered at once
    Diamonds,
    /// What 200 running shell tasks add to the memory of their workers (real servers)
    Memory,
    /// From the death of a worker's machine to the start of its task elsewhere (real servers)
    LostWorker,
    /// A run of 100,000 mapped tasks against one of 1,000 (minutes)
    Mapped,
    /// New tasks in a database full of ended ones, against an empty one (minutes; real servers)
    History,
}

impl Scenario {
    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    fn is_long(self) -> bool {
        matches!(self, Self::Mapped | Self::History)
    }

    /// Whether it needs a deployment of its own.
    fn is_large(self) -> bool {
        matches!(self, Self::Memory | Self::LostWorker | Self::History)
    }
}

impl BenchArgs {
    /// The counted figures only, measured as those of `baseline` were.
    pub(super) fn counted_like(baseline: &Document) -> Self {
        let measured = |kind| {
            baseline
                .deployments
                .iter()
                .any(|one| one.deployment == kind)
        };
        Self {
            real: measured(Kind::RealServers),
            standalone: measured(Kind::Standalone),
            scenario: vec![Scenario::FanoutShell, Scenario::FanoutNoop],
            all: false,
            repetitions: 3,
            tasks: setting(baseline, "tasks").unwrap_or(500),
            noop_tasks: setting(baseline, "noop-tasks").unwrap_or(10_000),
            history: 0,
            concurrency: setting(baseline, "concurrency").unwrap_or(16),
            idle: 5,
            peers: Vec::new(),
            output: Format::Table,
            save: None,
        }
    }

    pub(super) fn kinds(&self) -> Vec<Kind> {
        match (self.real, self.standalone) {
            (true, false) => vec![Kind::RealServers],
            (false, true) => vec![Kind::Standalone],
            _ => vec![Kind::RealServers, Kind::Standalone],
        }
    }

    pub(super) fn wants(&self, scenario: Scenario) -> bool {
        if self.scenario.is_empty() {
            return self.all || !scenario.is_long();
        }
        self.scenario.contains(&scenario) || (self.all && scenario.is_long())
    }

    /// Whether anything is measured of a deployment with one worker.
    pub(super) fn needs_small(&self) -> bool {
        Scenario::value_variants()
            .iter()
            .any(|scenario| self.wants(*scenario) && !scenario.is_large())
    }

    /// What a reader must know to repeat it.
    pub(super) fn settings(&self) -> BTreeMap<String, Value> {
        let mut settings: BTreeMap<String, Value> = [
            ("concurrency".to_owned(), self.concurrency.into()),
            ("repetitions".to_owned(), self.repetitions.into()),
            ("tasks".to_owned(), self.tasks.into()),
            ("noop-tasks".to_owned(), self.noop_tasks.into()),
        ]
        .into();
        if self.wants(Scenario::History) {
            settings.insert("history".to_owned(), self.history.into());
        }
        settings
    }
}
