//! A burst of small runs.

use super::{Bench, DEADLINE, check, dags};
use crate::{
    error::Result,
    report::{Figure, Results},
};
use futures_util::future::try_join_all;
use std::time::Instant;

impl Bench<'_> {
    pub(super) async fn diamonds(&self, results: &mut Results) -> Result<()> {
        let client = &self.deployment.client;
        for _ in 0..self.args.repetitions {
            let clock = Instant::now();
            let runs = try_join_all((0..dags::BURST).map(|_| async {
                let triggered = client.trigger(dags::DIAMOND, &()).await?;
                let run = client
                    .wait(dags::DIAMOND, &triggered.run_id, DEADLINE)
                    .await?;
                Ok::<_, crate::error::LoadError>((triggered, run))
            }))
            .await?;
            results.add(Figure::BurstWall, clock.elapsed().as_secs_f64());
            for (triggered, run) in runs {
                results.add(
                    Figure::BurstTrigger,
                    triggered.answered_in.as_secs_f64() * 1e3,
                );
                check(self.deployment, dags::DIAMOND, &run, dags::DIAMOND_SIZE).await?;
            }
        }
        Ok(())
    }
}
