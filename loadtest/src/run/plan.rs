//! Which run is due when, with which conf.

use super::{
    args::{RunArgs, RunScenario},
    shapes::{Dag, Shape, Tasks},
};
use serde_json::{Map, Value, json};
use std::time::Duration;
use uuid::Uuid;

/// Slots of the pool of all tasks: it never fills, so that only the workers' slots limit.
pub(super) const POOL_SLOTS: usize = 1_000_000;
/// Diamonds that are due at one time.
const BURST: u64 = 50;
/// Bytes of a conf's payload at most; the API takes no more than 32 KiB of conf.
const MAX_CONF_PAYLOAD: u64 = 24 * 1024;

/// Everything that one call of `run` will ask for.
#[derive(Debug)]
pub(super) struct Plan {
    /// A pool of our own, and the beginning of our DAGs' names: a foreign deployment may have others.
    pub(super) pool: String,
    dags: Vec<Dag>,
    rate: f64,
    burst: u64,
    /// How many runs are due in all.
    pub(super) runs: u64,
    pub(super) in_flight: usize,
    pub(super) drain: Duration,
    payload: String,
    failure_rate: f64,
    seed: u64,
}

impl Plan {
    pub(super) fn new(args: &RunArgs) -> Self {
        let name = format!("load_{:.8}", Uuid::new_v4().simple());
        let tasks = Tasks {
            work: args.work,
            width: args.width,
            payload: args.payload_size,
            failing: args.failure_rate > 0.0,
        };
        let shapes: &[Shape] = match args.scenario {
            RunScenario::Chain => &[Shape::Chain],
            RunScenario::Fanout => &[Shape::Fanout],
            RunScenario::DiamondBurst => &[Shape::Diamond],
            _ => &[Shape::Single, Shape::Chain, Shape::Diamond, Shape::Fanout],
        };
        let payload = args.payload_size.min(MAX_CONF_PAYLOAD) as usize;
        Self {
            dags: shapes
                .iter()
                .map(|shape| shape.dag(&name, &name, tasks))
                .collect(),
            pool: name,
            rate: args.rate,
            burst: match args.scenario {
                RunScenario::DiamondBurst => BURST,
                _ => 1,
            },
            runs: (args.rate * args.duration.as_secs_f64()).ceil().max(1.0) as u64,
            in_flight: args.in_flight as usize,
            drain: args.drain,
            payload: "x".repeat(payload),
            failure_rate: args.failure_rate,
            seed: args.seed,
        }
    }

    pub(super) fn dags(&self) -> &[Dag] {
        &self.dags
    }

    pub(super) fn dag_ids(&self) -> Vec<String> {
        self.dags.iter().map(|dag| dag.id.clone()).collect()
    }

    /// The DAG of run `number`: all in turn.
    pub(super) fn dag(&self, number: u64) -> &Dag {
        &self.dags[number as usize % self.dags.len()]
    }

    /// When run `number` is due, from the start on.
    pub(super) fn due(&self, number: u64) -> Duration {
        let first_of_burst = number / self.burst * self.burst;
        Duration::from_secs_f64(first_of_burst as f64 / self.rate)
    }

    /// Its conf: the payload, and which of its tasks fail at their first attempt ("1") and which do not ("0").
    pub(super) fn conf(&self, dag: &Dag, number: u64) -> Value {
        let mut conf = Map::new();
        if !self.payload.is_empty() {
            conf.insert("payload".to_owned(), self.payload.as_str().into());
        }
        if self.failure_rate > 0.0 {
            let fails = |task: u64| match self.fails(number, task) {
                true => "1",
                false => "0",
            };
            let tasks: Map<String, Value> = dag
                .tasks
                .iter()
                .zip(0..)
                .map(|(id, task)| (id.clone(), fails(task).into()))
                .collect();
            conf.insert("fails".to_owned(), tasks.into());
            if dag.mapped > 0 {
                let first = dag.tasks.len() as u64;
                let mapped: Vec<&str> = (0..u64::from(dag.mapped))
                    .map(|task| fails(first + task))
                    .collect();
                conf.insert("mapped".to_owned(), json!(mapped));
            }
        }
        conf.into()
    }

    /// Task instances of run `number` that fail once.
    pub(super) fn failures(&self, number: u64) -> u64 {
        let size = self.dag(number).size as u64;
        (0..size).filter(|&task| self.fails(number, task)).count() as u64
    }

    fn fails(&self, run: u64, task: u64) -> bool {
        // 53 random bits are the digits of a number from 0 to 1.
        let bits = mix(mix(self.seed.wrapping_add(run)).wrapping_add(task)) >> 11;
        (bits as f64) < self.failure_rate * (1u64 << 53) as f64
    }
}

/// `SplitMix64`: the same number for the same input, on every machine.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::Plan;
    use crate::run::args::RunArgs;
    use clap::Parser;
    use std::time::Duration;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }

    fn plan(line: &str) -> Plan {
        let words = std::iter::once("run").chain(line.split_whitespace());
        Plan::new(&Line::try_parse_from(words).unwrap().args)
    }

    #[test]
    fn runs_are_due_at_fixed_times_and_bursts_at_once() {
        let steady = plan("--scenario chain --rate 4 --duration 10s");
        assert_eq!(steady.runs, 40);
        assert_eq!(steady.due(6), Duration::from_millis(1500));
        let bursts = plan("--scenario diamond-burst --rate 100 --duration 2s");
        assert_eq!(bursts.due(49), Duration::ZERO);
        assert_eq!(bursts.due(50), Duration::from_millis(500));
        let mixed = plan("--scenario mixed");
        assert_ne!(mixed.dag(0).id, mixed.dag(1).id);
        assert_eq!(mixed.dag(0).id, mixed.dag(4).id);
    }

    #[test]
    fn the_asked_share_of_tasks_fails_and_the_conf_names_them() {
        let plan = plan("--scenario fanout --width 50 --failure-rate 0.2 --duration 200s --rate 1");
        let all: u64 = (0..plan.runs).map(|run| plan.failures(run)).sum();
        assert!((1800..2200).contains(&all), "{all} of 10000");
        let conf = plan.conf(plan.dag(7), 7);
        let named = conf["mapped"].as_array().unwrap();
        let failing = named.iter().filter(|fails| *fails == "1").count() as u64;
        assert_eq!(failing, plan.failures(7));
        assert_eq!(named.len(), 50);
    }
}
