//! Schedules whose next run depends on how the runs before went.

use super::bed::{Bed, after, manual_run};
use crate::{Applied, Backend, DispatchContext, NewDagVersion, Reads, Store};
use gristmill_common::{
    dagfile,
    engine::Command,
    ids::RunPk,
    message::{Ending, Finished},
    row::{OutboxRow, RunRow},
    spec::DagSpec,
    state::RunState,
};
use std::{sync::Arc, time::Duration};

pub(super) fn context() -> DispatchContext {
    DispatchContext {
        epoch: Some(1),
        claim_window: Duration::from_secs(60),
        batch: 500,
        plans: Arc::default(),
        published: Arc::default(),
        token: Arc::new(|_| "token".to_owned()),
    }
}

pub(super) fn ended(row: &OutboxRow, ending: Ending) -> Command {
    Command::Finished(Box::new(Finished {
        run: row.run,
        dispatch: row.dispatch,
        worker: "w".to_owned(),
        hostname: "h".to_owned(),
        started_at: after(-1),
        ended_at: after(0),
        ending,
        exit_code: Some(0),
        pid: Some(1),
        reason: None,
        xcoms: Vec::new(),
    }))
}

/// A DAG file, deployed as the API does it.
pub(super) async fn deployed<B: Backend>(bed: &Bed<B>, file: &str) -> crate::VersionRow {
    let spec: DagSpec = dagfile::parse("d.yaml", file).unwrap().spec;
    let new = NewDagVersion {
        spec_hash: dagfile::spec_hash(&spec),
        source: file.to_owned(),
        fileloc: "dags/d.yaml".to_owned(),
        bundle: None,
        schedule: spec.schedule.text(),
        spec,
    };
    Store::deploy(&**bed, &new).await.unwrap().0
}

pub(super) async fn runs<B: Backend>(bed: &Bed<B>, dag_id: &str) -> Vec<RunRow> {
    let filter = crate::RunFilter {
        dag_id: Some(dag_id.to_owned()),
        limit: 100,
        ..crate::RunFilter::default()
    };
    let mut rows = bed.runs(&filter).await.unwrap().rows;
    rows.reverse();
    rows
}

/// Makes the DAG's next scheduled run due.
async fn make_due<B: Backend>(bed: &Bed<B>, dag_id: &str) {
    bed.edit_dag(dag_id, |dag| {
        dag.next_run_after = Some(after(-1));
        dag.next_logical_date = dag.next_logical_date.map(|_| after(-3600));
    })
    .await;
    assert_eq!(bed.create_due_runs().await.unwrap(), 1);
}

pub async fn a_continuous_dag_runs_again_when_its_run_has_ended<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let version = deployed(
        &bed,
        "dag_id: d\nschedule: '@continuous'\ntasks: {t: {noop: }}",
    )
    .await;
    let next = async || {
        let dag = Reads::dag(&*bed, "d").await.unwrap().unwrap();
        dag.next_run_after
    };
    let first = Reads::dag(&*bed, "d").await.unwrap().unwrap();
    assert!(first.next_run_after > first.next_logical_date, "due soon");
    make_due(&bed, "d").await;
    assert_eq!(next().await, None, "no other beside it");
    // Whatever else happens to the DAG meanwhile.
    deployed(
        &bed,
        "dag_id: d\nschedule: '@continuous'\ntasks: {u: {noop: }}",
    )
    .await;
    assert_eq!(next().await, None);
    let by_hand = bed.insert_run(&manual_run(&version, "by hand")).await;
    let out = bed.start_runs(&context).await.unwrap().outbox;
    let (manual, scheduled): (Vec<_>, Vec<_>) = out.iter().partition(|row| row.run == by_hand);
    bed.apply(&[ended(manual[0], Ending::Success)], &[], &context)
        .await
        .unwrap();
    assert_eq!(
        next().await,
        None,
        "a run by hand has nothing to do with it"
    );
    bed.apply(&[ended(scheduled[0], Ending::FailedForGood)], &[], &context)
        .await
        .unwrap();
    let due = next().await.unwrap();
    make_due(&bed, "d").await;
    let scheduled: Vec<RunRow> = runs(&bed, "d").await;
    let (first, second) = (&scheduled[0], &scheduled[2]);
    assert!(due > first.run_after);
    assert_ne!(first.logical_date, second.logical_date);
    // One that ends before it starts is followed by another, too.
    let stop = Command::StopRun {
        run: second.pk,
        cancelled: true,
        reason: "by hand".to_owned(),
    };
    assert_eq!(next().await, None);
    bed.apply(&[stop], &[], &context).await.unwrap();
    assert!(next().await.is_some());
}

pub async fn a_dag_that_fails_in_a_row_is_paused<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let file = "dag_id: d\nmax_consecutive_failed_dag_runs: 2\ntasks: {t: {noop: }}";
    let version = deployed(&bed, file).await;
    let mut n = 0;
    let mut run = async |ending: Option<Ending>| {
        n += 1;
        let run = bed
            .insert_run(&manual_run(&version, &format!("r{n}")))
            .await;
        let out = bed.start_runs(&context).await.unwrap().outbox;
        let commands = match ending {
            Some(ending) => vec![ended(&out[0], ending)],
            None => vec![
                Command::StopRun {
                    run,
                    cancelled: true,
                    reason: "by hand".to_owned(),
                },
                ended(&out[0], Ending::FailedForGood),
            ],
        };
        bed.apply(&commands, &[], &context).await.unwrap();
        let dag = Reads::dag(&*bed, "d").await.unwrap().unwrap();
        assert_eq!(dag.is_paused, dag.pause_reason.is_some());
        dag.pause_reason
    };
    let failed = || Some(Ending::FailedForGood);
    assert_eq!(run(failed()).await, None);
    assert_eq!(run(Some(Ending::Success)).await, None, "one between");
    assert_eq!(run(failed()).await, None);
    assert_eq!(run(None).await, None, "a cancelled one does not count");
    let reason = run(failed()).await.unwrap();
    assert!(reason.contains("last 2 runs failed"), "{reason}");
    let audit = bed.audit(10, 0).await.unwrap().rows;
    assert!(audit.iter().any(|entry| entry.event == "dag_paused"));

    let dag = bed.set_paused("d", false).await.unwrap();
    assert_eq!(dag.pause_reason, None);
    assert_eq!(run(failed()).await, None, "it has all its tries again");
    assert!(run(failed()).await.is_some());
    let dag = bed.set_paused("d", true).await.unwrap();
    assert_eq!(dag.pause_reason, None, "now a user did it");
}

pub async fn overlap_skip_makes_no_run_beside_an_active_one<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let file =
        "dag_id: d\nschedule: every 1h\nmax_active_runs: 1\noverlap: skip\ntasks: {t: {noop: }}";
    deployed(&bed, file).await;
    make_due(&bed, "d").await;
    let out = bed.start_runs(&context).await.unwrap().outbox;
    let planned = Reads::dag(&*bed, "d")
        .await
        .unwrap()
        .unwrap()
        .next_run_after;
    make_due(&bed, "d").await;
    assert_eq!(runs(&bed, "d").await.len(), 1);
    let dag = Reads::dag(&*bed, "d").await.unwrap().unwrap();
    assert!(dag.next_run_after >= planned, "time goes on");
    let audit = bed.audit(10, 0).await.unwrap().rows;
    assert_eq!(audit[0].event, "scheduled_run_skipped");
    bed.apply(&[ended(&out[0], Ending::Success)], &[], &context)
        .await
        .unwrap();
    make_due(&bed, "d").await;
    assert_eq!(runs(&bed, "d").await.len(), 2);
}

pub async fn overlap_cancel_stops_the_oldest<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let file =
        "dag_id: d\nschedule: every 1h\nmax_active_runs: 2\noverlap: cancel\ntasks: {t: {noop: }}";
    let version = deployed(&bed, file).await;
    let look = async || bed.to_do(Duration::ZERO).await.unwrap().overlaps;
    let oldest = bed.insert_run(&manual_run(&version, "by hand")).await;
    make_due(&bed, "d").await;
    let out = bed.start_runs(&context).await.unwrap().outbox;
    assert_eq!(out.len(), 2);
    assert!(!look().await);
    let stop = async || -> Applied { bed.stop_overlapped_runs(&context).await.unwrap() };
    assert_eq!(stop().await.touched, 0, "nobody waits");

    make_due(&bed, "d").await;
    assert!(look().await);
    assert_eq!(bed.start_runs(&context).await.unwrap().touched, 0);
    let stopped = stop().await;
    assert_eq!(stopped.touched, 1);
    assert_eq!(stopped.to_cancel.len(), 1, "its task is to be cancelled");
    assert_eq!(stopped.to_cancel[0].run, oldest);
    assert_eq!(stop().await.touched, 0, "it is being stopped");
    // The proof of its end, and the place is free.
    let of_oldest = out.iter().find(|row| row.run == oldest).unwrap();
    bed.apply(&[ended(of_oldest, Ending::FailedForGood)], &[], &context)
        .await
        .unwrap();
    assert_eq!(bed.start_runs(&context).await.unwrap().touched, 1);
    assert!(!look().await);
    let state_of = async |run: RunPk| {
        let row = bed.run_by_pk(run).await.unwrap().unwrap();
        (row.state, row.cancelled, row.stop_reason)
    };
    let (state, cancelled, reason) = state_of(oldest).await;
    assert_eq!((state, cancelled), (RunState::Failed, true));
    assert!(reason.unwrap().contains("overlap: cancel"));

    // Three more at once: the newest two are left, and what never started is cancelled without having run.
    for _ in 0..3 {
        make_due(&bed, "d").await;
    }
    assert_eq!(stop().await.touched, 3);
    let rows = runs(&bed, "d").await;
    let going_on = rows
        .iter()
        .filter(|run| !run.state.is_finished() && run.stop_reason.is_none());
    let going_on: Vec<RunPk> = going_on.map(|run| run.pk).collect();
    let newest: Vec<RunPk> = rows.iter().rev().take(2).rev().map(|run| run.pk).collect();
    assert_eq!(going_on, newest);
}
