//! Work with known answers: random DAGs, the same for the same seed, whose tasks' outcomes are a pure function of seed,
//! task, map index and try, and whose shell tasks write down when they start and end.
//!
//! ```text
//! let workload = Workload::generate(&Options::new(7, 1_000, "/tmp/ledger".into()))?;
//! workload.prepare()?;                        // the ledger's folder and the step that tasks source
//! for pool in workload.pools() { … }          // POST /api/v2/pools
//! for dag in workload.dags() { … }            // deploy dag.file as dag.file_name()
//! for dag in workload.runs() { … }            // trigger, in this order, as fast as wanted
//! ```
//!
//! - [`behaviour`]: what a task does, computed alike in Rust and in the shell;
//! - [`ledger`]: the folder that tasks append to, and its step;
//! - `shapes`: chains, diamonds, fan-outs, mapped tasks, random layers.

pub mod behaviour;
mod error;
pub mod ledger;
mod random;
mod shapes;

pub use behaviour::{Behaviour, Outcome};
pub use error::WorkloadError;
pub use ledger::Ledger;

use gristmill_common::spec::DagSpec;
use random::Random;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// What a workload is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The same seed gives the same DAGs, outcomes and order of runs.
    pub seed: u64,
    /// Task instances of all runs together, at least; the last run goes beyond it.
    pub tasks: usize,
    /// Folder of the ledger, on a file system that the tasks' hosts share (one host: any folder).
    pub ledger: PathBuf,
    /// Percent of the tasks that are `shell`; the others are `noop`, and one in ten of those `empty`.
    pub shell_percent: u32,
    /// Percent of the shell tasks that sleep.
    pub sleep_percent: u32,
    /// The longest sleep.
    pub longest: Duration,
    /// Percent of the shell tasks that leave a daemon behind which ignores SIGTERM.
    pub daemon_percent: u32,
    /// A repeated attempt looks through the machine's processes for ones of earlier attempts: one in so many does, since it
    /// costs some milliseconds of CPU time; 1 is all.
    pub scan_one_in: u32,
    /// Wait before a retry.
    pub retry_delay: Duration,
}

impl Options {
    /// A mix of everything; more than half are processes.
    pub fn new(seed: u64, tasks: usize, ledger: PathBuf) -> Self {
        Self {
            seed,
            tasks,
            ledger,
            shell_percent: 60,
            sleep_percent: 25,
            longest: Duration::from_millis(60),
            daemon_percent: 2,
            scan_one_in: 1,
            retry_delay: Duration::from_millis(100),
        }
    }
}

/// A pool that the workload needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    pub slots: usize,
}

/// A DAG of the workload.
#[derive(Debug, Clone)]
pub struct Dag {
    pub spec: DagSpec,
    /// The DAG file: JSON, which is YAML too.
    pub file: String,
    /// Task instances of one run if every mapped task is expanded.
    pub instances: usize,
    /// Of its shell tasks, by task id. What is not in here succeeds.
    pub behaviours: BTreeMap<String, Behaviour>,
}

impl Dag {
    pub fn dag_id(&self) -> &str {
        &self.spec.dag_id
    }

    /// A name under which the file can be deployed.
    pub fn file_name(&self) -> String {
        format!("{}.yaml", self.spec.dag_id)
    }

    /// How an attempt ends that is not disturbed.
    pub fn outcome(&self, task_id: &str, map_index: i32, try_number: i32) -> Outcome {
        self.behaviours
            .get(task_id)
            .map_or(Outcome::Success, |behaviour| {
                behaviour.outcome(map_index, try_number)
            })
    }
}

/// DAGs, pools, and the order of runs.
#[derive(Debug, Clone)]
pub struct Workload {
    seed: u64,
    ledger: Ledger,
    pools: Vec<Pool>,
    dags: Vec<Dag>,
    /// Positions in `dags`.
    runs: Vec<usize>,
}

impl Workload {
    /// Makes the workload; nothing is written yet.
    pub fn generate(options: &Options) -> Result<Self, WorkloadError> {
        let mut random = Random::new(options.seed);
        let ledger = Ledger::at(options.ledger.clone());
        let pools = shapes::pools(&mut random);
        let dags = shapes::dags(options, &ledger, &pools, &mut random)?;
        let mut runs = Vec::new();
        let mut instances = 0;
        while instances < options.tasks {
            let dag = random.below(dags.len());
            instances += dags[dag].instances;
            runs.push(dag);
        }
        Ok(Self {
            seed: options.seed,
            ledger,
            pools,
            dags,
            runs,
        })
    }

    /// No DAGs: what was not generated is checked by what the database says of it.
    pub fn unknown(ledger: PathBuf) -> Self {
        Self {
            seed: 0,
            ledger: Ledger::at(ledger),
            pools: Vec::new(),
            dags: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// One DAG of a known file instead of random ones; its tasks behave as given.
    pub fn of_dag(
        ledger: PathBuf,
        pools: Vec<Pool>,
        file: &str,
        behaviours: BTreeMap<String, Behaviour>,
    ) -> Result<Self, WorkloadError> {
        let dag = shapes::parsed(file.to_owned(), behaviours)?;
        Ok(Self {
            seed: 0,
            ledger: Ledger::at(ledger),
            pools,
            dags: vec![dag],
            runs: vec![0],
        })
    }

    /// Several DAGs of known files. Which of them run, and how often, is the caller's.
    pub fn of_dags(
        ledger: PathBuf,
        pools: Vec<Pool>,
        files: Vec<(String, BTreeMap<String, Behaviour>)>,
    ) -> Result<Self, WorkloadError> {
        let parsed = |(file, behaviours)| shapes::parsed(file, behaviours);
        Ok(Self {
            seed: 0,
            ledger: Ledger::at(ledger),
            pools,
            dags: files.into_iter().map(parsed).collect::<Result<_, _>>()?,
            runs: Vec::new(),
        })
    }

    /// Makes the ledger's folder and writes the step that tasks source. An existing ledger is emptied.
    pub fn prepare(&self) -> Result<(), WorkloadError> {
        self.ledger.create()
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// To be made before the first run.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// To be deployed before the first run.
    pub fn dags(&self) -> &[Dag] {
        &self.dags
    }

    pub fn dag(&self, dag_id: &str) -> Option<&Dag> {
        self.dags.iter().find(|dag| dag.spec.dag_id == dag_id)
    }

    /// The DAG of each run, in the order in which they are to be triggered.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = &Dag> {
        self.runs.iter().map(|dag| &self.dags[*dag])
    }

    /// Task instances of all runs, if every mapped task is expanded.
    pub fn instances(&self) -> usize {
        self.runs().map(|dag| dag.instances).sum()
    }
}

#[cfg(test)]
mod tests;
