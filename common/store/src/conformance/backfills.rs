//! Backfills.

use super::{
    bed::Bed,
    schedules::{context, deployed, ended, runs},
};
use crate::{
    Backend, BackfillFilter, BackfillPlan, LimitKey, NewBackfill, Reprocess, Store, StoreError,
};
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{
    ids::BackfillPk,
    message::Ending,
    row::{OutboxRow, RunRow, RunType},
    state::RunState,
};
use serde_json::{Map, json};

const DAILY: &str = "dag_id: d\nschedule: '@daily'\nstart_date: 2026-01-01\nmax_active_runs: 1\nparams: {n: 1}\ntasks: {t: {noop: }}";

pub(super) fn day(n: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap() + TimeDelta::days(n)
}

/// The first so many days of 2026.
pub(super) fn days(n: i64) -> NewBackfill {
    NewBackfill {
        dag_id: "d".to_owned(),
        from_date: day(0),
        to_date: day(n - 1),
        run_backwards: false,
        max_active_runs: 2,
        reprocess: Reprocess::None,
        conf: Map::new(),
    }
}

/// A deployed daily DAG whose schedule makes no runs of its own.
async fn daily<B: Backend>(store: B) -> Bed<B> {
    let bed = Bed::new(store).await;
    deployed(&bed, DAILY).await;
    bed.edit_dag("d", |dag| dag.next_run_after = None).await;
    bed
}

async fn create<B: Backend>(bed: &Bed<B>, new: &NewBackfill) -> (BackfillPk, BackfillPlan) {
    let plan = bed.create_backfill(new, false).await.unwrap();
    (plan.id.unwrap(), plan)
}

async fn finish<B: Backend>(bed: &Bed<B>, out: &[OutboxRow], ending: Ending) -> Vec<OutboxRow> {
    let commands: Vec<_> = out.iter().map(|row| ended(row, ending)).collect();
    bed.apply(&commands, &[], &context()).await.unwrap();
    bed.start_runs(&context()).await.unwrap().outbox
}

fn dates(rows: &[RunRow], state: RunState) -> Vec<DateTime<Utc>> {
    let of_state = rows.iter().filter(|run| run.state == state);
    of_state.filter_map(|run| run.logical_date).collect()
}

pub async fn runs_of_a_backfill_start_within_its_own_limit<B: Backend>(store: B) {
    let bed = daily(store).await;
    let new = NewBackfill {
        run_backwards: true,
        conf: serde_json::from_value(json!({"n": 7, "other": true})).unwrap(),
        ..days(5)
    };
    let dry = bed.create_backfill(&new, true).await.unwrap();
    assert_eq!((dry.id, dry.runs.len(), dry.left_out.len()), (None, 5, 0));
    assert!(runs(&bed, "d").await.is_empty(), "that was a dry run");
    let (id, plan) = create(&bed, &new).await;
    assert_eq!(plan.runs, dry.runs);
    assert_eq!(plan.runs[0].logical_date, day(4), "the newest first");
    let rows = runs(&bed, "d").await;
    let first = &rows[0];
    assert_eq!(
        (first.run_type, first.backfill),
        (RunType::Backfill, Some(id))
    );
    assert_eq!(first.run_id, "backfill__2026-01-05T00:00:00+00:00");
    assert_eq!(
        (first.data_interval_start, first.data_interval_end),
        (Some(day(4)), Some(day(5)))
    );
    assert_eq!(json!(first.params), json!({"n": 7}));
    assert_eq!(json!(first.conf), json!({"n": 7, "other": true}));

    // Two at one time, though the DAG allows one, and beside the DAG's own.
    let version = bed.run_by_pk(first.pk).await.unwrap().unwrap().version;
    let version = bed.version(version).await.unwrap().unwrap();
    bed.insert_run(&super::bed::manual_run(&version, "by hand"))
        .await;
    let out = bed.start_runs(&context()).await.unwrap().outbox;
    assert_eq!(out.len(), 3);
    assert_eq!(
        dates(&runs(&bed, "d").await, RunState::Running),
        [day(4), day(3)]
    );
    let mut of_backfill: Vec<OutboxRow> = out
        .into_iter()
        .filter(|row| rows.iter().any(|run| run.pk == row.run))
        .collect();
    of_backfill.sort_by_key(|row| row.run);
    let limits = [
        LimitKey::Backfill { id },
        LimitKey::DagRuns {
            dag_id: "d".to_owned(),
        },
    ];
    let used = async || -> Vec<i64> {
        let limits = bed.limits(&limits).await.unwrap();
        limits.iter().map(|limit| limit.used).collect()
    };
    let mut both = used().await;
    both.sort_unstable();
    assert_eq!(both, [1, 2]);
    let shown = bed.backfill(id).await.unwrap().unwrap();
    assert_eq!(
        (shown.queued, shown.running, shown.completed_at),
        (3, 2, None)
    );
    let out = finish(&bed, &of_backfill[..1], Ending::Success).await;
    assert_eq!(
        dates(&runs(&bed, "d").await, RunState::Running),
        [day(3), day(2)]
    );
    let out = finish(
        &bed,
        &[of_backfill[1].clone(), out[0].clone()],
        Ending::FailedForGood,
    )
    .await;
    finish(&bed, &out, Ending::Success).await;
    let shown = bed.backfill(id).await.unwrap().unwrap();
    assert_eq!((shown.success, shown.failed), (3, 2));
    assert!(shown.completed_at.is_some());
    assert_eq!(shown.reprocess, Reprocess::None);
    let limits = bed.limits(&limits[..1]).await.unwrap();
    assert_eq!((limits[0].used, limits[0].cap), (0, 2));
}

pub async fn dates_with_runs_are_left_out_or_made_again<B: Backend>(store: B) {
    let bed = daily(store).await;
    let (_, plan) = create(
        &bed,
        &NewBackfill {
            max_active_runs: 3,
            ..days(3)
        },
    )
    .await;
    assert_eq!(plan.left_out.len(), 0);
    let out = bed.start_runs(&context()).await.unwrap().outbox;
    let run_of = |row: &OutboxRow| row.run;
    let mut by_run = out.clone();
    by_run.sort_by_key(run_of);
    finish(&bed, &by_run[..1], Ending::Success).await;
    finish(&bed, &by_run[1..2], Ending::FailedForGood).await;
    // Day 0 succeeded, day 1 failed, day 2 is running.
    let made = async |reprocess| {
        let new = NewBackfill {
            reprocess,
            ..days(4)
        };
        let plan = bed.create_backfill(&new, true).await.unwrap();
        let made: Vec<_> = plan.runs.iter().map(|run| run.logical_date).collect();
        assert_eq!(made.len() + plan.left_out.len(), 4);
        made
    };
    assert_eq!(made(Reprocess::None).await, [day(3)]);
    assert_eq!(made(Reprocess::Failed).await, [day(1), day(3)]);
    assert_eq!(made(Reprocess::Completed).await, [day(0), day(1), day(3)]);
    let beside = bed.create_backfill(&days(4), false).await.unwrap_err();
    assert!(matches!(beside, StoreError::Exists { .. }), "{beside}");
    finish(&bed, &by_run[2..], Ending::Success).await;
    let again = NewBackfill {
        reprocess: Reprocess::Completed,
        ..days(4)
    };
    let (id, _) = create(&bed, &again).await;
    let rows = runs(&bed, "d").await;
    let ids: Vec<&str> = rows[3..].iter().map(|run| run.run_id.as_str()).collect();
    let other = format!("backfill__2026-01-01T00:00:00+00:00__{id}");
    assert_eq!((ids.len(), ids[0]), (4, other.as_str()));
    assert_eq!(ids[3], "backfill__2026-01-04T00:00:00+00:00");
}

pub async fn what_cannot_be_filled_in_is_refused<B: Backend>(store: B) {
    let bed = daily(store).await;
    deployed(&bed, "dag_id: by_hand\ntasks: {t: {noop: }}").await;
    deployed(
        &bed,
        "dag_id: often\nschedule: every 1m\ntasks: {t: {noop: }}",
    )
    .await;
    let refusal = async |new: NewBackfill| match bed.create_backfill(&new, false).await {
        Err(StoreError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    let of = |dag_id: &str, from_date, to_date| NewBackfill {
        dag_id: dag_id.to_owned(),
        from_date,
        to_date,
        ..days(1)
    };
    for (new, word) in [
        (of("by_hand", day(0), day(3)), "no schedule of dates"),
        (of("d", day(3), day(0)), "is after"),
        (of("d", day(100_000), day(100_001)), "no run"),
        (of("often", day(0), day(30)), "more than 10000"),
    ] {
        let why = refusal(new).await;
        assert!(why.contains(word), "{why}");
    }
    let missing = bed
        .create_backfill(&of("none", day(0), day(1)), false)
        .await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    let missing = bed.pause_backfill(BackfillPk(99), true).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    let missing = bed.cancel_backfill(BackfillPk(99)).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    assert_eq!(bed.backfill(BackfillPk(99)).await.unwrap(), None);
    assert!(runs(&bed, "d").await.is_empty());
}

pub async fn a_backfill_is_paused_and_cancelled<B: Backend>(store: B) {
    let bed = daily(store).await;
    let (id, _) = create(&bed, &days(6)).await;
    bed.pause_backfill(id, true).await.unwrap();
    assert_eq!(bed.start_runs(&context()).await.unwrap().touched, 0);
    bed.pause_backfill(id, false).await.unwrap();
    let out = bed.start_runs(&context()).await.unwrap().outbox;
    assert_eq!(out.len(), 2);
    let filter = BackfillFilter {
        active: true,
        limit: 10,
        ..BackfillFilter::default()
    };
    assert_eq!(bed.backfills(&filter).await.unwrap().total, 1);
    assert_eq!(bed.cancel_backfill(id).await.unwrap(), 4);
    assert_eq!(bed.cancel_backfill(id).await.unwrap(), 0);
    let rows = runs(&bed, "d").await;
    let cancelled = rows.iter().filter(|run| run.cancelled);
    assert!(
        cancelled
            .clone()
            .all(|run| run.state == RunState::Failed && run.ended_at.is_some())
    );
    assert_eq!(cancelled.count(), 4);
    assert_eq!(bed.start_runs(&context()).await.unwrap().touched, 0);
    let shown = bed.backfill(id).await.unwrap().unwrap();
    assert_eq!(
        (shown.running, shown.completed_at),
        (2, None),
        "what runs goes on"
    );
    finish(&bed, &out, Ending::Success).await;
    let shown = bed
        .backfills(&BackfillFilter {
            active: false,
            ..filter.clone()
        })
        .await
        .unwrap();
    assert_eq!(shown.total, 1);
    assert!(shown.rows[0].cancelled_at.is_some() && shown.rows[0].completed_at.is_some());
    assert_eq!(bed.backfills(&filter).await.unwrap().total, 0);
    bed.delete_dag("d").await.unwrap();
    assert_eq!(bed.backfill(id).await.unwrap(), None);
    assert!(
        bed.limits(&[LimitKey::Backfill { id }])
            .await
            .unwrap()
            .is_empty()
    );
}
