//! New tasks in a database that is full of ended ones, against the same in an empty one. The two deployments stand side by
//! side and take turns, so that a busy machine slows both.

use super::{DEADLINE, check, dags};
use crate::{
    deployment::{Deployment, Layout, ServerChoice, start_distributed},
    error::{LoadError, Result},
    history,
    measure::{Cost, IdleRates, Meter, Samples},
    progress::step,
    report::{Figure, Results},
};
use std::time::Duration;

/// Turns, of which the medians are compared.
const TURNS: u32 = 5;
/// Shell tasks and noop tasks of one turn.
const NOOPS: u32 = 1000;
const CHAINS: usize = 5;
/// How long idling is measured.
const IDLE: Duration = Duration::from_secs(10);

/// One of the two.
struct Side {
    deployment: Deployment,
    idle: IdleRates,
    cpu: Samples,
    time: Samples,
    blocks: Samples,
    statements: Samples,
}

/// Ratios of what a turn costs with `ended` task instances in the database to what it costs without.
pub(crate) async fn measure(
    ended: u64,
    repetitions: u32,
    concurrency: u32,
    results: &mut Results,
) -> Result<()> {
    step(results.kind, "history: starting two deployments");
    let mut empty = Side::start(concurrency).await?;
    let mut full = Side::start(concurrency).await?;
    let servers = full.deployment.servers().ok_or(LoadError::EmptyLayout)?;
    history::fill(servers, dags::FANOUT_NOOP, ended).await?;
    for side in [&mut empty, &mut full] {
        side.turn().await?;
        side.rest().await;
    }
    step(results.kind, "history: new tasks, with and without");
    for _ in 0..TURNS.max(repetitions) {
        for side in [&mut empty, &mut full] {
            let cost = side.measured_turn().await?;
            side.add(&cost);
        }
    }
    let pairs = [
        (Figure::HistoryCpuRatio, &full.cpu, &empty.cpu),
        (Figure::HistoryTimeRatio, &full.time, &empty.time),
        (Figure::HistoryBlocksRatio, &full.blocks, &empty.blocks),
        (
            Figure::HistoryStatements,
            &full.statements,
            &empty.statements,
        ),
    ];
    for (figure, with, without) in pairs {
        if let (Some(with), Some(without)) = (with.median(), without.median())
            && without > 0.0
        {
            results.add(figure, with / without);
        }
    }
    Ok(())
}

impl Side {
    async fn start(concurrency: u32) -> Result<Self> {
        let layout = Layout {
            servers: ServerChoice::Private,
            ..Layout::small(concurrency)
        };
        let deployment = start_distributed(&layout).await?;
        let client = &deployment.client;
        client.add_pool(dags::POOL, dags::POOL_SLOTS).await?;
        for dag in dags::all(1, NOOPS) {
            client.deploy(dag.id, dag.yaml).await?;
        }
        Ok(Self {
            deployment,
            idle: IdleRates::default(),
            cpu: Samples::default(),
            time: Samples::default(),
            blocks: Samples::default(),
            statements: Samples::default(),
        })
    }

    /// Measures what idling costs, which is no cost of tasks.
    async fn rest(&mut self) {
        let meter = Meter::start(&self.deployment).await;
        tokio::time::sleep(IDLE).await;
        let (cost, seconds) = meter.read().await;
        self.idle = cost.times(1.0 / seconds);
    }

    async fn turn(&self) -> Result<()> {
        let client = &self.deployment.client;
        let run = client.run_to_end(dags::FANOUT_NOOP, DEADLINE).await?;
        check(&self.deployment, dags::FANOUT_NOOP, &run, NOOPS as usize).await?;
        for _ in 0..CHAINS {
            let run = client.run_to_end(dags::CHAIN, DEADLINE).await?;
            check(&self.deployment, dags::CHAIN, &run, dags::CHAIN_LENGTH).await?;
        }
        Ok(())
    }

    async fn measured_turn(&self) -> Result<Cost> {
        let meter = Meter::start(&self.deployment).await;
        self.turn().await?;
        Ok(meter.stop(&self.idle).await)
    }

    fn add(&mut self, cost: &Cost) {
        self.cpu.add(cost.cpu_total());
        let counted = [
            (&mut self.time, cost.statement_ms),
            (&mut self.blocks, cost.blocks),
            (&mut self.statements, cost.statements),
        ];
        for (samples, count) in counted {
            count.into_iter().for_each(|count| samples.add(count));
        }
    }
}
