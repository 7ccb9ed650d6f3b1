//! The client: triggers runs while everything goes wrong, and keeps account of what was accepted.

use super::{stage::Stage, watch::Progress};
use crate::{
    check::AcceptedRun,
    client::Client,
    error::{LoadError, Result},
    workload::Workload,
};
use chrono::Utc;
use futures_util::{StreamExt, stream};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Requests under way at one time.
const AT_ONCE: usize = 8;
/// Runs that are open at one time, about: load enough, and the database's own bounds are not what is tested.
const OPEN_RUNS: i64 = 40;
/// How long one request may take before the client gives up on its answer.
const ANSWER: Duration = Duration::from_secs(4);
/// How long one run is asked for: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(300);

/// Triggers every run of the workload, as far as the faults have come. An answer that is lost is asked for again, at the
/// next API server, with the same idempotency key.
pub(crate) async fn send(
    stage: &Stage,
    workload: &Workload,
    progress: watch::Receiver<Progress>,
    faults: (usize, watch::Receiver<usize>),
) -> Result<Vec<AcceptedRun>> {
    let clients = stage.deployment.clients();
    let runs = workload.runs().len();
    let (all_faults, begun) = faults;
    let asked: Vec<_> = workload
        .runs()
        .enumerate()
        .map(|(number, dag)| (number, dag.dag_id().to_owned()))
        .collect();
    stream::iter(asked)
        .then(|(number, dag_id)| {
            let (mut begun, mut progress) = (begun.clone(), progress.clone());
            async move {
                // The last runs come with the last faults, not before them: neither waits for the other for long.
                let due = (number * all_faults / runs.max(1)).saturating_sub(1);
                // An ended channel has no news to wait for.
                let _ = begun.wait_for(|&begun| begun >= due).await;
                let _ = progress.wait_for(|now| now.open_runs < OPEN_RUNS).await;
                (number, dag_id)
            }
        })
        .map(|(number, dag_id)| {
            let clients = &clients;
            async move {
                let key = format!("chaos-{}-{number}", workload.seed());
                trigger(clients, number, &dag_id, &key).await
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<Result<AcceptedRun>>>()
        .await
        .into_iter()
        .collect()
}

/// Asks until there is an answer.
async fn trigger(clients: &[Client], first: usize, dag_id: &str, key: &str) -> Result<AcceptedRun> {
    let start = Instant::now();
    let mut last = None;
    for client in clients.iter().cycle().skip(first % clients.len().max(1)) {
        if start.elapsed() > PATIENCE {
            break;
        }
        match client.trigger_once(dag_id, key, ANSWER).await {
            Ok(run) => {
                return Ok(AcceptedRun {
                    dag_id: dag_id.to_owned(),
                    run_id: run.dag_run_id,
                    accepted_at: Utc::now(),
                });
            }
            Err(error @ LoadError::Http(_)) => last = Some(error),
            Err(error @ LoadError::Refused { status, .. }) if status >= 500 || status == 429 => {
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(last.unwrap_or(LoadError::EmptyLayout))
}
