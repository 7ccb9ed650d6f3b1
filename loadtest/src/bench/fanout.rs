//! Many tasks side by side in one run.

use super::{Bench, DEADLINE, check, dags};
use crate::{
    error::Result,
    measure::{IdleRates, Meter},
    report::{Figure, Results},
};
use std::time::Instant;

/// A kind of task to fan out, and where its figures go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fanout {
    dag_id: &'static str,
    name: &'static str,
    rate: Figure,
    cpu: Figure,
    statements: Figure,
    commits: Figure,
    messages: Figure,
}

pub(super) const SHELL: Fanout = Fanout {
    dag_id: dags::FANOUT_SHELL,
    name: "fan-out shell",
    rate: Figure::ShellRate,
    cpu: Figure::ShellCpu,
    statements: Figure::ShellStatements,
    commits: Figure::ShellCommits,
    messages: Figure::ShellMessages,
};

pub(super) const NOOP: Fanout = Fanout {
    dag_id: dags::FANOUT_NOOP,
    name: "fan-out noop",
    rate: Figure::NoopRate,
    cpu: Figure::NoopCpu,
    statements: Figure::NoopStatements,
    commits: Figure::NoopCommits,
    messages: Figure::NoopMessages,
};

impl Bench<'_> {
    pub(super) async fn fanout(
        &self,
        kind: Fanout,
        tasks: u32,
        idle: &IdleRates,
        results: &mut Results,
    ) -> Result<()> {
        let tasks = tasks as usize;
        let published = self.deployment.messages.count().await;
        for _ in 0..self.args.repetitions {
            let meter = Meter::start(self.deployment).await;
            let clock = Instant::now();
            let run = self
                .deployment
                .client
                .run_to_end(kind.dag_id, DEADLINE)
                .await?;
            let wall = clock.elapsed().as_secs_f64();
            let cost = meter.stop(idle).await;
            check(self.deployment, kind.dag_id, &run, tasks).await?;
            results.add(kind.rate, tasks as f64 / wall);
            results.add(kind.cpu, cost.cpu_total() * 1000.0 / tasks as f64);
            if let (Some(statements), Some(commits)) = (cost.statements, cost.commits) {
                results.add(kind.statements, statements / tasks as f64);
                results.add(kind.commits, commits / tasks as f64);
            }
            results.add_cost(kind.name, &cost, tasks);
        }
        // Read after all repetitions: the broker's statistics are seconds late.
        if let (Some(before), Some(after)) = (published, self.deployment.messages.count().await) {
            let all = tasks as f64 * f64::from(self.args.repetitions);
            results.add(kind.messages, (after - before) / all);
        }
        Ok(())
    }
}
