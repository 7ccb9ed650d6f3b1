//! What running shell tasks add to their workers.

use super::{Bench, DEADLINE, dags};
use crate::{
    deployment::Duty,
    error::Result,
    measure::memory::own_pss,
    progress::step,
    report::{Figure, Results},
};
use gristmill_testkit::wait;

/// Tasks that sleep at one time.
pub(super) const ASLEEP: usize = 200;

impl Bench<'_> {
    /// Memory of workers and guardians with so many sleeping tasks, less what it was before them. The tasks' own
    /// processes are not in it.
    pub(super) async fn memory(&self, results: &mut Results) -> Result<()> {
        let client = &self.deployment.client;
        step(self.deployment.kind, "memory");
        client.add_pool(dags::POOL, dags::POOL_SLOTS).await?;
        let dag = dags::asleep(ASLEEP as u32);
        client.deploy(dag.id, dag.yaml).await?;
        // The first time fills caches and allocators; the second is what a task costs.
        for warm in [false, true] {
            let before = self.workers_pss();
            let triggered = client.trigger(dag.id, &()).await?;
            wait::until("all tasks to sleep", DEADLINE, async || {
                let run = client.run(dag.id, &triggered.run_id).await.ok()?;
                (run.task_states.get("running") == Some(&ASLEEP)).then_some(())
            })
            .await?;
            let with = self.workers_pss();
            client.cancel(dag.id, &triggered.run_id).await?;
            client.wait(dag.id, &triggered.run_id, DEADLINE).await?;
            if warm {
                let added = (with as f64 - before as f64).max(0.0);
                results.add(Figure::TaskMemory, added / 1e3 / ASLEEP as f64);
            }
        }
        Ok(())
    }

    fn workers_pss(&self) -> u64 {
        self.deployment
            .members_with(Duty::Worker)
            .filter_map(|worker| worker.role.pid())
            .map(own_pss)
            .sum()
    }
}
