//! The faults of a schedule, one after the other and over each other, while the client sends work.

use super::{
    fault::Fault,
    inject::{Hoard, inject},
    stage::Stage,
    watch::Progress,
};
use crate::error::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A fault waits for its share of the runs to have ended, so that it hits a deployment that works; but not for longer than
/// this, since the faults before it may be what holds them up.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Faults that are not mended yet.
const AT_ONCE: usize = 32;

/// Begins every fault in its turn, and returns when all are over. `tell` is called as each begins.
pub(crate) async fn rage(
    stage: &Arc<Stage>,
    faults: &[Fault],
    runs: usize,
    progress: watch::Receiver<Progress>,
    begun: &watch::Sender<usize>,
    tell: impl Fn(&Fault),
) -> Result<()> {
    let hoard = Arc::new(Hoard::default());
    let tell = &tell;
    // Runs for each fault; faults keep ahead of them, since some runs are always under way.
    let share = runs / faults.len().max(1) + 1;
    stream::iter(faults)
        .then(|fault| {
            let mut progress = progress.clone();
            async move {
                let start = Instant::now();
                let due = (fault.number * runs / faults.len()).saturating_sub(4 * share);
                let due = i64::try_from(due).unwrap_or(i64::MAX);
                let wait = progress.wait_for(|now| now.ended_runs >= due);
                // When it takes too long the fault comes all the same.
                let _ = tokio::time::timeout(LONGEST_WAIT, wait).await;
                tokio::time::sleep(fault.gap.saturating_sub(start.elapsed())).await;
                tell(fault);
                begun.send_replace(fault.number);
                fault
            }
        })
        .map(|fault| inject(Arc::clone(stage), Arc::clone(&hoard), *fault))
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |()| Ok(()))
        .await
}

/// `[ 123 s] fault 17/300: … | 1234 attempts and 56 runs ended, 40 runs open`
pub(crate) fn line(since: Instant, fault: &Fault, of: usize, now: Progress) -> String {
    format!(
        "[{:5.0} s] fault {}/{of}: {fault} | {} attempts and {} runs ended, {} open",
        since.elapsed().as_secs_f32(),
        fault.number,
        now.attempts,
        now.ended_runs,
        now.open_runs,
    )
}
