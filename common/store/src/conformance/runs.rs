//! Runs.

use super::bed::{Bed, after, manual_run};
use crate::{AuditRow, Backend, NewRun, Store, StoreError, Trigger, Triggered, Tx};
use futures::future::join_all;
use gristmill_common::{ids::RunPk, row::RunType, state::RunState};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub async fn a_run_exists_once<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let other = bed.dag("e").await;
    let run = bed.insert_run(&manual_run(&dag, "r")).await;
    let mut tx = bed.tx().await;
    let taken = tx.insert_run(&manual_run(&dag, "r")).await.unwrap_err();
    assert!(
        matches!(&taken, StoreError::Exists { name, .. } if name == "r"),
        "{taken}"
    );
    // The transaction goes on after it.
    let second = tx.insert_run(&manual_run(&dag, "s")).await.unwrap();
    tx.commit().await.unwrap();
    assert!(second > run);
    assert_eq!(bed.run("d", "s").await.unwrap().unwrap().pk, second);
    bed.insert_run(&manual_run(&other, "r")).await;
    assert_eq!(bed.run("d", "none").await.unwrap(), None);
}

pub async fn a_scheduled_run_exists_once_per_date<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let date = Some(after(-3600));
    let of = |run_type, run_id: &str| NewRun {
        run_type,
        logical_date: date,
        ..manual_run(&dag, run_id)
    };
    bed.insert_run(&of(RunType::Scheduled, "a")).await;
    let mut tx = bed.tx().await;
    let taken = tx
        .insert_run(&of(RunType::Scheduled, "b"))
        .await
        .unwrap_err();
    assert!(matches!(taken, StoreError::Exists { .. }), "{taken}");
    drop(tx);
    bed.insert_run(&of(RunType::Manual, "c")).await;
    bed.insert_run(&of(RunType::Manual, "d")).await;
}

pub async fn a_run_keeps_its_columns<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let new = NewRun {
        run_type: RunType::Backfill,
        triggered_by: "cli".to_owned(),
        backfill: None,
        logical_date: Some(after(-7200)),
        data_interval_start: Some(after(-7200)),
        data_interval_end: Some(after(-3600)),
        conf: map(json!({ "z": 1, "a": { "deep": [null, "\u{0} nul", 1.5e300] } })),
        params: map(json!({ "country": "kr", "n": 9007199254740993_i64 })),
        note: Some("by hand".to_owned()),
        max_active_tasks: 3,
        ..manual_run(&dag, "r")
    };
    let pk = bed.insert_run(&new).await;
    let row = bed.run_by_pk(pk).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.run_type, row.version),
        (RunState::Queued, RunType::Backfill, dag.pk)
    );
    assert_eq!(
        (&row.conf, &row.params, &row.note),
        (&new.conf, &new.params, &new.note)
    );
    assert_eq!(
        row.conf.keys().collect::<Vec<_>>(),
        ["z", "a"],
        "the order of keys is the user's"
    );
    assert_eq!(
        (
            row.logical_date,
            row.data_interval_start,
            row.data_interval_end
        ),
        (
            new.logical_date,
            new.data_interval_start,
            new.data_interval_end
        )
    );
    assert_eq!(
        (
            row.run_after,
            row.triggered_by.as_str(),
            row.max_active_tasks
        ),
        (new.run_after, "cli", 3)
    );
    assert_eq!(
        (
            row.started_at,
            row.ended_at,
            row.cancelled,
            row.stop_reason.as_deref()
        ),
        (None, None, false, None)
    );
    assert_eq!(
        (
            row.active_tasks,
            row.ready_tasks,
            row.unfinished_tasks,
            row.failed_leaves
        ),
        (0, 0, 0, 0)
    );
    assert!((row.queued_at - after(0)).abs() < chrono::TimeDelta::seconds(5));
}

pub async fn runs_asked_for_together_are_each_answered<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let earlier = bed.insert_run(&manual_run(&dag, "taken")).await;
    let ask = |run_id: &str, key: Option<(&str, &str)>| Trigger {
        run: NewRun {
            idempotency: key.map(|(key, hash)| (key.to_owned(), hash.to_owned())),
            ..manual_run(&dag, run_id)
        },
        audit: Some(AuditRow {
            at: after(0),
            actor: "ada".to_owned(),
            event: "trigger".to_owned(),
            dag_id: Some("d".to_owned()),
            run_id: Some(run_id.to_owned()),
            task_id: None,
            extra: Value::Null,
        }),
    };
    let asked = [
        ask("a", None),
        ask("taken", None),
        ask("b", Some(("key", "one"))),
        ask("c", Some(("key", "one"))),
        ask("d", Some(("key", "two"))),
        ask("a", None),
    ];
    let answers = bed.trigger(&asked).await.unwrap();
    let [Ok(a), Err(taken), Ok(b), Ok(c), Err(used), Err(twice)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert!(matches!(a, Triggered::Accepted { run, .. } if *run > earlier));
    assert!(matches!(taken, StoreError::Exists { .. }), "{taken}");
    assert!(matches!(b, Triggered::Accepted { .. }));
    assert_eq!(*c, Triggered::Repeated { run: b.run() });
    assert!(matches!(used, StoreError::Refused(_)), "{used}");
    assert!(matches!(twice, StoreError::Exists { .. }), "{twice}");
    let rows = bed.runs_by_pk(&[a.run(), b.run()]).await.unwrap();
    let Triggered::Accepted { run, at } = *a else {
        unreachable!()
    };
    assert!(
        rows.contains(&asked[0].run.clone().accepted(run, at)),
        "{rows:?}"
    );
    assert_eq!(bed.run("d", "c").await.unwrap(), None);
    assert_eq!(bed.run("d", "d").await.unwrap(), None);
    // Only what was made is in the audit log.
    let audit = bed.audit(10, 0).await.unwrap();
    let made: Vec<_> = audit.rows.iter().map(|e| e.run_id.as_deref()).collect();
    assert_eq!(made, [Some("b"), Some("a")]);
    // The same again, later: nothing is made.
    let again = bed.trigger(&asked[2..4]).await.unwrap();
    for answer in again {
        assert_eq!(answer.unwrap(), Triggered::Repeated { run: b.run() });
    }
    assert_eq!(bed.audit(10, 0).await.unwrap().total, 2);
}

pub async fn idempotency_keys_are_remembered<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let (dag, other) = (bed.dag("d").await, bed.dag("e").await);
    let keyed = |run_id: &str| NewRun {
        idempotency: Some(("key".to_owned(), "hash".to_owned())),
        ..manual_run(&dag, run_id)
    };
    let run = bed.insert_run(&keyed("a")).await;
    let mut tx = bed.tx().await;
    let known = tx.run_by_idempotency_key("d", "key").await.unwrap();
    assert_eq!(known, Some((run, "hash".to_owned())));
    assert_eq!(tx.run_by_idempotency_key("d", "other").await.unwrap(), None);
    assert_eq!(tx.run_by_idempotency_key("e", "key").await.unwrap(), None);
    drop(tx);
    // The loser of two requests at once makes no run.
    let mut tx = bed.tx().await;
    assert!(tx.insert_run(&keyed("b")).await.is_err());
    drop(tx);
    assert_eq!(bed.run("d", "b").await.unwrap(), None);
    bed.insert_run(&NewRun {
        idempotency: keyed("x").idempotency,
        ..manual_run(&other, "a")
    })
    .await;
}

pub async fn runs_are_locked_in_order<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let a = bed.insert_run(&manual_run(&dag, "a")).await;
    let b = bed.insert_run(&manual_run(&dag, "b")).await;
    let mut tx = bed.tx().await;
    let locked: Vec<RunPk> = tx
        .lock_runs(&[b, RunPk(b.0 + 1000), a, b])
        .await
        .unwrap()
        .iter()
        .map(|r| r.pk)
        .collect();
    assert_eq!(locked, [a, b]);
    assert!(tx.lock_runs(&[]).await.unwrap().is_empty());
}

pub async fn runs_locked_in_any_order_do_not_deadlock<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let mut runs = Vec::new();
    for n in 0..6 {
        runs.push(bed.insert_run(&manual_run(&dag, &format!("r{n}"))).await);
    }
    let tasks = (0..12).map(|n| {
        let (bed, mut runs) = (bed.clone(), runs.clone());
        runs.rotate_left(n % 6);
        if n % 2 == 0 {
            runs.reverse();
        }
        tokio::spawn(async move {
            for _ in 0..5 {
                let mut tx = bed.tx().await;
                let mut rows = tx.lock_runs(&runs).await.unwrap();
                // Written in another order than locked.
                rows.rotate_left(n % 6);
                for row in &mut rows {
                    row.unfinished_tasks += 1;
                }
                tx.update_runs(&rows).await.unwrap();
                tx.commit().await.unwrap();
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    for run in runs {
        assert_eq!(
            bed.run_by_pk(run).await.unwrap().unwrap().unfinished_tasks,
            60,
            "no update was lost"
        );
    }
}

pub async fn all_mutable_columns_are_written<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (a, b) = (
        bed.insert_run(&manual_run(&dag, "a")).await,
        bed.insert_run(&manual_run(&dag, "b")).await,
    );
    let mut tx = bed.tx().await;
    let mut rows = tx.lock_runs(&[a, b]).await.unwrap();
    let row = &mut rows[0];
    row.state = RunState::Failed;
    row.started_at = Some(after(-60));
    row.ended_at = Some(after(-1));
    row.note = Some("why".to_owned());
    row.cancelled = true;
    row.stop_reason = Some("cancelled by ada".to_owned());
    row.clean_up = Some("cancelled by ada".to_owned());
    (
        row.max_active_tasks,
        row.active_tasks,
        row.ready_tasks,
        row.unfinished_tasks,
        row.failed_leaves,
    ) = (8, 7, 6, 5, 4);
    rows[1].state = RunState::Running;
    rows[1].started_at = Some(after(-5));
    tx.update_runs(&rows).await.unwrap();
    tx.update_runs(&[]).await.unwrap();
    tx.commit().await.unwrap();
    for row in &rows {
        assert_eq!(bed.run_by_pk(row.pk).await.unwrap().as_ref(), Some(row));
    }
    // Nothing else is left: from now on its teardowns run.
    let ends = bed.edit_run(a, |run| run.stop_reason = None).await;
    assert_eq!(ends.clean_up.as_deref(), Some("cancelled by ada"));
    let cleared = bed.edit_run(a, |run| run.clean_up = None).await;
    assert_eq!(bed.run_by_pk(a).await.unwrap(), Some(cleared));
}

pub async fn runs_to_stop_are_found<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let mut runs = Vec::new();
    for (run_id, timeout_ms) in [
        ("asked", None),
        ("nothing left", None),
        ("late", Some(30_000)),
        ("in time", Some(3_600_000)),
        ("going on", None),
        ("queued", Some(1)),
    ] {
        let new = NewRun {
            timeout_ms,
            ..manual_run(&dag, run_id)
        };
        let run = bed.insert_run(&new).await;
        runs.push(run);
        if run_id == "queued" {
            continue;
        }
        bed.edit_run(run, |r| {
            r.state = RunState::Running;
            r.started_at = Some(after(-60));
            r.unfinished_tasks = if run_id == "nothing left" { 0 } else { 2 };
            if ["asked", "nothing left"].contains(&run_id) {
                r.stop_reason = Some("cancelled".to_owned());
            }
        })
        .await;
    }
    let mut found = bed.tx().await.runs_to_stop(10).await.unwrap();
    found.sort();
    assert_eq!(found, [runs[0], runs[2]]);
    assert_eq!(bed.tx().await.runs_to_stop(1).await.unwrap().len(), 1);
}

pub async fn a_dropped_transaction_leaves_nothing<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let mut tx = bed.tx().await;
    let run = tx.insert_run(&manual_run(&dag, "r")).await.unwrap();
    assert_eq!(
        tx.lock_runs(&[run]).await.unwrap().len(),
        1,
        "it sees its own writes"
    );
    drop(tx);
    assert_eq!(bed.run("d", "r").await.unwrap(), None);
    let again = bed.insert_run(&manual_run(&dag, "r")).await;
    assert_eq!(bed.run("d", "r").await.unwrap().unwrap().pk, again);
}

pub async fn inserting_and_ending_wake_waiters<B: Backend>(store: B) {
    const LONG: Duration = Duration::from_secs(20);
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    // What happened so far; a wake without cause is allowed, hence until one waits its time out.
    loop {
        let asked = Instant::now();
        bed.run_changed(bed.run_changes(), Duration::from_millis(300))
            .await;
        if asked.elapsed() >= Duration::from_millis(300) {
            break;
        }
    }
    let woken = |what: &'static str,
                 change: std::pin::Pin<Box<dyn Future<Output = RunPk> + Send>>| {
        let bed = bed.clone();
        async move {
            let seen = bed.run_changes();
            // One who waits already, and one who comes late with an old cursor.
            let early = bed.clone();
            let waits = tokio::spawn(async move {
                let asked = Instant::now();
                early.run_changed(seen, LONG).await;
                asked.elapsed()
            });
            let run = change.await;
            assert!(waits.await.unwrap() < LONG, "{what} wakes nobody");
            let asked = Instant::now();
            bed.run_changed(seen, LONG).await;
            assert!(asked.elapsed() < LONG, "{what} was missed");
            run
        }
    };
    let (inserting, new) = (bed.clone(), manual_run(&dag, "r"));
    let run = woken(
        "a new run",
        Box::pin(async move { inserting.insert_run(&new).await }),
    )
    .await;
    let ending = bed.clone();
    woken(
        "an ended run",
        Box::pin(async move {
            ending.end_run(run, after(0)).await;
            run
        }),
    )
    .await;
}
