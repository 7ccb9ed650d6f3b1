//! `gristmill-loadtest chaos`: a schedule of faults over a private deployment under load, and the judgement of what it left.
//!
//! - [`schedule`]: which faults come when, from the seed alone;
//! - [`storm`] and [`inject`]: making them happen, and mending them;
//! - [`traffic`]: the client that goes on triggering runs;
//! - [`stage`], [`disk`]: the deployment under fire;
//! - [`watch`]: how far the work has come, and whether it is stuck;
//! - [`outcome`]: the verdict, and how to replay.

mod disk;
mod fault;
mod inject;
mod outcome;
mod schedule;
mod stage;
mod storm;
mod traffic;
mod watch;

use crate::{
    check::{self, AcceptedRun, Evidence},
    deployment::{Layout, ServerChoice, start_distributed},
    error::Result,
    workload::{self, Workload},
};
use clap::{Args, ValueEnum};
use disk::Disk;
use fault::{Action, Fault, Kind};
use gristmill_testkit::DataDir;
use outcome::Outcome;
use schedule::{Shape, schedule};
use stage::Stage;
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch as channel;

/// Messages that were lost are sent out again after this; shorter than the product's own default, so that it happens.
const CLAIM_WINDOW: &str = "30s";
/// Work that has not moved for so long is stuck: longer than the claim window, a lost worker's judgement and all backoffs.
const STUCK_AFTER: Duration = Duration::from_secs(120);
/// How long the checker waits for what ends by itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// Breaks everything that can break, and checks that no promise was broken.
///
/// Starts PostgreSQL, RabbitMQ, Redis, schedulers, workers and API servers of its own, triggers runs over REST, and meanwhile
/// kills, stops, cuts off, slows down, fills up and confuses them, by a schedule that the seed gives. In the end everything
/// is mended, all runs have to end, and the invariants of the checker have to hold. Exits with 1 if one does not.
#[derive(Debug, Clone, Args)]
pub struct ChaosArgs {
    /// Gives schedule and workload; the same seed and options, the same faults in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults in all
    #[arg(long, default_value_t = 40)]
    faults: usize,
    /// Task instances in all, at least; more are planned, since what follows a failure is not expanded
    #[arg(long, default_value_t = 4_000)]
    tasks: usize,
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    schedulers: usize,
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    workers: usize,
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    apis: usize,
    /// Slots of each worker
    #[arg(long, default_value_t = 8)]
    concurrency: u32,
    /// Only these kinds of faults
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    only: Vec<Kind>,
    /// Length of workers' leases, in seconds
    #[arg(long, default_value_t = 6)]
    lease: u64,
    /// Shows the schedule and does nothing
    #[arg(long)]
    dry_run: bool,
    /// Folder for logs, ledger and database of a run that failed; by default a new one among the temporary files
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Format of the outcome
    #[arg(short, long, default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 on is needed".to_owned()),
        Ok(number) => Ok(number),
    }
}

impl ChaosArgs {
    fn shape(&self) -> Shape {
        Shape {
            seed: self.seed,
            faults: self.faults,
            schedulers: self.schedulers,
            workers: self.workers,
            apis: self.apis,
            lease: Duration::from_secs(self.lease),
            only: self.only.clone(),
        }
    }

    /// The command that does the same again.
    fn replay(&self) -> String {
        let Self {
            seed,
            faults,
            tasks,
            schedulers,
            workers,
            apis,
            concurrency,
            lease,
            ..
        } = self;
        let mut text = format!(
            "gristmill-loadtest chaos --seed {seed} --faults {faults} --tasks {tasks} --schedulers {schedulers} \
             --workers {workers} --apis {apis} --concurrency {concurrency} --lease {lease}"
        );
        let only: Vec<String> = self
            .only
            .iter()
            .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
            .collect();
        if !only.is_empty() {
            text += &format!(" --only {}", only.join(","));
        }
        text
    }
}

/// Runs it. The exit code tells whether everything holds.
pub async fn run(args: ChaosArgs) -> Result<ExitCode> {
    let faults = schedule(&args.shape());
    if args.dry_run {
        for fault in &faults {
            println!(
                "{:4} +{:.1} s  {fault}",
                fault.number,
                fault.gap.as_secs_f32()
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    disk::enter_own_mounts();
    let outcome = wreak(&args, faults)
        .await
        .inspect_err(|_| eprintln!("to replay: {}", args.replay()))?;
    match args.output {
        Output::Text => print!("{}", outcome.text(&args)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&outcome.json(&args))?),
    }
    Ok(match outcome.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

async fn wreak(args: &ChaosArgs, faults: Vec<Fault>) -> Result<Outcome> {
    let start = Instant::now();
    let folder = DataDir::new("chaos")?;
    let disk = Disk::new(folder.path().join("store"))?;
    let workload = Workload::generate(&workload_options(args, folder.path().join("ledger")))?;
    workload.prepare()?;
    let runs = workload.runs().len();
    eprintln!(
        "chaos: seed {}, {} faults, {} task instances planned in {runs} runs; {} schedulers, {} workers, {} API servers; a full disk is {}",
        args.seed,
        faults.len(),
        workload.instances(),
        args.schedulers,
        args.workers,
        args.apis,
        if disk.is_real() {
            "real"
        } else {
            "played (mounting is not allowed)"
        },
    );
    let deployment = start_distributed(&layout(args, &disk)).await?;
    for pool in workload.pools() {
        deployment.client.add_pool(&pool.name, pool.slots).await?;
    }
    for dag in workload.dags() {
        deployment
            .client
            .deploy(dag.dag_id(), dag.file.clone())
            .await?;
    }
    let stage = Arc::new(Stage::new(deployment, disk));
    let (progress, seen) = channel::channel(watch::Progress::default());
    let under_fire = under_fire(&stage, &workload, &faults, seen.clone(), start);
    let (accepted, stuck) = tokio::select! {
        result = under_fire => result?,
        // Neither returns without an error.
        result = stage.supervise() => return Err(result.err().unwrap_or(crate::error::LoadError::EmptyLayout)),
        result = watch::keep(&stage, progress) => return Err(result.err().unwrap_or(crate::error::LoadError::EmptyLayout)),
    };
    let servers = stage.servers()?;
    let evidence = Evidence {
        database_url: servers.database_url().to_owned(),
        amqp_url: servers.amqp_url().to_owned(),
        management_url: Some(servers.rabbitmq()?.admin_url()),
        redis_url: servers.redis_url().to_owned(),
        ledger: Some(workload.ledger().folder().to_owned()),
        accepted,
        patience: if stuck.is_some() {
            Duration::ZERO
        } else {
            PATIENCE
        },
        clocks_moved: faults
            .iter()
            .any(|fault| matches!(fault.action, Action::Clock(..))),
    };
    eprintln!("[{:5.0} s] checking", start.elapsed().as_secs_f32());
    let to = args.keep.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("chaos-{}-{}", args.seed, std::process::id()))
    });
    let verdict = match check::check(&evidence, &workload).await {
        Ok(verdict) => verdict,
        Err(error) => {
            outcome::keep(&stage, folder.path(), &to).await?;
            eprintln!("logs, ledger and database are in {}", to.display());
            return Err(error.into());
        }
    };
    let mut outcome = Outcome {
        faults,
        runs,
        took: start.elapsed(),
        exits: stage.exits(),
        stuck,
        verdict,
        kept: None,
    };
    if !outcome.is_good() {
        outcome::keep(&stage, folder.path(), &to).await?;
        outcome.kept = Some(to);
    }
    Ok(outcome)
}

/// Faults and traffic, then peace. Gives what was accepted, and what is stuck if something is.
async fn under_fire(
    stage: &Arc<Stage>,
    workload: &Workload,
    faults: &[Fault],
    seen: channel::Receiver<watch::Progress>,
    start: Instant,
) -> Result<(Vec<AcceptedRun>, Option<String>)> {
    let runs = workload.runs().len();
    let (begun, begun_seen) = channel::channel(0);
    let tell = |fault: &Fault| {
        eprintln!(
            "{}",
            storm::line(start, fault, faults.len(), *seen.borrow())
        );
    };
    let storm = async {
        storm::rage(stage, faults, runs, seen.clone(), &begun, tell).await?;
        stage.restore().await
    };
    let traffic = traffic::send(stage, workload, seen.clone(), (faults.len(), begun_seen));
    let ((), accepted) = tokio::try_join!(storm, traffic)?;
    eprintln!(
        "[{:5.0} s] all faults are mended and all runs accepted; waiting for {} runs to end",
        start.elapsed().as_secs_f32(),
        seen.borrow().open_runs
    );
    let ended = watch::all_ended(seen.clone(), runs, STUCK_AFTER).await;
    let stuck = match ended {
        true => None,
        false => Some(watch::leftovers(stage).await),
    };
    Ok((accepted, stuck))
}

/// Task instances that are planned for 100 that have to be: a mapped task after a failure stays one instance.
const PLANNED_PERCENT: usize = 130;

fn workload_options(args: &ChaosArgs, ledger: PathBuf) -> workload::Options {
    workload::Options {
        // A few sleep for longer than a lease: what is frozen or cut off then has something to lose.
        sleep_percent: 2,
        longest: Duration::from_millis(1_500 * args.lease),
        ..workload::Options::new(args.seed, args.tasks * PLANNED_PERCENT / 100, ledger)
    }
}

fn layout(args: &ChaosArgs, disk: &Disk) -> Layout {
    let store = format!("file://{}", disk.folder().display());
    Layout {
        schedulers: args.schedulers,
        workers: args.workers,
        apis: args.apis,
        concurrency: args.concurrency,
        servers: ServerChoice::Private,
        proxied: true,
        movable_clocks: true,
        environment: vec![
            ("GRISTMILL_STORE".to_owned(), store),
            ("GRISTMILL_LEASE".to_owned(), format!("{}s", args.lease)),
            ("GRISTMILL_CLAIM_WINDOW".to_owned(), CLAIM_WINDOW.to_owned()),
        ],
    }
}
