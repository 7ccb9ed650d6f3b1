//! What only a backend with concurrent writers can show: two transactions open at once in one task.

use crate::support;
use chrono::{TimeDelta, Utc};
use gristmill_common::{ids::VersionPk, row::RunType, spec::DagSpec};
use gristmill_store::{
    Backend, DispatchContext, LimitKey, NewDagVersion, NewRun, Reads, Store, StoreError, TiWrite,
    Tx, Writes,
};
use gristmill_store_postgres::PgStore;
use std::{sync::Arc, time::Duration};

async fn deploy(store: &PgStore, dag_id: &str) {
    let spec: DagSpec = serde_json::from_value(serde_json::json!({
        "dag_id": dag_id, "tasks": [{ "task_id": "t", "noop": {} }]
    }))
    .unwrap();
    let new = NewDagVersion {
        spec,
        spec_hash: "hash".to_owned(),
        source: String::new(),
        fileloc: format!("{dag_id}.yaml"),
        bundle: None,
        schedule: None,
    };
    let mut tx = store.begin().await.unwrap();
    tx.put_dag_version(&new).await.unwrap();
    let mut dag = tx.lock_dag(dag_id).await.unwrap().unwrap();
    dag.next_run_after = Some(Utc::now() - TimeDelta::seconds(10));
    tx.update_dag(&dag).await.unwrap();
    tx.commit().await.unwrap();
}

fn ids(dags: Vec<gristmill_store::DagRow>) -> Vec<String> {
    dags.into_iter().map(|d| d.dag_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn due_dags_that_another_holds_are_skipped() {
    let (store, _database) = support::fresh().await;
    for id in ["a", "b", "c"] {
        deploy(&store, id).await;
    }
    let (mut first, mut second) = (store.begin().await.unwrap(), store.begin().await.unwrap());
    let mut held = ids(first.lock_due_dags(2).await.unwrap());
    let rest = ids(second.lock_due_dags(10).await.unwrap());
    assert_eq!(rest.len(), 1, "not waited for");
    held.extend(rest);
    held.sort();
    assert_eq!(held, ["a", "b", "c"]);
    drop(first);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_dag_that_was_deployed_meanwhile_is_still_found() {
    let (store, _database) = support::fresh().await;
    deploy(&store, "d").await;
    let mut deploying = store.begin().await.unwrap();
    let mut dag = deploying.lock_dag("d").await.unwrap().unwrap();
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move { store.begin().await?.lock_dag("d").await })
    };
    dag.is_paused = true;
    deploying.update_dag(&dag).await.unwrap();
    deploying.commit().await.unwrap();
    assert!(waiting.await.unwrap().unwrap().unwrap().is_paused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_not_given_is_a_conflict() {
    let (store, _database) = support::fresh().await;
    let key = [LimitKey::pool("default_pool")];
    let mut holder = store.begin().await.unwrap();
    holder.lock_limits(&key).await.unwrap();
    let mut waiter = store.begin().await.unwrap();
    let refused = waiter.lock_limits(&key).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");
    assert!(
        waiter.commit().await.is_err(),
        "a failed transaction cannot say that it was committed"
    );
    holder.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_not_seen() {
    let (store, _database) = support::fresh().await;
    deploy(&store, "d").await;
    let mut tx = store.begin().await.unwrap();
    tx.lock_limits(&[LimitKey::pool("default_pool")])
        .await
        .unwrap();
    tx.spend_limits(&[(LimitKey::pool("default_pool"), 5)])
        .await
        .unwrap();
    assert_eq!(store.pools().await.unwrap()[0].occupied, 0);
    tx.commit().await.unwrap();
    assert_eq!(store.pools().await.unwrap()[0].occupied, 5);
}

/// A statement sees what was committed when it began; what is loaded with a lock that was waited for has to be newer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_with_a_lock_is_as_it_is_under_the_lock() {
    let (store, database) = support::fresh().await;
    deploy(&store, "d").await;
    let version = store.versions("d", 1, 0).await.unwrap().rows.remove(0);
    let mut tx = store.begin().await.unwrap();
    let run = tx.insert_run(&new_run(version.pk)).await.unwrap();
    tx.commit().await.unwrap();
    // Without an epoch nothing is dispatched.
    let context = DispatchContext {
        epoch: None,
        claim_window: Duration::from_secs(60),
        batch: 10,
        plans: Arc::default(),
        published: Arc::default(),
        token: Arc::new(|_| String::new()),
    };
    assert_eq!(store.start_runs(&context).await.unwrap().touched, 1);
    let ti = store.task_instance(run, "t", -1).await.unwrap().unwrap().pk;

    let mut holder = store.begin().await.unwrap();
    let (mut runs, mut tis) = holder.lock_and_load(&[run], &[ti]).await.unwrap();
    let mut waiter = store.begin().await.unwrap();
    let waiting = tokio::spawn(async move {
        let loaded = waiter.lock_and_load(&[run], &[ti]).await;
        drop(waiter);
        loaded
    });
    // Only when it waits for the lock does its statement have a snapshot from before the change.
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    gristmill_testkit::wait::until(
        "a lock is waited for",
        Duration::from_secs(10),
        async || (database.sql(WAITING).await.ok()?.trim() == "1").then_some(()),
    )
    .await
    .unwrap();
    runs[0].unfinished_tasks = 1;
    tis[0].counters.success = 5;
    let write = TiWrite {
        expected_state: tis[0].state,
        expected_fence: tis[0].fence,
        row: tis.remove(0),
    };
    holder
        .write(&Writes {
            tis: std::slice::from_ref(&write),
            runs: &runs,
            ..Writes::default()
        })
        .await
        .unwrap();
    holder.commit().await.unwrap();
    let (runs, tis) = waiting.await.unwrap().unwrap();
    assert_eq!(runs[0].unfinished_tasks, 1);
    assert_eq!(tis, [write.row]);
}

fn new_run(version: VersionPk) -> NewRun {
    NewRun {
        dag_id: "d".to_owned(),
        run_id: "r".to_owned(),
        version,
        run_type: RunType::Manual,
        triggered_by: "test".to_owned(),
        backfill: None,
        logical_date: None,
        data_interval_start: None,
        data_interval_end: None,
        run_after: Utc::now() - TimeDelta::seconds(60),
        conf: serde_json::Map::new(),
        params: serde_json::Map::new(),
        note: None,
        max_active_tasks: 16,
        timeout_ms: None,
        next_deadline: None,
        idempotency: None,
    }
}
