//! Task instances and their attempts.

use super::bed::{Bed, after, make_queued, ready_ti};
use crate::{Backend, NewTi, StoreError, TiWrite, Tx};
use futures::future::join_all;
use gristmill_common::{
    ids::{Fence, RunPk, TiPk},
    row::{AttemptRow, RunRow, SharedKey, TiRow, Wait},
    spec::Strategy,
    state::{RunState, TaskState},
    trigger_rule::Counters,
};
use serde_json::json;
use uuid::Uuid;

const ANY: RunPk = RunPk(0);

fn in_state(idx: i32, state: TaskState) -> TiRow {
    TiRow {
        state,
        ended_at: state.is_finished().then(|| after(-5)),
        ..ready_ti(ANY, idx)
    }
}

/// Every column set, none to a default.
fn full(idx: i32) -> TiRow {
    TiRow {
        map_index: 3,
        state: TaskState::Failed,
        fence: Fence(9),
        try_number: 4,
        max_tries: 5,
        user_failures: 2,
        infra_losses: 1,
        attempt: Some(Uuid::now_v7()),
        epoch: -7,
        queue: "gpu".to_owned(),
        pool: "api".to_owned(),
        pool_slots: 2,
        priority_weight: -3,
        occupies: true,
        counters: Counters {
            total: 1,
            success: 2,
            failed: 3,
            upstream_failed: 4,
            skipped: 5,
            removed: 6,
            setups: 7,
            setup_success: 8,
            setup_skipped: 9,
            setup_failed: 0,
        },
        expanded_len: Some(12),
        map_values: json!({ "z": [1], "a": null }).as_object().cloned(),
        map_name: Some("z of a".to_owned()),
        shared: Some(SharedKey {
            key: "kim/ä".to_owned(),
            limit: 3,
            strategy: Strategy::CancelNew,
        }),
        scheduled_at: Some(after(-60)),
        queued_at: Some(after(-50)),
        claim_by: Some(after(-40)),
        started_at: Some(after(-30)),
        ended_at: Some(after(-20)),
        next_at: Some(after(-10)),
        wait: Some(Wait {
            since: after(-40),
            looks: 3,
            open: true,
            run: Some(RunPk(7)),
        }),
        worker: Some("w1".to_owned()),
        hostname: Some("host".to_owned()),
        pid: Some(77),
        exit_code: Some(-9),
        reason: Some("killed, \"as told\"".to_owned()),
        ..ready_ti(ANY, idx)
    }
}

pub async fn keys_come_in_the_order_of_the_input<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (run, _) = bed.running(&dag, "r", Vec::new()).await;
    let tis: Vec<TiRow> = (0..200)
        .map(|n| TiRow {
            map_index: (n * 37) % 200,
            ..ready_ti(ANY, 0)
        })
        .collect();
    let keys = bed.insert_tis(run, tis.clone()).await;
    assert_eq!(keys.len(), 200);
    for (key, ti) in keys.iter().zip(&tis) {
        assert_eq!(
            bed.task_instance(run, "t0", ti.map_index)
                .await
                .unwrap()
                .unwrap()
                .pk,
            *key
        );
    }
    assert_eq!(bed.insert_tis(run, Vec::new()).await, []);
    // The same place in the run twice is refused.
    let mut tx = bed.tx().await;
    let twice = NewTi(TiRow {
        run,
        map_index: 5,
        ..ready_ti(ANY, 0)
    });
    assert!(tx.insert_tis(&[twice]).await.is_err());
}

pub async fn an_instance_keeps_its_columns<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (run, keys) = bed
        .running(&dag, "r", vec![full(0), ready_ti(ANY, 1)])
        .await;
    let inserted = bed.load(keys[0]).await;
    assert_eq!(
        inserted,
        TiRow {
            pk: keys[0],
            run,
            attempt: inserted.attempt,
            ..full_like(&inserted)
        }
    );
    let plain = bed.load(keys[1]).await;
    // And by an update, from a row with nothing in it to one with everything.
    let written = bed
        .edit_ti(keys[1], |ti| {
            *ti = TiRow {
                pk: ti.pk,
                run: ti.run,
                task_id: ti.task_id.clone(),
                map_index: ti.map_index,
                // What it was made with.
                queue: ti.queue.clone(),
                pool: ti.pool.clone(),
                pool_slots: ti.pool_slots,
                priority_weight: ti.priority_weight,
                map_values: ti.map_values.clone(),
                map_name: ti.map_name.clone(),
                shared: ti.shared.clone(),
                ..full(1)
            };
        })
        .await;
    assert_eq!(bed.load(keys[1]).await, written);
    let back = TiRow {
        fence: written.fence,
        ..plain
    };
    bed.edit_ti(keys[1], |ti| *ti = back.clone()).await;
    assert_eq!(bed.load(keys[1]).await, back);
}

/// [`full`] with the times of `row`: they were taken from a clock that went on.
fn full_like(row: &TiRow) -> TiRow {
    TiRow {
        scheduled_at: row.scheduled_at,
        queued_at: row.queued_at,
        claim_by: row.claim_by,
        started_at: row.started_at,
        ended_at: row.ended_at,
        next_at: row.next_at,
        wait: row.wait.clone(),
        ..full(0)
    }
}

pub async fn a_stale_write_writes_nothing<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (_, keys) = bed
        .running(&dag, "r", (0..3).map(|n| ready_ti(ANY, n)).collect())
        .await;
    let mut rows = Vec::new();
    for key in &keys {
        rows.push(bed.edit_ti(*key, |ti| make_queued(ti, after(60))).await);
    }
    let write = |row: &TiRow, expected_state, fence| TiWrite {
        row: TiRow {
            state: TaskState::Success,
            ended_at: Some(after(0)),
            ..row.clone()
        },
        expected_state,
        expected_fence: Fence(fence),
    };
    let mut tx = bed.tx().await;
    let written = tx
        .update_tis(&[
            write(&rows[0], TaskState::Queued, 0),
            write(&rows[1], TaskState::Running, 1),
            write(&rows[2], TaskState::Queued, 1),
            write(
                &TiRow {
                    pk: TiPk(keys[2].0 + 1000),
                    ..rows[2].clone()
                },
                TaskState::Queued,
                1,
            ),
        ])
        .await
        .unwrap();
    assert_eq!(written, [keys[2]]);
    assert!(tx.update_tis(&[]).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    assert_eq!(bed.load(keys[0]).await, rows[0]);
    assert_eq!(bed.load(keys[1]).await, rows[1]);
    assert_eq!(bed.load(keys[2]).await.state, TaskState::Success);
}

pub async fn one_of_fifty_writers_wins<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (_, keys) = bed.running(&dag, "r", vec![ready_ti(ANY, 0)]).await;
    let row = bed.load(keys[0]).await;
    let writers = (0..50).map(|n| {
        let (bed, mut row) = (bed.clone(), row.clone());
        tokio::spawn(async move {
            make_queued(&mut row, after(60));
            row.worker = Some(format!("w{n}"));
            let mut tx = bed.tx().await;
            let write = TiWrite {
                row,
                expected_state: TaskState::Scheduled,
                expected_fence: Fence(0),
            };
            let written = tx.update_tis(&[write]).await.unwrap().len();
            tx.commit().await.unwrap();
            (written, n)
        })
    });
    let won: Vec<i32> = join_all(writers)
        .await
        .into_iter()
        .map(Result::unwrap)
        .filter(|(n, _)| *n == 1)
        .map(|(_, n)| n)
        .collect();
    assert_eq!(won.len(), 1, "{won:?}");
    let row = bed.load(keys[0]).await;
    assert_eq!(
        (row.fence, row.worker),
        (Fence(1), Some(format!("w{}", won[0])))
    );
}

pub async fn nodes_and_unfinished_are_loaded<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let expanded = TiRow {
        expanded_len: Some(2),
        scheduled_at: None,
        ..in_state(1, TaskState::None)
    };
    let instance = |map_index, state| TiRow {
        map_index,
        ..in_state(1, state)
    };
    let tis = vec![
        ready_ti(ANY, 0),
        expanded,
        instance(0, TaskState::Scheduled),
        instance(1, TaskState::Success),
        in_state(2, TaskState::UpstreamFailed),
    ];
    let (run, keys) = bed.running(&dag, "r", tis).await;
    let (other, of_other) = bed.running(&dag, "s", vec![ready_ti(ANY, 1)]).await;
    let mut tx = bed.tx().await;
    let mut nodes: Vec<TiPk> = tx
        .load_nodes(&[(run, 1), (run, 2), (other, 1), (other, 2), (run, 1)])
        .await
        .unwrap()
        .iter()
        .map(|ti| ti.pk)
        .collect();
    nodes.sort();
    assert_eq!(nodes, [keys[1], keys[4], of_other[0]]);
    // Of an expanded task one instance, or all; the node is none of them.
    for (wanted, found) in [
        (&[(run, 1, Some(1))][..], &keys[3..4]),
        (
            &[(run, 1, None), (run, 1, Some(0)), (run, 0, None)],
            &keys[2..4],
        ),
        (&[(run, 1, Some(7)), (other, 1, None)], &[]),
        (&[], &[]),
    ] {
        let rows = tx.load_instances(wanted).await.unwrap();
        let rows: std::collections::BTreeSet<TiPk> = rows.iter().map(|ti| ti.pk).collect();
        assert_eq!(rows.into_iter().collect::<Vec<_>>(), found, "{wanted:?}");
    }
    let mut unfinished: Vec<TiPk> = tx
        .load_unfinished(run)
        .await
        .unwrap()
        .iter()
        .map(|ti| ti.pk)
        .collect();
    unfinished.sort();
    assert_eq!(
        unfinished,
        [keys[0], keys[2]],
        "ended ones and the hidden node are left out"
    );
    let mut runs = tx.runs_of(&[keys[3], of_other[0], TiPk(-1)]).await.unwrap();
    runs.sort();
    assert_eq!(runs, [(keys[3], run), (of_other[0], other)]);
    let loaded = tx.load_tis(&[keys[4], TiPk(-1), keys[0]]).await.unwrap();
    assert_eq!(loaded.len(), 2);
}

pub async fn due_retries_come_oldest_first<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let retry = |idx, map_index, due| TiRow {
        map_index,
        next_at: Some(after(due)),
        // When the attempt before ended.
        ended_at: Some(after(-90)),
        ..in_state(idx, TaskState::UpForRetry)
    };
    let tis = vec![
        retry(0, 0, -10),
        retry(0, 1, -30),
        retry(0, 2, 3600),
        ready_ti(ANY, 1),
        retry(0, 3, -20),
    ];
    let (run, keys) = bed.running(&dag, "r", tis).await;
    let mut tx = bed.tx().await;
    assert_eq!(
        tx.due_retries(10).await.unwrap(),
        [(keys[1], run), (keys[4], run), (keys[0], run)]
    );
    assert_eq!(tx.due_retries(1).await.unwrap(), [(keys[1], run)]);
}

fn attempt(ti: TiPk, try_number: i32) -> AttemptRow {
    AttemptRow {
        ti,
        try_number,
        attempt: Uuid::now_v7(),
        fence: Fence(try_number.into()),
        ending: "up_for_retry".to_owned(),
        started_at: Some(after(-9)),
        ended_at: after(-1),
        worker: Some("w1".to_owned()),
        hostname: Some("host".to_owned()),
        pid: Some(7),
        exit_code: Some(1),
        reason: Some("exit code 1".to_owned()),
    }
}

pub async fn an_attempt_ends_once<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (_, keys) = bed
        .running(&dag, "r", vec![ready_ti(ANY, 0), ready_ti(ANY, 1)])
        .await;
    let (second, first, other) = (
        attempt(keys[0], 2),
        attempt(keys[0], 1),
        attempt(keys[1], 1),
    );
    let mut tx = bed.tx().await;
    tx.insert_attempts(&[second.clone(), first.clone(), other])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        bed.attempts(keys[0]).await.unwrap(),
        [first.clone(), second.clone()]
    );
    let same_uuid = AttemptRow {
        try_number: 3,
        fence: Fence(3),
        ..first
    };
    for again in [attempt(keys[0], 2), same_uuid] {
        let mut tx = bed.tx().await;
        let refused = tx
            .insert_attempts(&[attempt(keys[1], 5), again])
            .await
            .unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt(_)), "{refused}");
    }
    assert_eq!(bed.attempts(keys[0]).await.unwrap().len(), 2);
    assert_eq!(bed.attempts(keys[1]).await.unwrap().len(), 1);
}

/// What is wrong, and how it is made so.
type Breakage<Row> = (&'static str, fn(&mut Row));

pub async fn broken_invariants_are_refused<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (run, keys) = bed.running(&dag, "r", vec![ready_ti(ANY, 0)]).await;
    let row = bed.load(keys[0]).await;
    let broken: [Breakage<TiRow>; 3] = [
        ("ended without a time", |ti| ti.state = TaskState::Success),
        ("occupies without a dispatch", |ti| ti.occupies = true),
        ("a negative fence", |ti| ti.fence = Fence(-1)),
    ];
    for (what, breaks) in broken {
        let mut broken = row.clone();
        breaks(&mut broken);
        let write = TiWrite {
            row: broken,
            expected_state: row.state,
            expected_fence: row.fence,
        };
        let mut tx = bed.tx().await;
        assert!(tx.update_tis(&[write]).await.is_err(), "{what}");
    }
    let broken: [Breakage<RunRow>; 3] = [
        ("ended without a time", |run| run.state = RunState::Success),
        ("negative active_tasks", |run| run.active_tasks = -1),
        ("negative ready_tasks", |run| run.ready_tasks = -1),
    ];
    for (what, breaks) in broken {
        let mut tx = bed.tx().await;
        let mut row = tx.lock_runs(&[run]).await.unwrap().pop().unwrap();
        breaks(&mut row);
        assert!(tx.update_runs(&[row]).await.is_err(), "{what}");
    }
}

/// An error message may hold anything; it must not cost its task the ending.
pub async fn text_with_nul_is_kept_readable<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (_, keys) = bed.running(&dag, "r", vec![ready_ti(ANY, 0)]).await;
    bed.edit_ti(keys[0], |ti| ti.reason = Some("before\0after".to_owned()))
        .await;
    let reason = bed.load(keys[0]).await.reason.unwrap();
    assert!(
        reason.starts_with("before") && reason.ends_with("after"),
        "{reason:?}"
    );
}
