//! `bench`: what tasks cost in time, CPU and SQL, on real servers and standalone, driven over REST only.

mod args;
mod chain;
mod dags;
mod diamonds;
mod fanout;
mod history;
mod idle;
mod lost_worker;
mod mapped;
mod memory;
mod trigger;

pub use self::args::{BenchArgs, Scenario};
pub(crate) use self::{
    dags::{MAPPED_DAGS, POOL},
    history::measure as measure_history,
    mapped::measure as measure_mapped,
};

use crate::{
    client::Run,
    deployment::{self, Deployment, Kind, Layout},
    error::{LoadError, Result},
    measure::IdleRates,
    peers,
    progress::step,
    report::{self, Document, FORMAT, Machine, Peer, Results},
};
use clap::ValueEnum as _;
use serde_json::Value;
use std::time::Duration;

/// How long any one run may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// Measures, and prints the report to standard output; progress goes to standard error.
pub async fn run(args: BenchArgs) -> Result<()> {
    let document = measure(&args).await?;
    report::show(&document, args.output, args.save.as_ref())
}

/// The figures that `compare` judges, under the settings of `baseline`.
pub(crate) async fn counted(baseline: &Document) -> Result<Document> {
    measure(&BenchArgs::counted_like(baseline)).await
}

async fn measure(args: &BenchArgs) -> Result<Document> {
    let mut machine = Machine::look();
    let measured_at = machine.looked_at;
    let layout = Layout::small(args.concurrency);
    let mut results = Vec::new();
    let mut peers = Vec::new();
    for kind in args.kinds() {
        step(kind, "starting");
        let deployment = match kind {
            Kind::Standalone => deployment::start_standalone(&layout).await?,
            _ => deployment::start_distributed(&layout).await?,
        };
        let mut found = Results::new(&deployment);
        small(args, &deployment, &mut found).await?;
        if kind == Kind::RealServers {
            peers = beside(args, &deployment).await?;
        }
        drop(deployment);
        if kind == Kind::RealServers {
            large(args, &mut found).await?;
        }
        results.push(found);
    }
    machine.finish();
    Ok(Document {
        format: FORMAT,
        command: "bench".to_owned(),
        measured_at,
        took_s: (chrono::Utc::now() - measured_at).as_seconds_f64(),
        machine,
        settings: args.settings(),
        deployments: results
            .iter()
            .map(|results| results.measured(&peers))
            .collect(),
        peers,
    })
}

/// What one deployment with one worker shows.
async fn small(args: &BenchArgs, deployment: &Deployment, results: &mut Results) -> Result<()> {
    let bench = Bench { args, deployment };
    if !args.needs_small() {
        return Ok(());
    }
    step(deployment.kind, "warming up");
    bench.warm_up().await?;
    // Always: the other costs are reported beyond those of idling.
    step(deployment.kind, "idle");
    let rates = bench.idle(results, args.wants(Scenario::Idle)).await;
    for scenario in Scenario::value_variants() {
        if args.wants(*scenario) && *scenario != Scenario::Idle {
            bench.scenario(*scenario, &rates, results).await?;
        }
    }
    Ok(())
}

/// What needs other deployments on real servers: two workers with many slots, two databases.
async fn large(args: &BenchArgs, results: &mut Results) -> Result<()> {
    let (memory, lost) = (
        args.wants(Scenario::Memory),
        args.wants(Scenario::LostWorker),
    );
    if memory || lost {
        let layout = Layout {
            workers: 2,
            ..Layout::small(memory::ASLEEP as u32)
        };
        step(results.kind, "starting two workers with many slots");
        let deployment = deployment::start_distributed(&layout).await?;
        let bench = Bench {
            args,
            deployment: &deployment,
        };
        if memory {
            bench.memory(results).await?;
        }
        if lost {
            bench.lost_worker(results).await?;
        }
    }
    if args.wants(Scenario::History) {
        measure_history(args.history, args.repetitions, args.concurrency, results).await?;
    }
    Ok(())
}

/// Others on the same broker, while our own roles idle.
async fn beside(args: &BenchArgs, deployment: &Deployment) -> Result<Vec<Peer>> {
    let mut found = Vec::new();
    for peer in &args.peers {
        eprintln!("{}: measuring", peer.name());
        found.extend(peers::measure(*peer, args, deployment).await?);
    }
    Ok(found)
}

/// One deployment under measurement.
struct Bench<'a> {
    args: &'a BenchArgs,
    deployment: &'a Deployment,
}

impl Bench<'_> {
    /// Deploys the DAGs and runs each, so that plans, pools and caches are as in a deployment that has worked for a while.
    async fn warm_up(&self) -> Result<()> {
        let client = &self.deployment.client;
        client.add_pool(dags::POOL, dags::POOL_SLOTS).await?;
        for dag in dags::all(self.args.tasks, self.args.noop_tasks) {
            client.deploy(dag.id, dag.yaml).await?;
            for _ in 0..3 {
                let run = client.run_to_end(dag.id, DEADLINE).await?;
                check(self.deployment, dag.id, &run, dag.size).await?;
            }
        }
        Ok(())
    }

    async fn scenario(
        &self,
        scenario: Scenario,
        idle: &IdleRates,
        results: &mut Results,
    ) -> Result<()> {
        let announce = || step(self.deployment.kind, &scenario.name());
        match scenario {
            Scenario::Idle | Scenario::Memory | Scenario::LostWorker | Scenario::History => {}
            Scenario::Trigger => {
                announce();
                self.trigger(results).await?;
            }
            Scenario::Chain => {
                announce();
                self.chain(idle, results).await?;
            }
            Scenario::FanoutShell => {
                announce();
                self.fanout(fanout::SHELL, self.args.tasks, idle, results)
                    .await?;
            }
            Scenario::FanoutNoop => {
                announce();
                self.fanout(fanout::NOOP, self.args.noop_tasks, idle, results)
                    .await?;
            }
            Scenario::Diamonds => {
                announce();
                self.diamonds(results).await?;
            }
            Scenario::Mapped => {
                announce();
                measure_mapped(self.deployment, idle, results).await?;
            }
        }
        Ok(())
    }
}

/// A figure counts only if every task instance of its run succeeded.
pub(crate) async fn check(
    deployment: &Deployment,
    dag_id: &str,
    run: &Run,
    expected: usize,
) -> Result<()> {
    let counted;
    let run = if run.task_states.is_empty() {
        let client = &deployment.client;
        counted = client.wait(dag_id, &run.dag_run_id, DEADLINE).await?;
        &counted
    } else {
        run
    };
    let all: usize = run.task_states.values().sum();
    let succeeded = run.task_states.get("success").copied().unwrap_or(0);
    if run.state == "success" && succeeded == expected && all == expected {
        return Ok(());
    }
    Err(LoadError::WrongEnd {
        dag_id: dag_id.to_owned(),
        run_id: run.dag_run_id.clone(),
        state: run.state.clone(),
        counts: format!("{:?}", run.task_states),
        expected,
    })
}

/// A setting of a document as a number.
fn setting(document: &Document, name: &str) -> Option<u32> {
    let value: &Value = document.settings.get(name)?;
    value.as_u64().and_then(|value| u32::try_from(value).ok())
}
