//! One very wide run against narrow ones: a task must not cost more because it has many siblings.

use super::{check, dags};
use crate::{
    deployment::Deployment,
    error::Result,
    measure::{Cost, IdleRates, Meter, Samples},
    progress::Progress,
    report::{Figure, Results},
};
use std::time::Duration;

/// How long the wide run may take.
const DEADLINE: Duration = Duration::from_secs(1800);
/// Narrow runs, for their median.
const NARROW_RUNS: u32 = 5;

/// CPU time and statements per task of a run of 100,000 mapped tasks, and how they compare with a run of 1,000.
pub(crate) async fn measure(
    deployment: &Deployment,
    idle: &IdleRates,
    results: &mut Results,
) -> Result<()> {
    let client = &deployment.client;
    client.add_pool(dags::POOL, dags::POOL_SLOTS).await?;
    let narrow = dags::mapped(dags::MAPPED_SMALL, 10, 100);
    let wide = dags::mapped(dags::MAPPED_LARGE, 1000, 100);
    let mut small = Costs::default();
    let mut large = Costs::default();
    client.deploy(narrow.id, narrow.yaml.clone()).await?;
    client.deploy(wide.id, wide.yaml.clone()).await?;
    // The first one warms up.
    run(deployment, idle, &narrow).await?;
    for _ in 0..NARROW_RUNS {
        small.add(&run(deployment, idle, &narrow).await?, narrow.size);
    }
    let cost = run(deployment, idle, &wide).await?;
    large.add(&cost, wide.size);
    results.add_cost("100,000 mapped", &cost, wide.size);
    let figures = [
        (Figure::MappedSmallCpu, small.cpu.median()),
        (Figure::MappedLargeCpu, large.cpu.median()),
        (Figure::MappedRatio, ratio(&large.cpu, &small.cpu)),
        (
            Figure::MappedStatementsRatio,
            ratio(&large.statements, &small.statements),
        ),
    ];
    for (figure, value) in figures {
        value
            .into_iter()
            .for_each(|value| results.add(figure, value));
    }
    Ok(())
}

/// Per 1000 tasks.
#[derive(Default)]
struct Costs {
    cpu: Samples,
    statements: Samples,
}

impl Costs {
    fn add(&mut self, cost: &Cost, tasks: usize) {
        let per_1000 = 1000.0 / tasks as f64;
        if !cost.cpu.is_empty() {
            self.cpu.add(cost.cpu_total() * per_1000);
        }
        let statements = cost.statements.map(|count| count * per_1000);
        statements
            .into_iter()
            .for_each(|count| self.statements.add(count));
    }
}

async fn run(deployment: &Deployment, idle: &IdleRates, dag: &dags::Dag) -> Result<Cost> {
    let meter = Meter::start(deployment).await;
    let triggered = deployment.client.trigger(dag.id, &()).await?;
    let mut progress = Progress::new(&format!("{} tasks", dag.size), dag.size as u64);
    let run = deployment
        .client
        .watch(dag.id, &triggered.run_id, DEADLINE, |run| {
            let done = run.task_states.get("success").copied().unwrap_or(0);
            progress.set(done as u64, "");
        })
        .await?;
    drop(progress);
    let cost = meter.stop(idle).await;
    check(deployment, dag.id, &run, dag.size).await?;
    Ok(cost)
}

fn ratio(large: &Samples, small: &Samples) -> Option<f64> {
    let small = small.median().filter(|&small| small > 0.0)?;
    Some(large.median()? / small)
}
