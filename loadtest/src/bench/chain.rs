//! Ten shell tasks, each waiting for the one before.
//!
//! A hop, from the exit of a task's process to the spawn of the next, cannot be seen over REST directly: `start_date` is
//! the worker's clock once the process has been spawned, `end_date` once its output is logged and its log stored. So a
//! hop is taken as one task's `start_date` to the next one's, less what a bare `sh -c true` takes from its spawn to its
//! exit on the same machine. It then holds everything between exit and spawn: reaping, the log, the events, the
//! database, the broker and the next task's preparation. `end_date` to `start_date` is reported beside.

use super::{Bench, DEADLINE, check, dags, trigger::milliseconds};
use crate::{
    error::{LoadError, Result},
    measure::{IdleRates, Meter, percentile},
    report::{Figure, Results},
};
use std::{process::Command, time::Instant};

/// Runs for one repetition of the fan-outs.
const RUNS: u32 = 6;
/// Bare processes whose median is taken off each hop.
const BARE: usize = 100;

impl Bench<'_> {
    pub(super) async fn chain(&self, idle: &IdleRates, results: &mut Results) -> Result<()> {
        let client = &self.deployment.client;
        let bare = bare_shell()?;
        results.add(Figure::BareShell, bare);
        let mut runs = Vec::new();
        let meter = Meter::start(self.deployment).await;
        for _ in 0..RUNS * self.args.repetitions {
            let clock = Instant::now();
            let run = client.run_to_end(dags::CHAIN, DEADLINE).await?;
            results.add(Figure::ChainWall, clock.elapsed().as_secs_f64() * 1e3);
            runs.push(run);
        }
        let cost = meter.stop(idle).await;
        results.add_cost("chain", &cost, runs.len() * dags::CHAIN_LENGTH);
        // Read afterwards, so that reading is in no figure.
        for run in runs {
            check(self.deployment, dags::CHAIN, &run, dags::CHAIN_LENGTH).await?;
            let mut tasks = client.task_instances(dags::CHAIN, &run.dag_run_id).await?;
            tasks.sort_by(|a, b| a.task_id.cmp(&b.task_id));
            for pair in tasks.windows(2) {
                let [task, next] = pair else { continue };
                let cycle = milliseconds(next.started()? - task.started()?);
                let reported = milliseconds(next.started()? - task.ended()?);
                for figure in [Figure::HopMedian, Figure::HopTail] {
                    results.add(figure, cycle - bare);
                }
                for figure in [Figure::ReportedHopMedian, Figure::ReportedHopTail] {
                    results.add(figure, reported);
                }
            }
            if let [first, .., last] = &tasks[..] {
                results.add(
                    Figure::ChainInside,
                    milliseconds(last.ended()? - first.started()?),
                );
            }
        }
        Ok(())
    }
}

/// Median milliseconds of `sh -c true` from before its spawn to after its exit.
fn bare_shell() -> Result<f64> {
    let mut times = Vec::with_capacity(BARE);
    for _ in 0..BARE {
        let clock = Instant::now();
        Command::new("/bin/sh")
            .args(["-c", "true"])
            .status()
            .map_err(LoadError::Shell)?;
        times.push(clock.elapsed().as_secs_f64() * 1e3);
    }
    Ok(percentile(&times, 50.0).unwrap_or(0.0))
}
