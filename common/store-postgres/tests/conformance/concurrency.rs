//! What only a backend with concurrent writers can show: two transactions open at once in one task.

use crate::support;
use chrono::{TimeDelta, Utc};
use gristmill_common::spec::DagSpec;
use gristmill_store::{Backend, LimitKey, NewDagVersion, Reads, StoreError, Tx};
use gristmill_store_postgres::PgStore;

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
