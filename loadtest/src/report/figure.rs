//! The figures of a benchmark: names, units, aims, and what others take.

use crate::{
    deployment::Kind,
    measure::{Samples, percentile},
};
use serde::Serialize;

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
    NoopRate,
    NoopCpu,
    NoopStatements,
    NoopCommits,
    BurstWall,
    BurstTrigger,
    IdleCpu,
    IdleCpuAll,
    IdleStatements,
    IdlePss,
}

/// What a figure should reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    Below(f64),
    AtLeast(f64),
}

/// What there is to know about a figure.
#[derive(Debug)]
pub struct Facts {
    /// Name in JSON.
    pub key: &'static str,
    pub label: &'static str,
    pub unit: &'static str,
    /// Which percentile of all samples is reported.
    percent: f64,
    pub aim: Option<Aim>,
    /// Measured on a quiet machine of two processors: Airflow 3.3 with the Celery executor, and Celery 5.7 alone with its
    /// defaults, which keeps no durable state and knows no DAG.
    pub airflow: &'static str,
    pub celery: &'static str,
}

const fn facts(key: &'static str, label: &'static str, unit: &'static str) -> Facts {
    Facts {
        key,
        label,
        unit,
        percent: 50.0,
        aim: None,
        airflow: "",
        celery: "",
    }
}

impl Facts {
    const fn percentile(mut self, percent: f64) -> Self {
        self.percent = percent;
        self
    }

    const fn aim(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        self
    }

    const fn peers(mut self, airflow: &'static str, celery: &'static str) -> Self {
        self.airflow = airflow;
        self.celery = celery;
        self
    }
}

impl Figure {
    pub const ALL: [Self; 23] = [
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
        Self::NoopRate,
        Self::NoopCpu,
        Self::NoopStatements,
        Self::NoopCommits,
        Self::BurstWall,
        Self::BurstTrigger,
        Self::IdleCpu,
        Self::IdleCpuAll,
        Self::IdleStatements,
        Self::IdlePss,
    ];

    pub const fn facts(self) -> Facts {
        match self {
            Self::ChainWall => facts(
                "chain_wall",
                "chain of 10 shell tasks: request to end known",
                "ms",
            )
            .aim(Aim::Below(200.0))
            .peers("11700", "26"),
            Self::ChainInside => facts(
                "chain_inside",
                "  first task's start to last one's end",
                "ms",
            ),
            Self::HopMedian => facts("hop_p50", "hop, exit to next spawn: p50", "ms")
                .aim(Aim::Below(10.0))
                .peers("794", "1.4"),
            Self::HopTail => facts("hop_p99", "hop, exit to next spawn: p99", "ms")
                .percentile(99.0)
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
            .peers("970", "1.7"),
            Self::ShellRate => facts("fanout_shell_rate", "fan-out of shell tasks", "tasks/s")
                .aim(Aim::AtLeast(300.0))
                .peers("2.9", "695"),
            Self::ShellCpu => facts("fanout_shell_cpu", "  CPU, all processes", "s/1000 tasks")
                .peers("415 to 450", "2.9"),
            Self::ShellStatements => {
                facts("fanout_shell_statements", "  SQL statements", "per task")
                    .aim(Aim::Below(2.0))
                    .peers("91", "")
            }
            Self::ShellCommits => {
                facts("fanout_shell_commits", "  commits that write", "per task").peers("27", "")
            }
            Self::NoopRate => {
                facts("fanout_noop_rate", "fan-out of noop tasks", "tasks/s").peers("", "1400")
            }
            Self::NoopCpu => {
                facts("fanout_noop_cpu", "  CPU, all processes", "s/1000 tasks").peers("400", "1.7")
            }
            Self::NoopStatements => {
                facts("fanout_noop_statements", "  SQL statements", "per task").aim(Aim::Below(2.0))
            }
            Self::NoopCommits => facts("fanout_noop_commits", "  commits that write", "per task"),
            Self::BurstWall => facts(
                "burst_wall",
                "50 diamonds of 4 tasks triggered at once",
                "s",
            )
            .peers("70", "0.45"),
            Self::BurstTrigger => facts("burst_trigger_p95", "  answer to a trigger, p95", "ms")
                .percentile(95.0)
                .peers("154", "3.2"),
            Self::IdleCpu => {
                facts("idle_cpu", "idle: CPU, our processes", "s/min").peers("2.86", "0.04")
            }
            Self::IdleCpuAll => facts("idle_cpu_all", "  servers included", "s/min"),
            Self::IdleStatements => facts("idle_statements", "  SQL statements", "per s"),
            Self::IdlePss => {
                facts("idle_pss", "  memory (PSS), our processes", "MiB").peers("1400", "47 to 84")
            }
        }
    }

    /// The value that stands for all samples.
    pub fn reduce(self, samples: &Samples) -> Option<f64> {
        percentile(samples.values(), self.facts().percent)
    }

    /// The aim for this kind of deployment.
    pub fn aim(self, _kind: Kind) -> Option<Aim> {
        self.facts().aim
    }

    /// Whether the aim, if there is one, is met.
    pub fn met(self, kind: Kind, value: Option<f64>) -> Option<bool> {
        Some(match (self.aim(kind)?, value?) {
            (Aim::Below(aim), value) => value < aim,
            (Aim::AtLeast(aim), value) => value >= aim,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Figure;
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

    #[test]
    fn tails_and_aims() {
        let mut samples = Samples::default();
        (1..=100).for_each(|value| samples.add(f64::from(value)));
        assert_eq!(Figure::HopMedian.reduce(&samples), Some(50.0));
        assert_eq!(Figure::HopTail.reduce(&samples), Some(99.0));
        assert_eq!(
            Figure::HopMedian.met(Kind::RealServers, Some(9.9)),
            Some(true)
        );
        assert_eq!(
            Figure::ShellRate.met(Kind::Standalone, Some(299.0)),
            Some(false)
        );
        assert_eq!(Figure::HopTail.met(Kind::Standalone, Some(1.0)), None);
    }
}
