//! Tasks that wait for the run before: whole transactions on a real database.

use super::{
    bed::{Bed, after, manual_run},
    schedules::{context, deployed, ended},
};
use crate::{
    Amend, Applied, Backend, Change, DispatchContext, NewBackfill, NewRun, Store, StoreError,
    TiFilter, VersionRow, WaitTx,
};
use gristmill_common::{
    engine::Selection,
    ids::RunPk,
    message::Ending,
    row::{RunType, TiRow},
    state::{RunState, TaskState},
};

const HOUR: i64 = 3600;

/// A run whose logical date is so many hours from now.
fn dated(version: &VersionRow, run_id: &str, hours: i64, run_type: RunType) -> NewRun {
    NewRun {
        logical_date: Some(after(hours * HOUR)),
        run_type,
        ..manual_run(version, run_id)
    }
}

impl<B: Backend> Bed<B> {
    async fn instance(&self, run: RunPk, task_id: &str) -> TiRow {
        let filter = TiFilter {
            run: Some(run),
            task_id: Some(task_id.to_owned()),
            limit: 10,
            ..TiFilter::default()
        };
        self.task_instances(&filter).await.unwrap().rows.remove(0)
    }

    /// Ends a task that was dispatched.
    async fn ends(&self, out: &mut Applied, run: RunPk, ending: Ending, context: &DispatchContext) {
        let at = out.outbox.iter().position(|row| row.run == run).unwrap();
        let row = out.outbox.remove(at);
        let applied = self.apply(&[ended(&row, ending)], &[], context).await;
        out.extend(applied.unwrap());
        out.extend(self.dispatch_ready(context).await.unwrap());
    }
}

pub async fn the_run_before_and_those_after_are_found_by_date<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let (dag, other) = (bed.dag("d").await, bed.dag("e").await);
    let first = bed
        .insert_run(&dated(&dag, "first", -9, RunType::Scheduled))
        .await;
    let last = bed
        .insert_run(&dated(&dag, "last", -1, RunType::Scheduled))
        .await;
    // By date, not in the order in which they were made.
    let manual = bed
        .insert_run(&dated(&dag, "manual", -5, RunType::Manual))
        .await;
    let elsewhere = bed
        .insert_run(&dated(&other, "other", -3, RunType::Manual))
        .await;
    let undated = bed.insert_run(&manual_run(&dag, "undated")).await;
    bed.edit_run(first, |row| row.started_at = Some(after(-5)))
        .await;
    let mut tx = bed.tx().await;
    let asked = [
        (last, false),
        (last, true),
        (manual, false),
        (first, false),
        (undated, false),
        (elsewhere, false),
    ];
    let found = tx.runs_before(&asked).await.unwrap();
    let runs: Vec<_> = found
        .iter()
        .map(|run| run.as_ref().map(|run| run.run))
        .collect();
    assert_eq!(
        runs,
        [Some(manual), Some(first), Some(first), None, None, None]
    );
    let before = found[1].as_ref().unwrap();
    assert_eq!(
        (before.run_id.as_str(), before.version, before.has_started),
        ("first", dag.pk, true)
    );
    assert!(!found[0].as_ref().unwrap().has_started);
    assert_eq!(tx.runs_after(&[(first, false)]).await.unwrap(), [manual]);
    let both = tx.runs_after(&[(first, true), (manual, false)]).await;
    assert_eq!(both.unwrap(), [last, manual]);
    assert_eq!(
        tx.runs_after(&[(last, false), (undated, true)])
            .await
            .unwrap(),
        []
    );
    drop(tx);
    bed.end_run(manual, after(0)).await;
    let mut tx = bed.tx().await;
    assert_eq!(tx.runs_after(&[(first, false)]).await.unwrap(), []);
}

pub async fn a_task_waits_for_the_run_before<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let file = "
dag_id: d
tasks:
  load: {noop: {}, depends_on_past: true}
";
    let dag = deployed(&bed, file).await;
    let mut runs = Vec::new();
    for (run_id, hours) in [("r1", -3), ("r2", -2), ("r3", -1)] {
        let run = dated(&dag, run_id, hours, RunType::Scheduled);
        runs.push(bed.insert_run(&run).await);
    }
    let mut out = bed.start_runs(&context).await.unwrap();
    assert_eq!(out.outbox.len(), 1, "only the first may go");
    bed.ends(&mut out, runs[0], Ending::Failed, &context).await;
    assert_eq!(out.outbox.len(), 0);
    let held = bed.instance(runs[1], "load").await;
    assert!(held.waits_for_past());
    let why = held.reason.unwrap();
    assert!(why.contains("r1") && why.contains("load (failed)"), "{why}");
    // It is looked at again by itself, too.
    bed.edit_ti(held.pk, |row| row.next_at = Some(after(-1)))
        .await;
    assert!(bed.to_do(std::time::Duration::ZERO).await.unwrap().waits);
    bed.look_at_waits(&context).await.unwrap();
    let looked = bed.instance(runs[1], "load").await;
    assert!(looked.waits_for_past() && looked.next_at > Some(after(10)));
    let mark = Amend {
        run: runs[0],
        change: Change::Mark(Selection::default(), TaskState::Success),
        by: "me".to_owned(),
        dry_run: false,
        refuse_running: false,
        note: None,
        list: 1,
        audit: None,
    };
    bed.amend(&mark, &context).await.unwrap();
    out.extend(bed.dispatch_ready(&context).await.unwrap());
    let ready = bed.instance(runs[1], "load").await;
    assert!(matches!(
        ready.state,
        TaskState::Scheduled | TaskState::Queued
    ));
    out.outbox = bed
        .unpublished(std::time::Duration::ZERO, 10)
        .await
        .unwrap()
        .into_iter()
        .filter(|row| row.run == runs[1])
        .collect();
    bed.ends(&mut out, runs[1], Ending::Skipped, &context).await;
    bed.ends(&mut out, runs[2], Ending::Success, &context).await;
    let row = bed.run_by_pk(runs[2]).await.unwrap().unwrap();
    assert_eq!(row.state, RunState::Success);
}

pub async fn backfills_begin_without_a_past_and_never_go_backwards<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let date = super::backfills::day;
    let file = "
dag_id: d
schedule: '@daily'
start_date: 2026-01-01
tasks:
  load: {noop: {}, wait_for_downstream: true}
  tell: {noop: {}, depends_on: [load]}
";
    let dag = deployed(&bed, file).await;
    let earlier = NewRun {
        logical_date: Some(date(0)),
        ..manual_run(&dag, "earlier")
    };
    let earlier = bed.insert_run(&earlier).await;
    bed.edit_dag("d", |dag| dag.next_run_after = None).await;
    let mut backfill = NewBackfill {
        from_date: date(1),
        run_backwards: true,
        ..super::backfills::days(4)
    };
    let refused = Store::create_backfill(&*bed, &backfill, true).await;
    let Err(StoreError::Refused(why)) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        why.contains("\"load\"") && why.contains("depends_on_past"),
        "{why}"
    );
    backfill.run_backwards = false;
    Store::create_backfill(&*bed, &backfill, false)
        .await
        .unwrap();
    let mut out = bed.start_runs(&context).await.unwrap();
    // The earlier run, and the backfill's first, which does not wait for it.
    assert_eq!(out.outbox.len(), 2);
    out.outbox.retain(|row| row.run != earlier);
    let first = out.outbox[0].run;
    bed.ends(&mut out, first, Ending::Success, &context).await;
    assert!(
        out.outbox.iter().all(|row| row.run == first),
        "its downstream first"
    );
    bed.ends(&mut out, first, Ending::Success, &context).await;
    assert!(out.outbox.iter().any(|row| row.run != first));
}
