//! What the reconcilers look for.

use super::bed::{Bed, after, make_queued, make_running, manual_run, ready_ti};
use crate::{
    Backend, Judgement, NewRun, OutDispatch, Store, StoreError, ToDo, Tx, WorkerRow, WorkerState,
};
use gristmill_common::{
    ids::{Dispatch, Fence, RunPk, TiPk},
    row::TiRow,
    state::{RunState, TaskState},
};
use std::time::Duration;
use uuid::Uuid;

const ANY: RunPk = RunPk(0);

fn keys(found: Vec<OutDispatch>) -> Vec<TiPk> {
    let mut keys: Vec<TiPk> = found.into_iter().map(|d| d.dispatch.ti).collect();
    keys.sort();
    keys
}

fn mapped(map_index: i32, edit: impl Fn(&mut TiRow)) -> TiRow {
    let mut ti = TiRow {
        map_index,
        ..ready_ti(ANY, 0)
    };
    edit(&mut ti);
    ti
}

pub async fn unclaimed_dispatches_are_found<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let tis = vec![
        mapped(0, |ti| make_queued(ti, after(-30))),
        mapped(1, |ti| make_queued(ti, after(-60))),
        mapped(2, |ti| make_queued(ti, after(60))),
        mapped(3, |ti| {
            make_running(ti, "w");
            ti.claim_by = Some(after(-60));
        }),
    ];
    let (run, tis) = bed.running(&dag, "r", tis).await;
    let found = bed.unclaimed(Duration::from_secs(5), 10).await.unwrap();
    assert_eq!(
        found.iter().map(|d| d.dispatch.ti).collect::<Vec<_>>(),
        [tis[1], tis[0]]
    );
    assert_eq!(
        (found[0].run, found[0].dispatch.fence, found[0].state),
        (run, Fence(1), TaskState::Queued)
    );
    assert_eq!(
        keys(bed.unclaimed(Duration::from_secs(45), 10).await.unwrap()),
        [tis[1]]
    );
    assert_eq!(
        keys(bed.unclaimed(Duration::ZERO, 1).await.unwrap()),
        [tis[1]]
    );
}

pub async fn a_bounced_dispatch_expires<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let tis = vec![
        mapped(0, |ti| make_queued(ti, after(3600))),
        mapped(1, |ti| make_queued(ti, after(3600))),
        mapped(2, |ti| make_running(ti, "w")),
    ];
    let (_, tis) = bed.running(&dag, "r", tis).await;
    let dispatch = |n: usize, fence| Dispatch {
        ti: tis[n],
        fence: Fence(fence),
    };
    bed.expire_claim(&[dispatch(0, 1), dispatch(1, 7), dispatch(2, 1)])
        .await
        .unwrap();
    bed.expire_claim(&[]).await.unwrap();
    let now = bed.ping().await.unwrap() + chrono::TimeDelta::seconds(2);
    assert!(bed.load(tis[0]).await.claim_by.unwrap() <= now);
    assert!(
        bed.load(tis[1]).await.claim_by.unwrap() > now,
        "another fence"
    );
    assert_eq!(bed.load(tis[2]).await.state, TaskState::Running);
}

pub async fn dispatches_are_found_by_worker<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let tis = || {
        vec![
            mapped(0, |ti| make_running(ti, "w1")),
            mapped(1, |ti| make_running(ti, "w2")),
            mapped(2, |ti| make_queued(ti, after(60))),
            mapped(3, |_| {}),
            mapped(4, |ti| {
                make_running(ti, "w3");
                (ti.state, ti.ended_at, ti.occupies) = (TaskState::Success, Some(after(0)), false);
            }),
        ]
    };
    let (first, a) = bed.running(&dag, "a", tis()).await;
    let (_, b) = bed.running(&dag, "b", tis()).await;
    assert_eq!(
        keys(bed.out_dispatches(Some("w1")).await.unwrap()),
        [a[0], b[0]]
    );
    assert_eq!(keys(bed.out_dispatches(Some("w3")).await.unwrap()), []);
    assert_eq!(
        keys(bed.out_dispatches(None).await.unwrap()),
        [a[0], a[1], a[2], b[0], b[1], b[2]]
    );
    let in_run = bed.out_in_run(first).await.unwrap();
    let w1 = in_run.iter().find(|d| d.dispatch.ti == a[0]).unwrap();
    assert_eq!(
        (w1.state, w1.worker.as_deref()),
        (TaskState::Running, Some("w1"))
    );
    assert_eq!(keys(in_run), [a[0], a[1], a[2]]);
    let mut busy: Vec<String> = bed
        .busy_workers()
        .await
        .unwrap()
        .into_iter()
        .map(|w| w.incarnation)
        .collect();
    busy.sort();
    assert_eq!(busy, ["w1", "w2"]);
}

pub async fn workers_are_locked_and_written<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let leased = || bed.leased_over_broker(Duration::from_secs(60));
    let mut tx = bed.tx().await;
    let fresh = tx.lock_worker("w1").await.unwrap();
    let alive = WorkerRow {
        incarnation: "w1".to_owned(),
        state: WorkerState::Alive,
        held_until: None,
    };
    assert_eq!(fresh, alive);
    for (held_until, holds) in [(-120, false), (-30, true), (30, true)] {
        let worker = WorkerRow {
            held_until: Some(after(held_until)),
            ..alive.clone()
        };
        tx.update_worker(&worker).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(leased().await.unwrap(), holds, "until {held_until} s");
        tx = bed.tx().await;
        tx.lock_worker("w1").await.unwrap();
    }
    drop(tx);
    // 30 s of its lease are left; later only the database's clock says that it is over.
    assert_eq!(bed.judge_lost("w1").await.unwrap(), Judgement::Holds);
    assert_eq!(bed.judge_lost("w2").await.unwrap(), Judgement::Lost);
    assert_eq!(bed.judge_lost("w2").await.unwrap(), Judgement::Lost);
    tx = bed.tx().await;
    tx.lock_worker("w1").await.unwrap();
    let past = WorkerRow {
        held_until: Some(after(-30)),
        ..alive.clone()
    };
    tx.update_worker(&past).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        bed.judge_lost("w1").await.unwrap(),
        Judgement::LostAfterGrants
    );
    tx = bed.tx().await;
    tx.lock_worker("w1").await.unwrap();
    let lost = WorkerRow {
        state: WorkerState::Lost,
        held_until: Some(after(30)),
        ..alive.clone()
    };
    tx.update_worker(&lost).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!leased().await.unwrap(), "a lost worker's lease is over");
    let mut tx = bed.tx().await;
    assert_eq!(tx.lock_worker("w1").await.unwrap(), lost);
    let unknown = WorkerRow {
        incarnation: "none".to_owned(),
        ..alive
    };
    let missing = tx.update_worker(&unknown).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");
    drop(tx);
    let dag = bed.dag("d").await;
    bed.running(&dag, "r", vec![mapped(0, |ti| make_running(ti, "w1"))])
        .await;
    assert_eq!(bed.busy_workers().await.unwrap(), [lost]);
}

pub async fn barriers_count_shards_once<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let (barrier, other) = (Uuid::now_v7(), Uuid::now_v7());
    assert_eq!(bed.barrier_applied(barrier).await.unwrap(), 0);
    for (id, shard) in [(barrier, 0), (barrier, 3), (barrier, 0), (other, 1)] {
        let mut tx = bed.tx().await;
        tx.apply_barrier(id, shard).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(bed.barrier_applied(barrier).await.unwrap(), 2);
}

pub async fn a_look_finds_what_there_is_to_do<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let look = async || bed.to_do(Duration::ZERO).await.unwrap();
    assert_eq!(look().await, ToDo::default());
    bed.edit_dag("d", |dag| dag.next_run_after = Some(after(-1)))
        .await;
    let expected = ToDo {
        due_dags: true,
        ..ToDo::default()
    };
    assert_eq!(look().await, expected);
    bed.edit_dag("d", |dag| {
        dag.next_run_after = Some(after(60));
        dag.is_paused = false;
    })
    .await;
    assert_eq!(look().await, ToDo::default());

    let later = NewRun {
        run_after: after(60),
        ..manual_run(&dag, "later")
    };
    bed.insert_run(&later).await;
    assert_eq!(look().await, ToDo::default());
    let queued = bed.insert_run(&manual_run(&dag, "queued")).await;
    let expected = ToDo {
        queued_runs: true,
        ..ToDo::default()
    };
    assert_eq!(look().await, expected);
    bed.edit_run(queued, |run| {
        run.state = RunState::Failed;
        run.ended_at = Some(after(-1));
    })
    .await;

    let (run, tis) = bed.running(&dag, "r", vec![mapped(0, |_| {})]).await;
    let expected = ToDo {
        ready: true,
        ..ToDo::default()
    };
    assert_eq!(look().await, expected);
    bed.edit_run(run, |run| run.stop_reason = Some("cancelled".to_owned()))
        .await;
    let expected = ToDo {
        runs_to_stop: true,
        ..ToDo::default()
    };
    assert_eq!(look().await, expected);
    bed.edit_run(run, |run| {
        run.stop_reason = None;
        run.ready_tasks = 0;
    })
    .await;
    bed.edit_ti(tis[0], |ti| make_queued(ti, after(60))).await;
    assert_eq!(look().await, ToDo::default());
    bed.edit_ti(tis[0], |ti| ti.claim_by = Some(after(-1)))
        .await;
    let expected = ToDo {
        unclaimed: true,
        ..ToDo::default()
    };
    assert_eq!(look().await, expected);
    bed.edit_ti(tis[0], |ti| {
        ti.state = TaskState::UpForRetry;
        ti.next_at = Some(after(-1));
    })
    .await;
    let expected = ToDo {
        retries: true,
        ..ToDo::default()
    };
    assert_eq!(look().await, expected);
    bed.edit_ti(tis[0], |ti| make_queued(ti, after(60))).await;
    bed.edit_ti(tis[0], |ti| ti.state = TaskState::Restarting)
        .await;
    let expected = ToDo {
        restarting: true,
        ..ToDo::default()
    };
    assert_eq!(look().await, expected);
    let out = bed.restarting(10).await.unwrap();
    assert_eq!(out[0].dispatch.ti, tis[0]);
    assert_eq!(bed.out_dispatches(None).await.unwrap(), out);
    // Halted before its start was heard of, it may be late like a queued one.
    assert!(bed.unclaimed(Duration::ZERO, 10).await.unwrap().is_empty());
    bed.edit_ti(tis[0], |ti| ti.claim_by = Some(after(-1)))
        .await;
    assert_eq!(bed.unclaimed(Duration::ZERO, 10).await.unwrap().len(), 1);
    bed.edit_ti(tis[0], |ti| ti.worker = Some("w".to_owned()))
        .await;
    assert!(bed.unclaimed(Duration::ZERO, 10).await.unwrap().is_empty());
    assert_eq!(bed.busy_workers().await.unwrap()[0].incarnation, "w");
}
