//! What an interval of load cost, beyond what idling costs.

use super::statements::Counts;
use crate::deployment::Deployment;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// After a run has ended: what is still written and acknowledged belongs to its cost.
const SETTLE: Duration = Duration::from_secs(1);

/// A measurement that has begun.
#[derive(Debug)]
pub struct Meter<'a> {
    deployment: &'a Deployment,
    start: Instant,
    counts: Option<Counts>,
    cpu: BTreeMap<&'static str, f64>,
}

/// What was used, by all processes of a deployment.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// CPU seconds by group of processes.
    pub cpu: BTreeMap<&'static str, f64>,
    /// SQL statements and commits, where they are counted.
    pub statements: Option<f64>,
    pub commits: Option<f64>,
    /// Milliseconds within statements, and blocks of tables and indexes that they touched.
    pub statement_ms: Option<f64>,
    pub blocks: Option<f64>,
}

/// What a second without load costs.
pub type IdleRates = Cost;

impl<'a> Meter<'a> {
    pub async fn start(deployment: &'a Deployment) -> Self {
        // CPU time is read last here and first at the end, so that reading the statements is in no figure.
        let counts = deployment.statements.count().await;
        Self {
            deployment,
            counts,
            cpu: deployment.processes.cpu_seconds(),
            start: Instant::now(),
        }
    }

    /// What was used since the start, and how many seconds that took.
    pub async fn read(self) -> (Cost, f64) {
        let seconds = self.start.elapsed().as_secs_f64();
        let cpu = self.deployment.processes.cpu_seconds();
        let counts = self.deployment.statements.count().await;
        let since = |of: fn(&Counts) -> Option<f64>| {
            Some(of(counts.as_ref()?)? - of(self.counts.as_ref()?)?)
        };
        let cost = Cost {
            cpu: cpu
                .into_iter()
                .map(|(group, now)| (group, now - self.cpu.get(group).unwrap_or(&0.0)))
                .collect(),
            statements: since(|counts| Some(counts.statements)),
            commits: since(|counts| Some(counts.commits)),
            statement_ms: since(|counts| counts.statement_ms),
            blocks: since(|counts| counts.blocks),
        };
        (cost, seconds)
    }

    /// What the load used, after a moment for its trailing work, without what idling would have used meanwhile.
    pub async fn stop(self, idle: &IdleRates) -> Cost {
        tokio::time::sleep(SETTLE).await;
        let (cost, seconds) = self.read().await;
        cost.minus(idle, seconds)
    }
}

impl Cost {
    /// CPU seconds of all groups.
    pub fn cpu_total(&self) -> f64 {
        self.cpu.values().sum()
    }

    /// Each figure multiplied, for rates.
    pub fn times(self, factor: f64) -> Self {
        Self {
            cpu: self
                .cpu
                .into_iter()
                .map(|(group, used)| (group, used * factor))
                .collect(),
            statements: self.statements.map(|count| count * factor),
            commits: self.commits.map(|count| count * factor),
            statement_ms: self.statement_ms.map(|count| count * factor),
            blocks: self.blocks.map(|count| count * factor),
        }
    }

    fn minus(self, idle: &IdleRates, seconds: f64) -> Self {
        let less = |used: f64, rate: f64| (used - rate * seconds).max(0.0);
        let less_of = |used: Option<f64>, rate: Option<f64>| Some(less(used?, rate.unwrap_or(0.0)));
        Self {
            cpu: self
                .cpu
                .into_iter()
                .map(|(group, used)| (group, less(used, *idle.cpu.get(group).unwrap_or(&0.0))))
                .collect(),
            statements: less_of(self.statements, idle.statements),
            commits: less_of(self.commits, idle.commits),
            statement_ms: less_of(self.statement_ms, idle.statement_ms),
            blocks: less_of(self.blocks, idle.blocks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cost;

    fn cost(cpu: f64, statements: f64) -> Cost {
        Cost {
            cpu: [("api", cpu)].into(),
            statements: Some(statements),
            ..Cost::default()
        }
    }

    #[test]
    fn idling_is_taken_off_and_never_below_nothing() {
        let rates = cost(1.0, 40.0).times(0.1);
        let load = cost(3.0, 7.0).minus(&rates, 10.0);
        assert_eq!(load.cpu_total(), 2.0);
        assert_eq!(load.statements, Some(0.0));
        assert_eq!(load.commits, None);
    }
}
