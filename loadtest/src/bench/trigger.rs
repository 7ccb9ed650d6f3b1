//! Single shell tasks, one run after the other.

use super::{Bench, DEADLINE, check, dags};
use crate::{
    error::Result,
    report::{Figure, Results},
};
use chrono::TimeDelta;

/// Runs for one repetition of the fan-outs.
const RUNS: u32 = 8;

impl Bench<'_> {
    pub(super) async fn trigger(&self, results: &mut Results) -> Result<()> {
        let client = &self.deployment.client;
        for _ in 0..RUNS * self.args.repetitions {
            let triggered = client.trigger(dags::SINGLE, &()).await?;
            let run = client
                .wait(dags::SINGLE, &triggered.run_id, DEADLINE)
                .await?;
            check(self.deployment, dags::SINGLE, &run, 1).await?;
            results.add(
                Figure::TriggerAnswer,
                triggered.answered_in.as_secs_f64() * 1e3,
            );
            for task in client
                .task_instances(dags::SINGLE, &triggered.run_id)
                .await?
            {
                results.add(
                    Figure::TriggerToStart,
                    milliseconds(task.started()? - triggered.sent_at),
                );
            }
        }
        Ok(())
    }
}

pub(super) fn milliseconds(span: TimeDelta) -> f64 {
    span.num_nanoseconds()
        .map_or(f64::NAN, |nanoseconds| nanoseconds as f64 / 1e6)
}
