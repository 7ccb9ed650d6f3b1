//! The figures of a benchmark: names, units, aims, and what others take.

use super::document::{AimValue, Bound, FigureValue, Peer};
use crate::{
    deployment::Kind,
    measure::{Samples, percentile},
};
use std::collections::BTreeMap;

/// One figure. Reports list them in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    ChainWall,
    ChainInside,
    HopMedian,
    HopTail,
    ReportedHopMedian,
    ReportedHopTail,
    BareShell,
    TriggerAnswer,
    TriggerToStart,
    ShellRate,
    ShellCpu,
    ShellStatements,
    ShellCommits,
    ShellMessages,
    NoopRate,
    NoopCpu,
    NoopStatements,
    NoopCommits,
    NoopMessages,
    BurstWall,
    BurstTrigger,
    IdleCpu,
    IdleCpuAll,
    IdleStatements,
    IdlePss,
    TaskMemory,
    LostWorker,
    MappedSmallCpu,
    MappedLargeCpu,
    MappedRatio,
    MappedStatementsRatio,
    HistoryCpuRatio,
    HistoryTimeRatio,
    HistoryBlocksRatio,
    HistoryStatements,
}

/// What a figure should reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Aim {
    AtMost(f64),
    /// So many times what Celery with its defaults reaches: in the same run, else when it was measured for reference.
    TimesCelery(f64),
}

/// What there is to know about a figure.
#[derive(Debug)]
pub(super) struct Facts {
    /// Name in JSON.
    pub(super) key: &'static str,
    label: &'static str,
    unit: &'static str,
    /// Which percentile of all samples is reported.
    percent: f64,
    /// On real servers, and standalone.
    aims: [Option<Aim>; 2],
    /// Counted, not timed, and better when lower.
    gate: bool,
    /// Measured on a quiet machine of two processors: Airflow 3.3 with the Celery executor; Celery 5.7 alone, which keeps
    /// no durable state and knows no DAG, with its defaults / with late acknowledgement, confirms and a prefetch of 1.
    airflow: &'static str,
    celery: &'static str,
}

const fn facts(key: &'static str, label: &'static str, unit: &'static str) -> Facts {
    Facts {
        key,
        label,
        unit,
        percent: 50.0,
        aims: [None, None],
        gate: false,
        airflow: "",
        celery: "",
    }
}

impl Facts {
    const fn percentile(mut self, percent: f64) -> Self {
        self.percent = percent;
        self
    }

    /// Upper bounds on real servers and standalone.
    const fn at_most(mut self, real: f64, standalone: f64) -> Self {
        self.aims = [Some(Aim::AtMost(real)), Some(Aim::AtMost(standalone))];
        self
    }

    /// An upper bound on real servers only.
    const fn at_most_real(mut self, real: f64) -> Self {
        self.aims = [Some(Aim::AtMost(real)), None];
        self
    }

    const fn times_celery(mut self, real: f64, standalone: f64) -> Self {
        self.aims = [
            Some(Aim::TimesCelery(real)),
            Some(Aim::TimesCelery(standalone)),
        ];
        self
    }

    const fn gated(mut self) -> Self {
        self.gate = true;
        self
    }

    const fn peers(mut self, airflow: &'static str, celery: &'static str) -> Self {
        self.airflow = airflow;
        self.celery = celery;
        self
    }

    /// Celery's figure with its defaults: the first number of the reference.
    fn celery_default(&self) -> Option<f64> {
        let first = self.celery.split('/').next()?.trim();
        first.replace(' ', "").parse().ok()
    }
}

impl Figure {
    pub const ALL: [Self; 35] = [
        Self::ChainWall,
        Self::ChainInside,
        Self::HopMedian,
        Self::HopTail,
        Self::ReportedHopMedian,
        Self::ReportedHopTail,
        Self::BareShell,
        Self::TriggerAnswer,
        Self::TriggerToStart,
        Self::ShellRate,
        Self::ShellCpu,
        Self::ShellStatements,
        Self::ShellCommits,
        Self::ShellMessages,
        Self::NoopRate,
        Self::NoopCpu,
        Self::NoopStatements,
        Self::NoopCommits,
        Self::NoopMessages,
        Self::BurstWall,
        Self::BurstTrigger,
        Self::IdleCpu,
        Self::IdleCpuAll,
        Self::IdleStatements,
        Self::IdlePss,
        Self::TaskMemory,
        Self::LostWorker,
        Self::MappedSmallCpu,
        Self::MappedLargeCpu,
        Self::MappedRatio,
        Self::MappedStatementsRatio,
        Self::HistoryCpuRatio,
        Self::HistoryTimeRatio,
        Self::HistoryBlocksRatio,
        Self::HistoryStatements,
    ];

    pub(super) const fn facts(self) -> Facts {
        match self {
            Self::ChainWall => facts(
                "chain_wall",
                "chain of 10 shell tasks: request to end known",
                "ms",
            )
            .at_most(45.0, 25.0)
            .peers("11 700", "26 / 34"),
            Self::ChainInside => facts(
                "chain_inside",
                "  first task's start to last one's end",
                "ms",
            ),
            Self::HopMedian => facts("hop_p50", "hop, exit to next spawn: p50", "ms")
                .at_most(3.0, 0.8)
                .peers("794", "1.4 / 1.7"),
            Self::HopTail => facts("hop_p99", "hop, exit to next spawn: p99", "ms")
                .percentile(99.0)
                .at_most(12.0, 4.0)
                .peers("1015", ""),
            Self::ReportedHopMedian => facts(
                "hop_reported_p50",
                "  end_date to next start_date: p50",
                "ms",
            ),
            Self::ReportedHopTail => facts(
                "hop_reported_p99",
                "  end_date to next start_date: p99",
                "ms",
            )
            .percentile(99.0),
            Self::BareShell => facts("bare_shell", "  bare sh -c true, taken off each hop", "ms"),
            Self::TriggerAnswer => {
                facts("trigger_answer_p50", "trigger over REST: answer, p50", "ms")
            }
            Self::TriggerToStart => facts(
                "trigger_to_start_p50",
                "trigger over REST: first start, p50",
                "ms",
            )
            .at_most(6.0, 3.0)
            .peers("970", "1.7 / 2.3"),
            Self::ShellRate => facts("fanout_shell_rate", "fan-out of shell tasks", "tasks/s")
                .times_celery(1.4, 2.0)
                .peers("2.9", "695 / 551"),
            Self::ShellCpu => facts("fanout_shell_cpu", "  CPU, all processes", "s/1000 tasks")
                .at_most(1.9, 1.2)
                .peers("415 to 450", "2.9 / 3.4"),
            Self::ShellStatements => {
                facts("fanout_shell_statements", "  SQL statements", "per task")
                    .at_most(0.5, 0.5)
                    .gated()
                    .peers("91", "")
            }
            Self::ShellCommits => facts("fanout_shell_commits", "  commits that write", "per task")
                .at_most(0.05, 0.05)
                .gated()
                .peers("27", ""),
            Self::ShellMessages => {
                facts("fanout_shell_messages", "  messages published", "per task").gated()
            }
            Self::NoopRate => facts("fanout_noop_rate", "fan-out of noop tasks", "tasks/s")
                .times_celery(2.5, 6.0)
                .peers("", "1400 / 886"),
            Self::NoopCpu => facts("fanout_noop_cpu", "  CPU, all processes", "s/1000 tasks")
                .at_most(0.55, 0.2)
                .peers("400", "1.7 / 2.2"),
            Self::NoopStatements => facts("fanout_noop_statements", "  SQL statements", "per task")
                .at_most(0.5, 0.5)
                .gated(),
            Self::NoopCommits => facts("fanout_noop_commits", "  commits that write", "per task")
                .at_most(0.05, 0.05)
                .gated(),
            Self::NoopMessages => {
                facts("fanout_noop_messages", "  messages published", "per task").gated()
            }
            Self::BurstWall => facts(
                "burst_wall",
                "50 diamonds of 4 tasks triggered at once",
                "s",
            )
            .at_most(0.35, 0.25)
            .peers("70", "0.45 / 0.53"),
            Self::BurstTrigger => facts("burst_trigger_p95", "  answer to a trigger, p95", "ms")
                .percentile(95.0)
                .at_most(10.0, 8.0)
                .peers("154", "3.2 / 2.2"),
            Self::IdleCpu => facts("idle_cpu", "idle: CPU, our processes", "s/min")
                .at_most(0.2, 0.1)
                .peers("2.86", "0.04"),
            Self::IdleCpuAll => facts("idle_cpu_all", "  servers included", "s/min"),
            Self::IdleStatements => facts("idle_statements", "  SQL statements", "per s"),
            Self::IdlePss => facts("idle_pss", "  memory (PSS), our processes", "MiB")
                .at_most(60.0, 30.0)
                .peers("1400", "47 to 84"),
            Self::TaskMemory => facts(
                "task_memory",
                "memory of a running shell task (PSS, 200 asleep)",
                "kB",
            )
            .at_most_real(100.0)
            .peers("about 100 000", "one process"),
            Self::LostWorker => facts(
                "lost_worker",
                "lost worker: its task runs elsewhere after",
                "s",
            )
            .at_most_real(10.0)
            .peers("300", "1800 or never"),
            Self::MappedSmallCpu => facts(
                "mapped_small_cpu",
                "run of 1,000 mapped tasks: CPU",
                "s/1000 tasks",
            ),
            Self::MappedLargeCpu => facts(
                "mapped_large_cpu",
                "run of 100,000 mapped tasks: CPU",
                "s/1000 tasks",
            )
            .peers("freezes at 4000", ""),
            Self::MappedRatio => {
                facts("mapped_cpu_ratio", "  CPU per task, large to small", "×").at_most(1.2, 1.2)
            }
            Self::MappedStatementsRatio => facts(
                "mapped_statements_ratio",
                "  statements per task, large to small",
                "×",
            ),
            Self::HistoryCpuRatio => facts(
                "history_cpu_ratio",
                "long history: CPU per new task, to empty",
                "×",
            )
            .at_most_real(1.2)
            .peers("grows", ""),
            Self::HistoryTimeRatio => {
                facts("history_time_ratio", "  time in statements, to empty", "×").at_most_real(1.2)
            }
            Self::HistoryBlocksRatio => facts(
                "history_blocks_ratio",
                "  database blocks touched, to empty",
                "×",
            )
            .at_most_real(1.2),
            Self::HistoryStatements => {
                facts("history_statements_ratio", "  statements, to empty", "×")
            }
        }
    }

    /// The aim for this kind of deployment, beside what `peers` did in the same run.
    pub fn aim(self, kind: Kind, peers: &[Peer]) -> Option<AimValue> {
        let facts = self.facts();
        let [real, standalone] = facts.aims;
        let aim = match kind {
            Kind::RealServers => real?,
            Kind::Standalone => standalone?,
            Kind::Foreign => return None,
        };
        Some(match aim {
            Aim::AtMost(value) => AimValue {
                bound: Bound::AtMost,
                value,
                basis: None,
            },
            Aim::TimesCelery(factor) => {
                let now = peers
                    .iter()
                    .filter(|peer| peer.name == "celery")
                    .find_map(|peer| peer.figures.get(facts.key).copied());
                let (celery, when) = match now {
                    Some(rate) => (rate, "in this run"),
                    None => (facts.celery_default()?, "for reference"),
                };
                AimValue {
                    bound: Bound::AtLeast,
                    value: factor * celery,
                    basis: Some(format!("{factor} × Celery's {celery:.0} {when}")),
                }
            }
        })
    }

    /// The figure as it is reported: its median or percentile over all samples, with its aim. `None` without samples.
    pub fn reported(self, samples: &Samples, kind: Kind, peers: &[Peer]) -> Option<FigureValue> {
        let facts = self.facts();
        let values = samples.values();
        let value = percentile(values, facts.percent)?;
        let aim = self.aim(kind, peers);
        let mut reference = BTreeMap::new();
        for (name, figure) in [("airflow", facts.airflow), ("celery", facts.celery)] {
            if !figure.is_empty() {
                reference.insert(name.to_owned(), figure.to_owned());
            }
        }
        Some(FigureValue {
            key: facts.key.to_owned(),
            label: facts.label.to_owned(),
            unit: facts.unit.to_owned(),
            value,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            samples: values.len(),
            met: aim.as_ref().map(|aim| aim.met(value)),
            aim,
            gate: facts.gate,
            distribution: samples.distribution(),
            reference,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Peer};
    use crate::{deployment::Kind, measure::Samples};
    use std::collections::BTreeSet;

    #[test]
    fn every_figure_is_listed_once_under_its_own_key() {
        let keys: BTreeSet<_> = Figure::ALL
            .iter()
            .map(|figure| figure.facts().key)
            .collect();
        assert_eq!(keys.len(), Figure::ALL.len());
        assert!(Figure::ALL.is_sorted());
    }

    fn reported(
        figure: Figure,
        kind: Kind,
        values: impl Iterator<Item = f64>,
    ) -> (f64, Option<bool>) {
        let mut samples = Samples::default();
        values.for_each(|value| samples.add(value));
        let reported = figure.reported(&samples, kind, &[]).unwrap();
        (reported.value, reported.met)
    }

    #[test]
    fn tails_and_aims() {
        let hundred = || (1..=100).map(f64::from);
        let real = Kind::RealServers;
        assert_eq!(
            reported(Figure::HopMedian, real, hundred()),
            (50.0, Some(false))
        );
        assert_eq!(
            reported(Figure::HopTail, real, hundred()),
            (99.0, Some(false))
        );
        assert_eq!(
            reported(Figure::HopMedian, real, [3.0].into_iter()),
            (3.0, Some(true))
        );
        assert_eq!(
            reported(Figure::HopMedian, Kind::Standalone, [3.0].into_iter()),
            (3.0, Some(false))
        );
        assert_eq!(reported(Figure::BareShell, real, hundred()).1, None);
        assert_eq!(
            reported(Figure::HopMedian, Kind::Foreign, hundred()).1,
            None
        );
    }

    #[test]
    fn ratios_are_to_celery_in_the_same_run_if_it_ran() {
        let reference = Figure::ShellRate.aim(Kind::RealServers, &[]).unwrap();
        assert_eq!(reference.value, 1.4 * 695.0);
        assert_eq!(
            reference.basis.as_deref(),
            Some("1.4 × Celery's 695 for reference")
        );
        let reliable = Peer {
            name: "celery-reliable".into(),
            label: String::new(),
            figures: [("fanout_shell_rate".to_owned(), 50.0)].into(),
        };
        let celery = Peer {
            name: "celery".into(),
            figures: [("fanout_shell_rate".to_owned(), 100.0)].into(),
            ..reliable.clone()
        };
        let now = Figure::ShellRate
            .aim(Kind::Standalone, &[reliable, celery])
            .unwrap();
        assert_eq!(now.value, 200.0);
        assert_eq!(now.basis.as_deref(), Some("2 × Celery's 100 in this run"));
    }
}
