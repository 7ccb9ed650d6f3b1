//! A worker's machine dies: worker, guardian and task are gone at once, and nobody is told.

use super::{Bench, DEADLINE, dags, trigger::milliseconds};
use crate::{
    deployment::{Duty, Member},
    error::{LoadError, Result},
    measure::memory::runs,
    progress::step,
    report::{Figure, Results},
};
use chrono::Utc;
use gristmill_testkit::wait;

/// Workers that die, one after the other.
const DEATHS: usize = 3;

impl Bench<'_> {
    pub(super) async fn lost_worker(&self, results: &mut Results) -> Result<()> {
        let client = &self.deployment.client;
        step(self.deployment.kind, "lost-worker");
        let dag = dags::survivor();
        client.deploy(dag.id, dag.yaml).await?;
        for _ in 0..DEATHS {
            let triggered = client.trigger(dag.id, &()).await?;
            let victim = wait::until("the task to run", DEADLINE, async || self.holder()).await?;
            victim.role.kill_tree().await?;
            let died = Utc::now();
            let run = client.wait(dag.id, &triggered.run_id, DEADLINE).await?;
            super::check(self.deployment, dag.id, &run, dag.size).await?;
            let tasks = client.task_instances(dag.id, &triggered.run_id).await?;
            let task = tasks.first().ok_or_else(|| LoadError::NoDate {
                run_id: triggered.run_id.clone(),
                task_id: "only".to_owned(),
                date: "task instance",
            })?;
            results.add(
                Figure::LostWorker,
                milliseconds(task.started()? - died) / 1e3,
            );
            victim.role.restart().await?;
            wait::until("the worker to be back", DEADLINE, async || {
                client.workers().await.ok().filter(|&workers| workers >= 2)
            })
            .await?;
        }
        Ok(())
    }

    /// The worker whose process tree holds the task.
    fn holder(&self) -> Option<&Member> {
        self.deployment.members_with(Duty::Worker).find(|worker| {
            worker
                .role
                .pid()
                .is_some_and(|pid| runs(pid, dags::SURVIVOR_SLEEP))
        })
    }
}
