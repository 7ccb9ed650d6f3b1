//! Notes, XComs set by hand, favourites, entries of the audit log by filter; conditions, orders and pages of listings.

use super::bed::{Bed, after, manual_run, ready_ti};
use crate::{
    AuditField, AuditFilter, AuditRow, Backend, Comparison, Condition, Listing, Operand, Order,
    RunField, RunFilter, Test, TiField, TiFilter, no_time,
};
use gristmill_common::{
    ids::{RunPk, TiPk},
    row::{RETURN_VALUE, TiRow, XcomValue},
};
use serde_json::{Value, json};

const ANY: RunPk = RunPk(0);

fn text(value: &str) -> Operand {
    Operand::Text(value.to_owned())
}

pub async fn notes_are_kept_by_instance<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (run, keys) = bed
        .running(&dag, "r", vec![ready_ti(ANY, 0), ready_ti(ANY, 1)])
        .await;
    let row = bed.task_instance(run, "t0", -1).await.unwrap().unwrap();
    bed.put_task_note(&row, Some("first")).await.unwrap();
    bed.put_task_note(&row, Some("seen \0 by ada"))
        .await
        .unwrap();
    let notes = bed.task_notes(&keys).await.unwrap();
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].0, keys[0]);
    assert!(notes[0].1.ends_with("by ada"));
    bed.put_task_note(&row, None).await.unwrap();
    assert!(bed.task_notes(&keys).await.unwrap().is_empty());
    assert!(bed.task_notes(&[]).await.unwrap().is_empty());
}

pub async fn xcoms_are_set_by_hand<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (run, keys) = bed.running(&dag, "r", vec![ready_ti(ANY, 0)]).await;
    let set = bed
        .set_xcom(keys[0], RETURN_VALUE, &json!({ "n": 1 }))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (set.run, set.ti, set.task_idx, set.map_index),
        (run, keys[0], 0, -1)
    );
    let changed = bed
        .set_xcom(keys[0], RETURN_VALUE, &Value::Null)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(changed.value, XcomValue::Inline(Value::Null));
    assert_eq!(
        bed.xcoms(run, Some(keys[0]), None).await.unwrap(),
        [changed]
    );
    assert!(bed.delete_xcom(run, keys[0], RETURN_VALUE).await.unwrap());
    assert!(!bed.delete_xcom(run, keys[0], RETURN_VALUE).await.unwrap());
    let gone = bed.set_xcom(TiPk(987_654), "k", &json!(1)).await.unwrap();
    assert!(gone.is_none(), "there is no such instance");
}

pub async fn favorites_are_each_users_own<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    bed.dag("d").await;
    bed.dag("e").await;
    assert!(bed.set_favorite("ada", "e", true).await.unwrap());
    assert!(bed.set_favorite("ada", "d", true).await.unwrap());
    assert!(!bed.set_favorite("ada", "d", true).await.unwrap());
    assert!(!bed.set_favorite("ada", "none", true).await.unwrap());
    assert_eq!(bed.favorites("ada").await.unwrap(), ["d", "e"]);
    assert!(bed.favorites("ben").await.unwrap().is_empty());
    assert!(bed.set_favorite("ada", "d", false).await.unwrap());
    assert!(!bed.set_favorite("ada", "d", false).await.unwrap());
    bed.delete_dag("e").await.unwrap();
    assert!(bed.favorites("ada").await.unwrap().is_empty());
}

pub async fn audit_entries_by_filter<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    for n in 0..4 {
        let entry = AuditRow {
            at: after(n),
            actor: if n % 2 == 0 { "ada" } else { "ben" }.to_owned(),
            event: format!("e{n}"),
            dag_id: (n > 0).then(|| "d".to_owned()),
            run_id: None,
            task_id: None,
            extra: Value::Null,
        };
        bed.put_audit(&entry).await.unwrap();
    }
    let find = |conditions: Vec<(AuditField, Test)>| {
        let bed = bed.clone();
        async move {
            let conditions = conditions
                .into_iter()
                .map(|(field, test)| Condition { field, test })
                .collect();
            let filter = AuditFilter {
                listing: Listing {
                    conditions,
                    ..Listing::default()
                },
                limit: 9,
                offset: 0,
            };
            let page = bed.audit_entries(&filter).await.unwrap();
            assert_eq!(page.total, page.rows.len() as i64);
            page.rows
                .into_iter()
                .map(|(_, entry)| entry.event)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(find(vec![]).await, ["e3", "e2", "e1", "e0"]);
    let of_ada = (AuditField::Actor, Test::OneOf(vec![text("ada")]));
    assert_eq!(find(vec![of_ada.clone()]).await, ["e2", "e0"]);
    let of_d = (AuditField::DagId, Test::Like(vec!["D".to_owned()]));
    assert_eq!(find(vec![of_ada, of_d]).await, ["e2"]);
    let not = (
        AuditField::Event,
        Test::NoneOf(vec![text("e1"), text("e2")]),
    );
    assert_eq!(find(vec![not]).await, ["e3", "e0"]);
    let odd = "' OR '1'='1".to_owned();
    assert!(
        find(vec![(AuditField::Event, Test::Prefix(vec![odd.clone()]))])
            .await
            .is_empty()
    );
    assert!(
        find(vec![(
            AuditField::Event,
            Test::Like(vec![odd, "\\".to_owned()])
        )])
        .await
        .is_empty()
    );
}

pub async fn runs_by_condition_and_order<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let mut runs = Vec::new();
    for n in 0..4 {
        let mut run = manual_run(&dag, &format!("Nightly_{n}"));
        run.logical_date = (n != 2).then(|| after(n * 100));
        run.run_after = after(-n * 10);
        runs.push(bed.insert_run(&run).await);
    }
    let page = |listing: Listing<RunField>| {
        let bed = bed.clone();
        async move {
            let filter = RunFilter {
                listing,
                limit: 9,
                ..RunFilter::default()
            };
            let page = bed.runs(&filter).await.unwrap();
            (
                page.total,
                page.rows.into_iter().map(|r| r.pk).collect::<Vec<_>>(),
            )
        }
    };
    let find = |field, test| {
        let listing = Listing {
            conditions: vec![Condition { field, test }],
            ..Listing::default()
        };
        page(listing)
    };
    let early = Test::Compare(Comparison::Less, Operand::Time(after(150)));
    assert_eq!(
        find(RunField::LogicalDate, early).await.1,
        [runs[1], runs[0]]
    );
    let like = |pattern: &str| Test::Like(vec![pattern.to_owned()]);
    assert_eq!(
        find(RunField::RunId, like("GHT_X%_3")).await.1,
        [] as [RunPk; 0]
    );
    assert_eq!(find(RunField::RunId, like("nIGHT%y_3")).await.1, [runs[3]]);
    let prefix = Test::Prefix(vec!["Night%".to_owned(), "Nightly_1".to_owned()]);
    assert_eq!(find(RunField::RunId, prefix).await.1, [runs[1]]);
    let version = Test::OneOf(vec![Operand::Int(1)]);
    assert_eq!(find(RunField::VersionNumber, version).await.0, 4);
    let nothing = Test::OneOf(Vec::new());
    assert_eq!(find(RunField::Key, nothing).await.0, 0);
    // Each field can be compared and ordered by, and a page begins after any row.
    let by_date = [(RunField::LogicalDate, true), (RunField::Key, false)];
    let listing = Listing {
        order: by_date
            .map(|(field, descending)| Order { field, descending })
            .to_vec(),
        ..Listing::default()
    };
    let sorted = [runs[2], runs[3], runs[1], runs[0]];
    assert_eq!(page(listing.clone()).await, (4, sorted.to_vec()));
    let after_first = Listing {
        after: Some(vec![Operand::Time(no_time()), Operand::Int(runs[2].0)]),
        count_at_most: Some(2),
        ..listing
    };
    assert_eq!(page(after_first).await, (2, sorted[1..].to_vec()));
    let times = [
        RunField::DataIntervalStart,
        RunField::DataIntervalEnd,
        RunField::RunAfter,
        RunField::QueuedAt,
        RunField::StartedAt,
        RunField::EndedAt,
        RunField::UpdatedAt,
    ];
    for field in times {
        let value = Operand::Time(after(-3600));
        orders_and_compares(&page, field, value).await;
    }
    for field in [RunField::Duration, RunField::VersionNumber, RunField::Key] {
        orders_and_compares(&page, field, Operand::Int(1)).await;
    }
    let texts = [
        RunField::DagId,
        RunField::RunId,
        RunField::State,
        RunField::RunType,
        RunField::Bundle,
        RunField::Conf,
    ];
    for field in texts {
        orders_and_compares(&page, field, text("a")).await;
    }
}

/// That a field is known to the database, of its type: nothing is said of what is found.
async fn orders_and_compares<F: Copy>(
    page: &impl AsyncFn(Listing<F>) -> (i64, Vec<RunPk>),
    field: F,
    value: Operand,
) {
    let listing = Listing {
        conditions: vec![Condition {
            field,
            test: Test::Compare(Comparison::GreaterOrEqual, value.clone()),
        }],
        order: vec![Order {
            field,
            descending: true,
        }],
        after: Some(vec![value]),
        count_at_most: None,
    };
    page(listing).await;
}

pub async fn task_instances_by_condition_and_order<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let tis = (0..3)
        .map(|map_index| TiRow {
            map_index,
            priority_weight: 10 - map_index,
            map_name: Some(format!("Region {map_index}")),
            ..ready_ti(ANY, 0)
        })
        .collect();
    let (run, keys) = bed.running(&dag, "nightly", tis).await;
    let page = |listing: Listing<TiField>| {
        let bed = bed.clone();
        async move {
            let filter = TiFilter {
                run: Some(run),
                listing,
                limit: 9,
                ..TiFilter::default()
            };
            let page = bed.task_instances(&filter).await.unwrap();
            (
                page.total,
                page.rows.into_iter().map(|t| t.pk).collect::<Vec<_>>(),
            )
        }
    };
    let find = |field, test| {
        let listing = Listing {
            conditions: vec![Condition { field, test }],
            order: vec![Order {
                field: TiField::PriorityWeight,
                descending: false,
            }],
            ..Listing::default()
        };
        page(listing)
    };
    let like = Test::Like(vec!["region 1".to_owned(), "region 2".to_owned()]);
    assert_eq!(
        find(TiField::MapName, like).await,
        (2, vec![keys[2], keys[1]])
    );
    let of_run = Test::OneOf(vec![text("nightly")]);
    assert_eq!(find(TiField::RunId, of_run).await.0, 3);
    let not_of_run = Test::Prefix(vec!["ightly".to_owned()]);
    assert_eq!(find(TiField::RunId, not_of_run).await.0, 0);
    let page = async |listing: Listing<TiField>| {
        let (total, _) = page(listing).await;
        (total, Vec::new())
    };
    let times = [
        TiField::ScheduledAt,
        TiField::QueuedAt,
        TiField::StartedAt,
        TiField::EndedAt,
        TiField::UpdatedAt,
        TiField::LogicalDate,
        TiField::RunAfter,
        TiField::DataIntervalStart,
        TiField::DataIntervalEnd,
    ];
    for field in times {
        orders_and_compares(&page, field, Operand::Time(after(0))).await;
    }
    let numbers = [
        TiField::Key,
        TiField::MapIndex,
        TiField::TryNumber,
        TiField::PriorityWeight,
        TiField::Duration,
        TiField::VersionNumber,
    ];
    for field in numbers {
        orders_and_compares(&page, field, Operand::Int(0)).await;
    }
    let texts = [
        TiField::TaskId,
        TiField::MapName,
        TiField::State,
        TiField::Queue,
        TiField::Pool,
        TiField::DagId,
        TiField::RunId,
    ];
    for field in texts {
        orders_and_compares(&page, field, text("x")).await;
    }
}
