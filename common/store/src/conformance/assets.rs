//! Assets: updates, the runs that follow, and what is shown of both.

use super::{
    bed::{Bed, after, manual_run},
    schedules::{context, deployed, ended, runs},
};
use crate::{AssetEventFilter, AssetRow, AssetUse, Backend, NewAssetEvent, Store, StoreError, Tx};
use gristmill_common::{message::Ending, row::RunType};
use serde_json::{Map, json};
use std::time::Duration;

const MAKER: &str = "
dag_id: maker
tasks:
  t: {noop: , outlets: [orders, {name: prices, uri: 's3://lake/prices', extra: {unit: KRW}}]}
  u: {empty: , outlets: rates, depends_on: [t], expand: {i: [1, 2]}}
";
const BOTH: &str =
    "dag_id: both\nschedule: {all: [orders, prices]}\ntasks: {t: {noop: , inlets: prices}}";
const ANY: &str = "dag_id: any\nschedule: {any: [orders, rates]}\ntasks: {t: {noop: }}";

pub(super) async fn update<B: Backend>(bed: &Bed<B>, asset: &str) -> Result<i64, StoreError> {
    let event = NewAssetEvent {
        asset: asset.to_owned(),
        extra: Map::from_iter([("by".to_owned(), json!("hand"))]),
        source: None,
    };
    bed.create_asset_event(&event).await
}

async fn asset<B: Backend>(bed: &Bed<B>, name: &str) -> AssetRow {
    let page = bed.assets(Some(name), &[], 10, 0).await.unwrap();
    page.rows
        .into_iter()
        .find(|asset| asset.name == name)
        .unwrap()
}

async fn look<B: Backend>(bed: &Bed<B>) -> bool {
    bed.to_do(Duration::ZERO).await.unwrap().asset_events
}

pub async fn an_update_makes_a_run_once_the_condition_holds<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let maker = deployed(&bed, MAKER).await;
    deployed(&bed, BOTH).await;
    deployed(&bed, ANY).await;
    assert!(!look(&bed).await);
    update(&bed, "orders").await.unwrap();
    assert!(look(&bed).await);
    assert_eq!(bed.create_asset_runs().await.unwrap(), 2);
    assert!(
        !look(&bed).await,
        "what waits for more is not looked at again"
    );
    assert_eq!(bed.create_asset_runs().await.unwrap(), 0);
    assert_eq!(runs(&bed, "both").await.len(), 0);
    let made = runs(&bed, "any").await;
    assert_eq!(made.len(), 1);
    assert_eq!(
        (made[0].run_type, made[0].logical_date),
        (RunType::AssetTriggered, None)
    );

    // A task's success is an event of each of its outlets, in the transaction of its ending.
    let run = bed.insert_run(&manual_run(&maker, "r")).await;
    let out = bed.start_runs(&context()).await.unwrap().outbox;
    let row = out.iter().find(|row| row.run == run).unwrap();
    let failed = bed
        .apply(&[ended(row, Ending::FailedForGood)], &[], &context())
        .await
        .unwrap();
    assert!(
        !failed.updated_assets && !look(&bed).await,
        "a failure updates nothing"
    );
    let run = bed.insert_run(&manual_run(&maker, "s")).await;
    let out = bed.start_runs(&context()).await.unwrap().outbox;
    let row = out.iter().find(|row| row.run == run).unwrap();
    let done = bed
        .apply(&[ended(row, Ending::Success)], &[], &context())
        .await
        .unwrap();
    assert!(done.updated_assets);
    let again = bed
        .apply(&[ended(row, Ending::Success)], &[], &context())
        .await
        .unwrap();
    assert_eq!((again.updated_assets, again.stale), (false, 1), "once");
    bed.create_asset_runs().await.unwrap();
    let (of_both, of_any) = (runs(&bed, "both").await, runs(&bed, "any").await);
    assert_eq!((of_both.len(), of_any.len()), (1, 2));
    let filter = |run| AssetEventFilter {
        run: Some(run),
        limit: 10,
        ..AssetEventFilter::default()
    };
    let events = bed.asset_events(&filter(of_both[0].pk)).await.unwrap().rows;
    let names: Vec<(&str, bool)> = events
        .iter()
        .map(|event| (event.name.as_str(), event.source.is_some()))
        .collect();
    assert_eq!(
        names,
        [("prices", true), ("orders", true), ("orders", false)]
    );
    // One instance each of the mapped task, which no worker ran.
    let events = bed.asset_events(&filter(of_any[1].pk)).await.unwrap().rows;
    let mut rates: Vec<i32> = events
        .iter()
        .filter(|event| event.name == "rates")
        .filter_map(|event| Some(event.source.as_ref()?.map_index))
        .collect();
    rates.sort_unstable();
    assert_eq!(rates, [0, 1]);
}

pub async fn paused_dags_wait_for_no_assets<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    deployed(&bed, ANY).await;
    bed.set_paused("any", true).await.unwrap();
    update(&bed, "orders").await.unwrap();
    assert!(!look(&bed).await);
    bed.set_paused("any", false).await.unwrap();
    assert_eq!(bed.create_asset_runs().await.unwrap(), 0);
    // A schedule that changed takes what waited for the old one out of the queue.
    update(&bed, "orders").await.unwrap();
    deployed(&bed, "dag_id: any\ntasks: {t: {noop: }}").await;
    assert_eq!(bed.create_asset_runs().await.unwrap(), 1);
    assert!(!look(&bed).await && runs(&bed, "any").await.is_empty());
    let unknown = update(&bed, "never named").await.unwrap_err();
    assert!(matches!(unknown, StoreError::NotFound { .. }), "{unknown}");
}

pub async fn assets_show_their_lineage<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    deployed(&bed, BOTH).await;
    let prices = asset(&bed, "prices").await;
    assert_eq!(
        (prices.uri.as_str(), prices.group.as_str()),
        ("prices", "asset")
    );
    deployed(&bed, MAKER).await;
    let prices = asset(&bed, "prices").await;
    assert_eq!(prices.uri, "s3://lake/prices");
    assert_eq!(json!(prices.extra), json!({"unit": "KRW"}));
    let uses: Vec<(AssetUse, &str, &str)> = prices
        .references
        .iter()
        .map(|r| (r.kind, r.dag_id.as_str(), r.task_id.as_str()))
        .collect();
    let wanted = [
        (AssetUse::Inlet, "both", "t"),
        (AssetUse::Outlet, "maker", "t"),
        (AssetUse::Schedule, "both", ""),
    ];
    assert_eq!(uses, wanted);
    assert_eq!(prices.last_event, None);
    let event = update(&bed, "prices").await.unwrap();
    let prices = bed.asset(prices.id).await.unwrap().unwrap();
    assert_eq!(prices.last_event.unwrap().0, event);
    let one = AssetEventFilter {
        id: Some(event),
        asset_id: Some(prices.id),
        limit: 1,
        ..AssetEventFilter::default()
    };
    let found = bed.asset_events(&one).await.unwrap();
    assert_eq!(
        (found.total, json!(found.rows[0].extra)),
        (1, json!({"by": "hand"}))
    );

    let page = bed.assets(None, &["maker".to_owned()], 2, 1).await.unwrap();
    let names: Vec<&str> = page.rows.iter().map(|asset| asset.name.as_str()).collect();
    assert_eq!((page.total, names), (3, vec!["prices", "rates"]));
    assert_eq!(bed.assets(Some("lake"), &[], 10, 0).await.unwrap().total, 1);
    // A version without it lets go of it; that only names it describes it no worse.
    deployed(&bed, "dag_id: maker\ntasks: {t: {noop: , outlets: prices}}").await;
    assert_eq!(asset(&bed, "prices").await.uri, "s3://lake/prices");
    assert!(asset(&bed, "rates").await.references.is_empty());
    bed.delete_dag("both").await.unwrap();
    assert_eq!(asset(&bed, "prices").await.references.len(), 1);
}

pub async fn what_waits_is_shown_and_forgotten<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    deployed(&bed, BOTH).await;
    let orders = asset(&bed, "orders").await.id;
    let mut newest = 0;
    for _ in 0..5 {
        newest = update(&bed, "orders").await.unwrap();
    }
    let waiting = bed.queued_asset_events(Some("both"), None).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].asset_id, waiting[0].event), (orders, newest));
    let mut tx = bed.tx().await;
    tx.keep_asset_events("both", newest, 2).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!look(&bed).await);
    let none = bed
        .delete_queued_asset_events(Some("other"), None)
        .await
        .unwrap();
    let two = bed
        .delete_queued_asset_events(None, Some(orders))
        .await
        .unwrap();
    assert_eq!((none, two), (0, 2), "the newest two were left");
    assert!(
        bed.queued_asset_events(None, None)
            .await
            .unwrap()
            .is_empty()
    );
}

pub async fn old_events_are_deleted<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    deployed(&bed, ANY).await;
    update(&bed, "orders").await.unwrap();
    bed.create_asset_runs().await.unwrap();
    let all = AssetEventFilter {
        limit: 10,
        ..AssetEventFilter::default()
    };
    bed.delete_old(after(-60), 10).await.unwrap();
    assert_eq!(bed.asset_events(&all).await.unwrap().total, 1);
    bed.delete_old(after(60), 10).await.unwrap();
    assert_eq!(bed.asset_events(&all).await.unwrap().total, 0);
}
