//! Updates of assets for sensors and templates, and results that may be used again.

use super::{
    assets::update,
    bed::{Bed, after, manual_run, ready_ti},
    schedules::{context, deployed},
};
use crate::{Backend, CachedResult, DataTx, Store, Tx};
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{Fence, RunPk, UNMAPPED},
    message::WorkMessage,
    row::{RETURN_VALUE, TiRow, XcomRow, XcomValue},
    state::TaskState,
};
use serde_json::json;

const MAKER: &str = "
dag_id: maker
tasks: {make: {shell: make, outlets: [orders, prices]}}";

const WAITER: &str = "
dag_id: waiter
tasks:
  wait: {sensor: {asset: {name: orders, since: \"{{ macros.ds_add('2020-01-02', -1) }}\"}}}
  never: {sensor: {asset: rates}}";

const FOLLOWER: &str = "
dag_id: follower
schedule: {any: [orders]}
tasks:
  first: {branch: \"{{ 'tell' if triggering_asset_events['orders'] | length == 2 else 'none' }}\"}
  tell: {depends_on: [first], shell: \"echo {{ triggering_asset_events['orders'] | length }}\"}
  none: {depends_on: [first], empty: {}}";

async fn newest<B: Backend>(bed: &Bed<B>, wanted: &[(&str, DateTime<Utc>)]) -> Vec<Option<i64>> {
    let wanted: Vec<(String, DateTime<Utc>)> = wanted
        .iter()
        .map(|(name, since)| ((*name).to_owned(), *since))
        .collect();
    let found = bed.tx().await.newest_asset_events(&wanted).await.unwrap();
    found
        .into_iter()
        .map(|event| event.map(|event| event.id))
        .collect()
}

pub async fn the_newest_update_of_an_asset_is_found<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    deployed(&bed, MAKER).await;
    let first = update(&bed, "orders").await.unwrap();
    let second = update(&bed, "orders").await.unwrap();
    assert!(second > first);
    let wanted = [
        ("prices", after(-60)),
        ("orders", after(-60)),
        ("nothing", after(-60)),
        ("orders", after(60)),
    ];
    assert_eq!(
        newest(&bed, &wanted).await,
        [None, Some(second), None, None]
    );
    assert_eq!(newest(&bed, &[]).await, []);
}

pub async fn a_sensor_waits_for_an_update<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    deployed(&bed, MAKER).await;
    let waiter = deployed(&bed, WAITER).await;
    let run = bed.insert_run(&manual_run(&waiter, "r")).await;
    bed.start_runs(&context()).await.unwrap();
    bed.look_at_waits(&context()).await.unwrap();
    let instance = async |task: &str| {
        let found = bed.task_instance(run, task, UNMAPPED).await.unwrap();
        found.unwrap()
    };
    let waiting = instance("wait").await;
    assert_eq!(waiting.state, TaskState::Deferred);
    let reason = waiting.reason.unwrap();
    assert!(
        reason.starts_with("orders was not updated since"),
        "{reason}"
    );
    let event = update(&bed, "orders").await.unwrap();
    for task in ["wait", "never"] {
        let ti = instance(task).await.pk;
        bed.edit_ti(ti, |row| row.next_at = Some(after(-1))).await;
    }
    bed.look_at_waits(&context()).await.unwrap();
    let done = instance("wait").await;
    assert_eq!(done.state, TaskState::Success);
    let xcoms = bed
        .xcoms(run, Some(done.pk), Some(RETURN_VALUE))
        .await
        .unwrap();
    let XcomValue::Inline(value) = &xcoms[0].value else {
        panic!("{xcoms:?}");
    };
    assert_eq!(
        (&value["asset"], &value["source_dag_id"]),
        (&json!("orders"), &json!(null)),
        "{event}"
    );
    assert_eq!(instance("never").await.state, TaskState::Deferred);
    // The sensor is a reader of the asset, and makes it known.
    let known = bed.assets(Some("rates"), &[], 10, 0).await.unwrap();
    assert_eq!(known.rows[0].references[0].dag_id, "waiter");
}

pub async fn a_run_knows_the_updates_that_made_it<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    deployed(&bed, MAKER).await;
    deployed(&bed, FOLLOWER).await;
    update(&bed, "orders").await.unwrap();
    update(&bed, "orders").await.unwrap();
    bed.create_asset_runs().await.unwrap();
    let out = bed.start_runs(&context()).await.unwrap().outbox;
    let messages: Vec<WorkMessage> = out
        .iter()
        .map(|row| serde_json::from_str(&row.body).unwrap())
        .collect();
    assert_eq!(messages.len(), 1, "the branch has seen both of them");
    assert_eq!(messages[0].task.task_id, "tell");
    let events = messages[0].run.asset_events["orders"].as_array().unwrap();
    assert_eq!(events.len(), 2);
    assert!(events[0]["timestamp"].as_str() <= events[1]["timestamp"].as_str());
}

pub async fn a_success_is_found_by_the_key_that_it_noted<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let ended = |state, at| TiRow {
        state,
        scheduled_at: None,
        ended_at: Some(at),
        fence: Fence(1),
        ..ready_ti(RunPk(0), 0)
    };
    let (mut made, minute_ago) = (Vec::new(), after(-60));
    for (run_id, state, at) in [
        ("old", TaskState::Success, after(-600)),
        ("new", TaskState::Success, minute_ago),
        ("failed", TaskState::Failed, after(-10)),
    ] {
        let (run, tis) = bed.running(&dag, run_id, vec![ended(state, at)]).await;
        made.push((run, tis[0]));
    }
    let mut tx = bed.tx().await;
    let note = |(run, ti): (RunPk, _), key: &str| XcomRow {
        run,
        ti,
        task_idx: 0,
        map_index: UNMAPPED,
        key: key.to_owned(),
        fence: Fence(1),
        value: XcomValue::Inline(json!(null)),
    };
    let mut notes: Vec<XcomRow> = made.iter().map(|made| note(*made, "cache:a")).collect();
    notes.push(note(made[0], RETURN_VALUE));
    tx.put_xcoms(&notes).await.unwrap();
    tx.commit().await.unwrap();
    let found = async |key: &str, seconds| bed.cached_result(key, after(seconds)).await.unwrap();
    let newest = CachedResult {
        run: made[1].0,
        ti: made[1].1,
        dag_id: "d".to_owned(),
        run_id: "new".to_owned(),
        task_id: bed.load(made[1].1).await.task_id,
        map_index: UNMAPPED,
        ended_at: minute_ago,
    };
    assert_eq!(found("cache:a", -3600).await, Some(newest));
    assert_eq!(found("cache:a", -30).await, None, "too old");
    assert_eq!(found("cache:b", -3600).await, None);
    assert_eq!(found(RETURN_VALUE, -3600).await, None, "no key of a cache");
    let mut tx = bed.tx().await;
    tx.delete_xcoms(made[1].0, &[made[1].1]).await.unwrap();
    tx.commit().await.unwrap();
    let next = found("cache:a", -3600).await.unwrap();
    assert_eq!(next.run_id, "old", "what was cleared is not used again");
}
