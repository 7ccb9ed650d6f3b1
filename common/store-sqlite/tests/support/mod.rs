//! What the tests of this crate share. Each test binary uses a part of it.
#![allow(
    dead_code,
    reason = "every test binary compiles this file and uses a part of it"
)]

use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{
    ids::{Fence, RunPk, TiPk, VersionPk},
    row::{RunType, TiRow},
    spec::DagSpec,
    state::{RunState, TaskState},
    trigger_rule::Counters,
};
use gristmill_store::{Backend, NewDagVersion, NewRun, NewTi, Reads, Tx};
use gristmill_store_sqlite::SqliteStore;
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const DAG: &str = "dag";

/// A migrated store in a folder of its own.
pub(crate) async fn store() -> (SqliteStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("home/gristmill.db"))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    (store, folder)
}

pub(crate) async fn deploy(store: &SqliteStore) -> VersionPk {
    let spec: DagSpec =
        serde_json::from_value(serde_json::json!({"dag_id": DAG, "tasks": []})).unwrap();
    let mut tx = store.begin().await.unwrap();
    let (version, _) = tx
        .put_dag_version(&NewDagVersion {
            spec,
            spec_hash: "hash".to_owned(),
            source: String::new(),
            fileloc: "dags/dag.yaml".to_owned(),
            bundle: None,
            schedule: None,
        })
        .await
        .unwrap();
    tx.commit().await.unwrap();
    version.pk
}

pub(crate) fn new_run(run_id: &str, version: VersionPk, now: DateTime<Utc>) -> NewRun {
    NewRun {
        dag_id: DAG.to_owned(),
        run_id: run_id.to_owned(),
        version,
        run_type: RunType::Manual,
        triggered_by: "test".to_owned(),
        backfill: None,
        logical_date: None,
        data_interval_start: None,
        data_interval_end: None,
        run_after: now,
        conf: serde_json::Map::new(),
        params: serde_json::Map::new(),
        note: None,
        max_active_tasks: 1000,
        timeout_ms: None,
        next_deadline: None,
        idempotency: None,
    }
}

/// A run in state `running` that counts `ready` ready instances.
pub(crate) async fn running(store: &SqliteStore, run_id: &str, ready: i32) -> RunPk {
    let version = deploy(store).await;
    let mut tx = store.begin().await.unwrap();
    let now = tx.now();
    let run = tx.insert_run(&new_run(run_id, version, now)).await.unwrap();
    let mut row = tx.lock_runs(&[run]).await.unwrap().remove(0);
    row.state = RunState::Running;
    row.started_at = Some(now);
    row.ready_tasks = ready;
    row.unfinished_tasks = ready;
    tx.update_runs(&[row]).await.unwrap();
    tx.commit().await.unwrap();
    run
}

/// A ready instance.
pub(crate) fn ready(run: RunPk, task_idx: i32, now: DateTime<Utc>) -> TiRow {
    TiRow {
        pk: TiPk(0),
        run,
        task_idx,
        task_id: format!("task_{task_idx}"),
        map_index: -1,
        state: TaskState::Scheduled,
        fence: Fence(0),
        try_number: 0,
        max_tries: 2,
        user_failures: 0,
        infra_losses: 0,
        attempt: None,
        epoch: 0,
        queue: "default".to_owned(),
        pool: "default_pool".to_owned(),
        pool_slots: 1,
        priority_weight: 1,
        occupies: false,
        counters: Counters::default(),
        expanded_len: None,
        map_values: None,
        map_name: None,
        shared: None,
        scheduled_at: Some(now),
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

/// The same, dispatched.
pub(crate) fn queued(mut row: TiRow, now: DateTime<Utc>) -> TiRow {
    row.state = TaskState::Queued;
    row.fence = Fence(row.fence.0 + 1);
    row.try_number += 1;
    row.attempt = Some(Uuid::new_v4());
    row.occupies = true;
    row.queued_at = Some(now);
    row.claim_by = Some(now + TimeDelta::minutes(5));
    row
}

pub(crate) async fn insert(store: &SqliteStore, rows: Vec<TiRow>) -> Vec<TiRow> {
    let mut tx = store.begin().await.unwrap();
    let new: Vec<_> = rows.iter().cloned().map(NewTi).collect();
    let keys = tx.insert_tis(&new).await.unwrap();
    tx.commit().await.unwrap();
    rows.into_iter()
        .zip(keys)
        .map(|(row, pk)| TiRow { pk, ..row })
        .collect()
}
