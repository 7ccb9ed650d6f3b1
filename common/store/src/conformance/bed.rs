//! What the tests are made of: a store with DAGs, runs and task instances in it.

use crate::{Backend, DagRow, NewDagVersion, NewRun, NewTi, TiWrite, Tx, VersionRow};
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{
    ids::{Fence, RunPk, TiPk, UNMAPPED},
    row::{RunRow, RunType, TiRow},
    spec::{DEFAULT_POOL, DEFAULT_QUEUE, DagSpec},
    state::{RunState, TaskState},
    trigger_rule::Counters,
};
use serde_json::{Map, json};
use std::{ops::Deref, sync::Arc};
use uuid::Uuid;

/// A migrated store with helpers that panic.
pub(super) struct Bed<B>(Arc<B>);

impl<B> Clone for Bed<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Deref for Bed<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0
    }
}

/// Now, in the microseconds that databases keep, `seconds` later (negative: earlier).
pub(super) fn after(seconds: i64) -> DateTime<Utc> {
    use chrono::SubsecRound;
    Utc::now().trunc_subsecs(6) + TimeDelta::seconds(seconds)
}

/// A DAG of `noop` tasks that do not depend on each other.
pub(super) fn spec(dag_id: &str, tasks: &[&str]) -> DagSpec {
    let tasks: Vec<_> = tasks
        .iter()
        .map(|id| json!({ "task_id": id, "noop": {} }))
        .collect();
    serde_json::from_value(json!({ "dag_id": dag_id, "tasks": tasks })).unwrap()
}

/// A deployment of a specification; equal specifications have equal hashes.
pub(super) fn version_of(spec: DagSpec) -> NewDagVersion {
    NewDagVersion {
        spec_hash: serde_json::to_string(&spec).unwrap(),
        source: format!("dag_id: {}", spec.dag_id),
        fileloc: format!("dags/{}.yaml", spec.dag_id),
        bundle: None,
        schedule: None,
        spec,
    }
}

/// A manual run that may start at once.
pub(super) fn manual_run(version: &VersionRow, run_id: &str) -> NewRun {
    NewRun {
        dag_id: version.dag_id.clone(),
        run_id: run_id.to_owned(),
        version: version.pk,
        run_type: RunType::Manual,
        triggered_by: "test".to_owned(),
        backfill: None,
        logical_date: None,
        data_interval_start: None,
        data_interval_end: None,
        run_after: after(-60),
        conf: Map::new(),
        params: Map::new(),
        note: None,
        max_active_tasks: 16,
        timeout_ms: None,
        next_deadline: None,
        idempotency: None,
    }
}

/// A ready instance of the task at `task_idx` (named `t<idx>`), in the default pool and queue.
pub(super) fn ready_ti(run: RunPk, task_idx: i32) -> TiRow {
    TiRow {
        pk: TiPk(0),
        run,
        task_idx,
        task_id: format!("t{task_idx}"),
        map_index: UNMAPPED,
        state: TaskState::Scheduled,
        fence: Fence(0),
        try_number: 0,
        max_tries: 0,
        user_failures: 0,
        infra_losses: 0,
        attempt: None,
        epoch: 0,
        queue: DEFAULT_QUEUE.to_owned(),
        pool: DEFAULT_POOL.to_owned(),
        pool_slots: 1,
        priority_weight: 1,
        occupies: false,
        counters: Counters::default(),
        expanded_len: None,
        map_values: None,
        map_name: None,
        shared: None,
        scheduled_at: Some(after(-60)),
        queued_at: None,
        claim_by: None,
        started_at: None,
        ended_at: None,
        next_at: None,
        wait: None,
        then: None,
        worker: None,
        hostname: None,
        pid: None,
        exit_code: None,
        reason: None,
    }
}

/// Puts an instance into `queued` under its next fence.
pub(super) fn make_queued(ti: &mut TiRow, claim_by: DateTime<Utc>) {
    ti.state = TaskState::Queued;
    ti.fence = Fence(ti.fence.0 + 1);
    ti.try_number += 1;
    ti.attempt = Some(Uuid::now_v7());
    ti.occupies = true;
    ti.queued_at = Some(after(-30));
    ti.claim_by = Some(claim_by);
}

/// Puts an instance into `running` on a worker.
pub(super) fn make_running(ti: &mut TiRow, worker: &str) {
    make_queued(ti, after(60));
    ti.state = TaskState::Running;
    ti.started_at = Some(after(-20));
    ti.worker = Some(worker.to_owned());
}

impl<B: Backend> Bed<B> {
    pub(super) async fn new(store: B) -> Self {
        store.migrate().await.unwrap();
        Self(Arc::new(store))
    }

    pub(super) async fn tx(&self) -> B::Tx {
        self.0.begin().await.unwrap()
    }

    pub(super) async fn deploy(&self, new: &NewDagVersion) -> (VersionRow, bool) {
        let mut tx = self.tx().await;
        let answer = tx.put_dag_version(new).await.unwrap();
        tx.commit().await.unwrap();
        answer
    }

    /// A deployed DAG with tasks `t0`, `t1`, `t2`.
    pub(super) async fn dag(&self, dag_id: &str) -> VersionRow {
        self.deploy(&version_of(spec(dag_id, &["t0", "t1", "t2"])))
            .await
            .0
    }

    pub(super) async fn insert_run(&self, run: &NewRun) -> RunPk {
        let mut tx = self.tx().await;
        let pk = tx.insert_run(run).await.unwrap();
        tx.commit().await.unwrap();
        pk
    }

    /// Changes a run.
    pub(super) async fn edit_run(&self, run: RunPk, edit: impl FnOnce(&mut RunRow)) -> RunRow {
        let mut tx = self.tx().await;
        let mut row = tx.lock_runs(&[run]).await.unwrap().pop().unwrap();
        edit(&mut row);
        tx.update_runs(std::slice::from_ref(&row)).await.unwrap();
        tx.commit().await.unwrap();
        row
    }

    /// A running run of the DAG with these instances (their `run` is set), and the instances' keys.
    pub(super) async fn running(
        &self,
        version: &VersionRow,
        run_id: &str,
        tis: Vec<TiRow>,
    ) -> (RunPk, Vec<TiPk>) {
        let run = self.insert_run(&manual_run(version, run_id)).await;
        let count = |state: fn(&TiRow) -> bool| {
            i32::try_from(tis.iter().filter(|t| state(t)).count()).unwrap()
        };
        let ready = count(|t| t.state == TaskState::Scheduled);
        let unfinished = count(|t| !t.state.is_finished());
        let active = count(|t| t.occupies);
        self.edit_run(run, |r| {
            r.state = RunState::Running;
            r.started_at = Some(after(-60));
            r.ready_tasks = ready;
            r.unfinished_tasks = unfinished;
            r.active_tasks = active;
        })
        .await;
        (run, self.insert_tis(run, tis).await)
    }

    pub(super) async fn insert_tis(&self, run: RunPk, tis: Vec<TiRow>) -> Vec<TiPk> {
        let tis: Vec<NewTi> = tis
            .into_iter()
            .map(|ti| NewTi(TiRow { run, ..ti }))
            .collect();
        let mut tx = self.tx().await;
        let keys = tx.insert_tis(&tis).await.unwrap();
        tx.commit().await.unwrap();
        keys
    }

    pub(super) async fn load(&self, ti: TiPk) -> TiRow {
        let mut tx = self.tx().await;
        tx.load_tis(&[ti]).await.unwrap().pop().unwrap()
    }

    /// Changes an instance as the engine does: guarded by what it was.
    pub(super) async fn edit_ti(&self, ti: TiPk, edit: impl FnOnce(&mut TiRow)) -> TiRow {
        let before = self.load(ti).await;
        let mut row = before.clone();
        edit(&mut row);
        let mut tx = self.tx().await;
        let write = TiWrite {
            row: row.clone(),
            expected_state: before.state,
            expected_fence: before.fence,
        };
        assert_eq!(tx.update_tis(&[write]).await.unwrap(), [ti]);
        tx.commit().await.unwrap();
        row
    }

    /// Ends a run and everything in it.
    pub(super) async fn end_run(&self, run: RunPk, ended_at: DateTime<Utc>) {
        self.edit_run(run, |r| {
            r.state = RunState::Success;
            r.ended_at = Some(ended_at);
            r.ready_tasks = 0;
            r.unfinished_tasks = 0;
            r.active_tasks = 0;
        })
        .await;
    }

    pub(super) async fn edit_dag(&self, dag_id: &str, edit: impl FnOnce(&mut DagRow)) -> DagRow {
        let mut tx = self.tx().await;
        let mut dag = tx.lock_dag(dag_id).await.unwrap().unwrap();
        edit(&mut dag);
        tx.update_dag(&dag).await.unwrap();
        tx.commit().await.unwrap();
        dag
    }
}
