//! `run`: a steady load of runs on a deployment, open loop: runs are due at fixed times, whatever became of the earlier
//! ones, and every latency counts from the time at which the run was due. A deployment that falls behind cannot hide it.

mod args;
mod driver;
mod figures;
mod plan;
mod shapes;

pub use self::args::{RunArgs, RunScenario};

use crate::{
    bench,
    client::Client,
    deployment::{self, Deployment, Kind},
    error::{LoadError, Result},
    measure::{IdleRates, Meter},
    progress::step,
    report::{self, Document, FORMAT, Machine, Measured, Results},
};
use plan::Plan;
use std::time::Duration;

/// How long idling is measured before the load; what it costs is taken off.
const IDLE: Duration = Duration::from_secs(5);

/// Runs the scenario and prints the report to standard output; gives whether every run ended in success.
pub async fn run(args: RunArgs) -> Result<bool> {
    let mut machine = Machine::look();
    let measured_at = machine.looked_at;
    args.check()?;
    let (measured, right) = match args.scenario {
        RunScenario::LongHistory => (long_history(&args).await?, true),
        _ => {
            let deployment = start(&args).await?;
            match args.scenario {
                RunScenario::Mapped100k => (mapped(&deployment).await?, true),
                _ => steady(&args, &deployment).await?,
            }
        }
    };
    machine.finish();
    let document = Document {
        format: FORMAT,
        command: "run".to_owned(),
        measured_at,
        took_s: (chrono::Utc::now() - measured_at).as_seconds_f64(),
        machine,
        settings: args.settings(),
        deployments: vec![measured],
        peers: Vec::new(),
    };
    report::show(&document, args.output, args.save.as_ref())?;
    Ok(right)
}

/// The deployment that was asked for: somebody else's, or a private one.
async fn start(args: &RunArgs) -> Result<Deployment> {
    if let Some(url) = &args.url {
        let token = args.token.as_deref().ok_or(LoadError::NoToken)?;
        return deployment::connect_foreign(url, token).await;
    }
    let layout = args.layout();
    if args.standalone {
        step(Kind::Standalone, "starting");
        return deployment::start_standalone(&layout).await;
    }
    step(Kind::RealServers, "starting");
    deployment::start_distributed(&layout).await
}

/// Runs at a rate for a while.
async fn steady(args: &RunArgs, deployment: &Deployment) -> Result<(Measured, bool)> {
    let plan = Plan::new(args);
    let clients = deployment.clients();
    let prepared = prepare(&deployment.client, &plan).await;
    let outcome = match prepared {
        Ok(()) => loaded(args, deployment, &plan, clients).await,
        Err(error) => Err(error),
    };
    // Whatever became of it: somebody else's deployment is left as it was found.
    if deployment.kind == Kind::Foreign {
        step(deployment.kind, "cleaning up");
        clean_up(&deployment.client, &plan.dag_ids(), &plan.pool).await;
    }
    outcome
}

async fn prepare(client: &Client, plan: &Plan) -> Result<()> {
    client.add_pool(&plan.pool, plan::POOL_SLOTS).await?;
    for dag in plan.dags() {
        client.deploy(&dag.id, dag.yaml.clone()).await?;
        // One run of each, so that plans and caches are as in a deployment that has worked for a while.
        let triggered = client.trigger(&dag.id, &plan.conf(dag, 0)).await?;
        let run = client.wait(&dag.id, &triggered.run_id, plan.drain).await?;
        if !driver::ended_well(&run, dag.size) {
            return Err(LoadError::WrongEnd {
                dag_id: dag.id.clone(),
                run_id: run.dag_run_id,
                state: run.state,
                counts: format!("{:?}", run.task_states),
                expected: dag.size,
            });
        }
    }
    Ok(())
}

async fn loaded(
    args: &RunArgs,
    deployment: &Deployment,
    plan: &Plan,
    clients: Vec<Client>,
) -> Result<(Measured, bool)> {
    let waits = deployment.kind != Kind::Foreign && !args.quick;
    let (idle, published) = match waits {
        true => tokio::join!(idle(deployment), deployment.messages.count()),
        false => (IdleRates::default(), None),
    };
    step(deployment.kind, args.scenario.name());
    let meter = Meter::start(deployment).await;
    let outcome = driver::drive(plan, clients).await;
    let cost = meter.stop(&idle).await;
    let messages = match published {
        Some(before) => deployment
            .messages
            .count()
            .await
            .map(|after| after - before),
        None => None,
    };
    for error in outcome.first_errors() {
        eprintln!("{}: {error}", deployment.kind.name());
    }
    let starts = driver::first_starts(&deployment.client, &outcome).await;
    let right = outcome.all_well();
    Ok((
        figures::measured(deployment, args, plan, outcome, &starts, &cost, messages),
        right,
    ))
}

async fn idle(deployment: &Deployment) -> IdleRates {
    step(deployment.kind, "idle");
    let meter = Meter::start(deployment).await;
    tokio::time::sleep(IDLE).await;
    let (cost, seconds) = meter.read().await;
    cost.times(1.0 / seconds)
}

async fn mapped(deployment: &Deployment) -> Result<Measured> {
    let mut results = Results::new(deployment);
    let idle = match deployment.kind {
        Kind::Foreign => IdleRates::default(),
        _ => idle(deployment).await,
    };
    let outcome = bench::measure_mapped(deployment, &idle, &mut results).await;
    if deployment.kind == Kind::Foreign {
        let dags = bench::MAPPED_DAGS.map(str::to_owned);
        clean_up(&deployment.client, &dags, bench::POOL).await;
    }
    outcome.map(|()| results.measured(&[]))
}

async fn long_history(args: &RunArgs) -> Result<Measured> {
    let mut results = Results::empty(Kind::RealServers);
    bench::measure_history(args.history, 1, args.concurrency, &mut results).await?;
    Ok(results.measured(&[]))
}

/// Best effort: what cannot be deleted is named.
async fn clean_up(client: &Client, dag_ids: &[String], pool: &str) {
    for dag_id in dag_ids {
        if let Err(error) = client.delete_dag(dag_id).await {
            eprintln!("DAG {dag_id} is left behind: {error}");
        }
    }
    if let Err(error) = client.delete_pool(pool).await {
        eprintln!("pool {pool} is left behind: {error}");
    }
}
