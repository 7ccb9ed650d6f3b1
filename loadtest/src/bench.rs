//! `bench`: what tasks cost in time, CPU and SQL, on real servers and standalone, driven over REST only.

mod chain;
mod dags;
mod diamonds;
mod fanout;
mod idle;
mod trigger;

use crate::{
    client::Run,
    deployment::{self, Deployment, Kind, Layout},
    error::{LoadError, Result},
    measure::IdleRates,
    report::{Format, Machine, Report, Results},
};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// How long any one run may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// Starts private deployments and measures them; prints the figures with the aims and the peers' beside
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Only PostgreSQL, RabbitMQ and Redis; those of `GRISTMILL_TEST_{DATABASE,AMQP,REDIS}_URL` if set, else private ones
    #[arg(long)]
    real: bool,
    /// Only `gristmill standalone`
    #[arg(long)]
    standalone: bool,
    /// What to measure; may be repeated. By default everything
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// How often each fan-out and burst is repeated; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// Task instances of a fan-out
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1000))]
    tasks: u32,
    /// Slots of the worker
    #[arg(long, default_value_t = 16)]
    concurrency: u32,
    /// Seconds of idling to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    idle: u64,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
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
}

impl Scenario {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// Measures, and prints the report to standard output; progress goes to standard error.
pub async fn run(args: BenchArgs) -> Result<()> {
    let machine = Machine::look();
    let both = args.real == args.standalone;
    let layout = Layout::small(args.concurrency);
    let mut results = Vec::new();
    if args.real || both {
        progress(Kind::RealServers, "starting");
        results.push(measure(&args, &deployment::start_distributed(&layout).await?).await?);
    }
    if args.standalone || both {
        progress(Kind::Standalone, "starting");
        results.push(measure(&args, &deployment::start_standalone(&layout).await?).await?);
    }
    Report::new(machine, args.concurrency, args.tasks, results).print(args.output)
}

async fn measure(args: &BenchArgs, deployment: &Deployment) -> Result<Results> {
    let bench = Bench { args, deployment };
    let mut results = Results::new(deployment);
    progress(deployment.kind, "warming up");
    bench.warm_up().await?;
    // Always: the other costs are reported beyond those of idling.
    progress(deployment.kind, "idle");
    let rates = bench.idle(&mut results, bench.wants(Scenario::Idle)).await;
    for scenario in Scenario::value_variants() {
        if bench.wants(*scenario) && *scenario != Scenario::Idle {
            progress(deployment.kind, &scenario.name());
            bench.scenario(*scenario, &rates, &mut results).await?;
        }
    }
    Ok(results)
}

fn progress(kind: Kind, what: &str) {
    eprintln!("{}: {what}", kind.name());
}

/// One deployment under measurement.
struct Bench<'a> {
    args: &'a BenchArgs,
    deployment: &'a Deployment,
}

impl Bench<'_> {
    fn wants(&self, scenario: Scenario) -> bool {
        self.args.scenario.is_empty() || self.args.scenario.contains(&scenario)
    }

    /// Deploys the DAGs and runs each, so that plans, pools and caches are as in a deployment that has worked for a while.
    async fn warm_up(&self) -> Result<()> {
        let client = &self.deployment.client;
        client.add_pool(dags::POOL, dags::POOL_SLOTS).await?;
        for (dag_id, yaml) in dags::all(self.args.tasks) {
            client.deploy(dag_id, yaml).await?;
            for _ in 0..3 {
                let run = client.run_to_end(dag_id, DEADLINE).await?;
                self.check(dag_id, &run, dags::size(dag_id, self.args.tasks))
                    .await?;
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
        match scenario {
            Scenario::Idle => Ok(()),
            Scenario::Trigger => self.trigger(results).await,
            Scenario::Chain => self.chain(idle, results).await,
            Scenario::FanoutShell => self.fanout(fanout::SHELL, idle, results).await,
            Scenario::FanoutNoop => self.fanout(fanout::NOOP, idle, results).await,
            Scenario::Diamonds => self.diamonds(results).await,
        }
    }

    /// A figure counts only if every task instance of its run succeeded.
    async fn check(&self, dag_id: &str, run: &Run, expected: usize) -> Result<()> {
        let counted;
        let run = if run.task_states.is_empty() {
            counted = self
                .deployment
                .client
                .wait(dag_id, &run.dag_run_id, DEADLINE)
                .await?;
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
}
