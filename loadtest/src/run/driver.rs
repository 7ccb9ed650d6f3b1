//! Asks for runs when they are due and sees how they end.

use super::plan::Plan;
use crate::{
    client::{Client, Run},
    error::{LoadError, Result},
    measure::Samples,
    progress::Progress,
    report::Second,
};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};

/// Runs whose first start is looked up afterwards, spread over all.
const LOOKED_UP: usize = 200;

/// What became of all runs.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) runs: Vec<Ended>,
    /// How many times each error was met.
    errors: BTreeMap<String, u64>,
    /// Runs that ended otherwise than they had to.
    pub(super) wrong: u64,
    /// Runs that were due and not asked for, because the load was interrupted.
    pub(super) dropped: u64,
    pub(super) timeline: Vec<Second>,
    /// From the first due time to the last end.
    pub(super) took: Duration,
}

/// A run that ended well.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) dag_id: String,
    pub(super) run_id: String,
    pub(super) tasks: usize,
    /// Of its tasks, those that had to fail once.
    pub(super) failures: u64,
    due: DateTime<Utc>,
    /// From the time at which it was due to the answer of the API.
    pub(super) accepted_after: Duration,
    /// From the time at which it was due to the answer that it had ended.
    pub(super) ended_after: Duration,
}

impl Outcome {
    /// Whether every run that was due was accepted and ended in success with every task instance counted.
    pub(super) fn all_well(&self) -> bool {
        self.errors.is_empty() && self.wrong == 0 && self.dropped == 0
    }

    /// How many requests failed, or runs did not end in time.
    pub(super) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// A line for each of the most frequent errors.
    pub(super) fn first_errors(&self) -> impl Iterator<Item = String> {
        let mut errors: Vec<_> = self.errors.iter().collect();
        errors.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        errors
            .into_iter()
            .take(5)
            .map(|(error, times)| format!("{times} times: {error}"))
    }
}

/// Shared by all that happens at one time.
#[derive(Debug, Default)]
struct Counters {
    intended: AtomicU64,
    accepted: AtomicU64,
    ended: AtomicU64,
}

/// Asks for every run of `plan` when it is due, in turn at each of `clients`, and waits for all of them. Ctrl-C ends the
/// asking; a second one the waiting.
pub(super) async fn drive(plan: &Plan, clients: Vec<Client>) -> Outcome {
    let counters = Arc::new(Counters::default());
    let permits = Arc::new(Semaphore::new(plan.in_flight));
    let start = Instant::now();
    let started_at = Utc::now();
    let (over, until_over) = oneshot::channel();
    let watcher = tokio::spawn(watch(counters.clone(), plan.runs, until_over));
    let mut flights = JoinSet::new();
    let mut outcome = Outcome::default();
    for number in 0..plan.runs {
        let due = plan.due(number);
        let Some(permit) = due_now(start + due, &permits).await else {
            outcome.dropped = plan.runs - number;
            break;
        };
        counters.intended.fetch_add(1, Relaxed);
        let dag = plan.dag(number);
        let flight = Flight {
            client: clients[number as usize % clients.len()].clone(),
            dag_id: dag.id.clone(),
            conf: plan.conf(dag, number),
            tasks: dag.size,
            failures: plan.failures(number),
            due: start + due,
            due_at: started_at + TimeDelta::from_std(due).unwrap_or_default(),
            drain: plan.drain,
            counters: counters.clone(),
        };
        flights.spawn(flight.go(permit));
        while let Some(ended) = flights.try_join_next() {
            outcome.add(ended.unwrap_or_else(|error| Err(LoadError::Task(error))));
        }
    }
    loop {
        tokio::select! {
            ended = flights.join_next() => match ended {
                Some(ended) => outcome.add(ended.unwrap_or_else(|error| Err(LoadError::Task(error)))),
                None => break,
            },
            _ = tokio::signal::ctrl_c() => {
                outcome.dropped += flights.len() as u64;
                break;
            }
        }
    }
    outcome.took = start.elapsed();
    drop(over);
    outcome.timeline = watcher.await.unwrap_or_default();
    outcome
}

/// Waits for the time, then for a place among those in flight; `None` after Ctrl-C.
async fn due_now(due: Instant, permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let place = async {
        sleep_until(due).await;
        permits.clone().acquire_owned().await.ok()
    };
    tokio::select! {
        place = place => place,
        _ = tokio::signal::ctrl_c() => None,
    }
}

/// Notes every second what has happened, and shows it, until told that it is over.
async fn watch(
    counters: Arc<Counters>,
    runs: u64,
    mut until_over: oneshot::Receiver<()>,
) -> Vec<Second> {
    let mut progress = Progress::new("runs ended", runs);
    let mut timeline = Vec::new();
    let mut before = Second::default();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        let over = tokio::select! {
            _ = &mut until_over => true,
            _ = ticks.tick() => false,
        };
        let all = Second {
            intended: counters.intended.load(Relaxed),
            accepted: counters.accepted.load(Relaxed),
            ended: counters.ended.load(Relaxed),
            in_flight: 0,
        };
        let in_flight = all.accepted.saturating_sub(all.ended);
        timeline.push(Second {
            intended: all.intended - before.intended,
            accepted: all.accepted - before.accepted,
            ended: all.ended - before.ended,
            in_flight,
        });
        before = all;
        progress.set(
            all.ended,
            &format!("{} due, {in_flight} in flight", all.intended),
        );
        if over {
            return timeline;
        }
    }
}

/// One run on its way.
struct Flight {
    client: Client,
    dag_id: String,
    conf: serde_json::Value,
    tasks: usize,
    failures: u64,
    due: Instant,
    due_at: DateTime<Utc>,
    drain: Duration,
    counters: Arc<Counters>,
}

impl Flight {
    /// Gives the run if it ended as it had to, `None` if it ended otherwise.
    async fn go(self, _place: OwnedSemaphorePermit) -> Result<Option<Ended>> {
        let triggered = self.client.trigger(&self.dag_id, &self.conf).await?;
        let accepted_after = self.due.elapsed();
        self.counters.accepted.fetch_add(1, Relaxed);
        let run = self
            .client
            .wait(&self.dag_id, &triggered.run_id, self.drain)
            .await;
        let ended_after = self.due.elapsed();
        self.counters.ended.fetch_add(1, Relaxed);
        Ok(ended_well(&run?, self.tasks).then_some(Ended {
            dag_id: self.dag_id,
            run_id: triggered.run_id,
            tasks: self.tasks,
            failures: self.failures,
            due: self.due_at,
            accepted_after,
            ended_after,
        }))
    }
}

impl Outcome {
    fn add(&mut self, ended: Result<Option<Ended>>) {
        match ended {
            Ok(Some(run)) => self.runs.push(run),
            Ok(None) => self.wrong += 1,
            Err(error) => *self.errors.entry(error.to_string()).or_default() += 1,
        }
    }
}

/// Whether a run is a success with so many successful task instances and no others.
pub(super) fn ended_well(run: &Run, tasks: usize) -> bool {
    let all: usize = run.task_states.values().sum();
    run.state == "success" && all == tasks && run.task_states.get("success") == Some(&tasks)
}

/// Milliseconds from the time at which a run was due to its first task's start, of a sample of the runs. The deployment's
/// clock must agree with ours; a run whose tasks cannot be read is left out.
pub(super) async fn first_starts(client: &Client, outcome: &Outcome) -> Samples {
    let mut samples = Samples::default();
    let every = outcome.runs.len().div_ceil(LOOKED_UP).max(1);
    for run in outcome.runs.iter().step_by(every) {
        let Ok(tasks) = client.task_instances(&run.dag_id, &run.run_id).await else {
            continue;
        };
        let first = tasks.iter().filter_map(|task| task.started().ok()).min();
        if let Some(first) = first {
            samples.add((first - run.due).as_seconds_f64() * 1e3);
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::{Outcome, ended_well};
    use crate::{client::Run, error::LoadError};
    use serde_json::json;

    fn run(state: &str, counts: serde_json::Value) -> Run {
        serde_json::from_value(json!({"dag_run_id": "r", "state": state, "task_states": counts}))
            .unwrap()
    }

    #[test]
    fn a_run_that_lost_or_doubled_a_task_is_wrong() {
        assert!(ended_well(&run("success", json!({"success": 4})), 4));
        assert!(!ended_well(&run("success", json!({"success": 3})), 4));
        assert!(!ended_well(&run("success", json!({"success": 5})), 4));
        assert!(!ended_well(
            &run("success", json!({"success": 4, "skipped": 1})),
            4
        ));
        assert!(!ended_well(&run("failed", json!({"success": 4})), 4));
        let mut outcome = Outcome::default();
        assert!(outcome.all_well());
        outcome.add(Ok(None));
        outcome.add(Err(LoadError::NoToken));
        assert!(!outcome.all_well());
        assert_eq!((outcome.wrong, outcome.error_count()), (1, 1));
    }
}
