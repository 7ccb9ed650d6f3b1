//! Durable copies of XComs, and sealed secrets.

use super::bed::{Bed, ready_ti};
use crate::{Backend, Tx};
use gristmill_common::{
    ids::{Fence, RunPk, TiPk},
    row::{RETURN_VALUE, TiRow, XcomRow, XcomValue},
};
use serde_json::{Value, json};

const ANY: RunPk = RunPk(0);

/// A run with three instances of task 0 and the node of task 1.
async fn run<B: Backend>(bed: &Bed<B>) -> (RunPk, Vec<TiPk>) {
    let dag = bed.dag("d").await;
    let mut tis: Vec<TiRow> = (0..3)
        .map(|map_index| TiRow {
            map_index,
            ..ready_ti(ANY, 0)
        })
        .collect();
    tis.push(ready_ti(ANY, 1));
    bed.running(&dag, "r", tis).await
}

fn xcom(run: RunPk, ti: TiPk, place: (i32, i32), key: &str, fence: i64, value: Value) -> XcomRow {
    XcomRow {
        run,
        ti,
        task_idx: place.0,
        map_index: place.1,
        key: key.to_owned(),
        fence: Fence(fence),
        value: XcomValue::Inline(value),
    }
}

async fn put<B: Backend>(bed: &Bed<B>, xcoms: &[XcomRow]) {
    let mut tx = bed.tx().await;
    tx.put_xcoms(xcoms).await.unwrap();
    tx.commit().await.unwrap();
}

pub async fn the_newest_fence_wins<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let (run, tis) = run(&bed).await;
    let value = |fence, value| xcom(run, tis[3], (1, -1), RETURN_VALUE, fence, value);
    put(&bed, &[value(2, json!("second"))]).await;
    put(&bed, &[value(1, json!("first"))]).await;
    assert_eq!(
        bed.xcoms(run, Some(tis[3]), None).await.unwrap(),
        [value(2, json!("second"))]
    );
    let object = XcomRow {
        value: XcomValue::Object {
            key: "x/3".to_owned(),
            size: 70_000,
        },
        ..value(3, Value::Null)
    };
    // Two of one key in one call.
    put(&bed, &[object.clone(), value(2, json!("again"))]).await;
    assert_eq!(bed.xcoms(run, Some(tis[3]), None).await.unwrap(), [object]);
    // And from the object store back to an inline null, which is a value too.
    put(&bed, &[value(4, Value::Null)]).await;
    assert_eq!(
        bed.xcoms(run, Some(tis[3]), None).await.unwrap(),
        [value(4, Value::Null)]
    );
    put(&bed, &[]).await;
}

pub async fn values_are_found_by_task_and_key<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let (run, tis) = run(&bed).await;
    let odd = json!({ "z": 1, "a": ["\u{0}", 12345678901234567890_u64, 0.1, "日本"] });
    let all = [
        xcom(run, tis[0], (0, 0), RETURN_VALUE, 1, json!(0)),
        xcom(run, tis[1], (0, 1), RETURN_VALUE, 1, odd.clone()),
        xcom(run, tis[1], (0, 1), "side", 1, json!("s")),
        xcom(run, tis[3], (1, -1), RETURN_VALUE, 1, json!([])),
    ];
    put(&bed, &all).await;
    let keys = [RETURN_VALUE.to_owned()];
    let mut tx = bed.tx().await;
    let found = tx.xcoms_of_tasks(run, &[0], &keys).await.unwrap();
    assert_eq!(found, [all[0].clone(), all[1].clone()]);
    assert_eq!(
        tx.xcoms_of_tasks(run, &[0, 1, 2], &keys)
            .await
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        tx.xcoms_of_tasks(RunPk(run.0 + 1), &[0], &keys)
            .await
            .unwrap(),
        []
    );
    drop(tx);
    assert_eq!(
        bed.xcoms_of_task(run, 0, "side").await.unwrap(),
        [all[2].clone()]
    );
    assert_eq!(
        bed.xcoms(run, Some(tis[1]), Some("side")).await.unwrap(),
        [all[2].clone()]
    );
    assert_eq!(bed.xcoms(run, Some(tis[1]), None).await.unwrap().len(), 2);
    assert_eq!(
        bed.xcoms(run, None, Some(RETURN_VALUE))
            .await
            .unwrap()
            .len(),
        3
    );
    assert_eq!(bed.xcoms(run, None, None).await.unwrap().len(), 4);
    let XcomValue::Inline(read) = &bed.xcoms_of_task(run, 0, RETURN_VALUE).await.unwrap()[1].value
    else {
        panic!("inline it was");
    };
    assert_eq!(
        read.to_string(),
        odd.to_string(),
        "as written, keys in their order"
    );
}

pub async fn references_tell_of_more<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let (run, tis) = run(&bed).await;
    let mut all: Vec<XcomRow> = (0..3_i32)
        .map(|n| {
            xcom(
                run,
                tis[usize::try_from(n).unwrap()],
                (0, n),
                RETURN_VALUE,
                5,
                json!(n),
            )
        })
        .collect();
    all[2].value = XcomValue::Object {
        key: "big".to_owned(),
        size: 9,
    };
    put(&bed, &all).await;
    let mut tx = bed.tx().await;
    let refs = tx.xcom_refs(run, &[0, 1], 10).await.unwrap();
    assert_eq!(refs.len(), 3);
    assert_eq!(
        (
            refs[1].task_idx,
            refs[1].map_index,
            refs[1].ti,
            refs[1].fence
        ),
        (0, 1, tis[1], Fence(5))
    );
    assert_eq!(
        (refs[1].key.as_str(), refs[1].object.as_deref()),
        (RETURN_VALUE, None)
    );
    assert_eq!(refs[2].object.as_deref(), Some("big"));
    assert_eq!(
        tx.xcom_refs(run, &[0], 1).await.unwrap().len(),
        2,
        "one more than asked tells that there are more"
    );
    assert_eq!(tx.xcom_refs(run, &[1], 10).await.unwrap(), []);
    let at = tx.xcom_refs_at(run, &[0, 1], &[1, 2, 9]).await.unwrap();
    assert_eq!(at, refs[1..]);
    assert_eq!(tx.xcom_refs_at(run, &[0], &[]).await.unwrap(), []);
}

pub async fn sealed_secrets_are_found<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    for (kind, name, sealed) in [
        ("connection", "shop", "c"),
        ("variable", "shop", "v"),
        ("variable", "other", "o"),
    ] {
        bed.put_secret(kind, name, sealed, &json!({}))
            .await
            .unwrap();
    }
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let mut tx = bed.tx().await;
    let sealed = tx
        .sealed(&names(&["shop", "missing"]), &names(&["shop"]))
        .await
        .unwrap();
    assert_eq!(
        sealed.connections.into_iter().collect::<Vec<_>>(),
        [("shop".to_owned(), "c".to_owned())]
    );
    assert_eq!(
        sealed.variables.into_iter().collect::<Vec<_>>(),
        [("shop".to_owned(), "v".to_owned())]
    );
    assert!(tx.sealed(&[], &[]).await.unwrap().is_empty());
}
