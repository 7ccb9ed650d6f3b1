//! What may be dispatched next, and what hides what.

use super::bed::{Bed, after, ready_ti, spec, version_of};
use crate::{Backend, LimitKey, Tx};
use gristmill_common::{
    ids::{RunPk, TiPk},
    row::TiRow,
    state::{RunState, TaskState},
};

const ANY: RunPk = RunPk(0);

async fn candidates<B: Backend>(bed: &Bed<B>, max: i64) -> Vec<TiPk> {
    let mut tx = bed.tx().await;
    let found = tx.ready_candidates(max).await.unwrap();
    found.into_iter().map(|(ti, _)| ti).collect()
}

async fn set_used<B: Backend>(bed: &Bed<B>, key: LimitKey, cap: i64, used: i64) {
    let mut tx = bed.tx().await;
    tx.ensure_limits(&[(key.clone(), cap)], true).await.unwrap();
    tx.spend_limits(&[(key, used)]).await.unwrap();
    tx.commit().await.unwrap();
}

/// Instances `0..count` of a mapped task.
fn mapped(task_idx: i32, count: i32, edit: impl Fn(&mut TiRow)) -> Vec<TiRow> {
    (0..count)
        .map(|map_index| {
            let mut ti = TiRow {
                map_index,
                ..ready_ti(ANY, task_idx)
            };
            edit(&mut ti);
            ti
        })
        .collect()
}

pub async fn best_priority_first_then_oldest<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let ti = |idx, priority_weight, age: i64| TiRow {
        priority_weight,
        scheduled_at: Some(after(-age)),
        ..ready_ti(ANY, idx)
    };
    let (first, a) = bed
        .running(&dag, "a", vec![ti(0, 1, 50), ti(1, 5, 10), ti(2, 1, 90)])
        .await;
    let (second, b) = bed
        .running(&dag, "b", vec![ti(0, 5, 40), ti(1, 9, 1), ti(2, 1, 70)])
        .await;
    let expected = [b[1], b[0], a[1], a[2], b[2], a[0]];
    assert_eq!(candidates(&bed, 100).await, expected);
    assert_eq!(candidates(&bed, 3).await, expected[..3]);
    let mut tx = bed.tx().await;
    let runs: Vec<RunPk> = tx
        .ready_candidates(3)
        .await
        .unwrap()
        .into_iter()
        .map(|(_, run)| run)
        .collect();
    assert_eq!(runs, [second, second, first]);
}

pub async fn no_run_gives_more_than_its_room<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (big, of_big) = bed
        .running(&dag, "big", mapped(0, 40, |ti| ti.priority_weight = 9))
        .await;
    let (_, of_small) = bed.running(&dag, "small", mapped(0, 2, |_| {})).await;
    bed.edit_run(big, |run| (run.max_active_tasks, run.active_tasks) = (6, 4))
        .await;
    assert_eq!(
        candidates(&bed, 100).await,
        [of_big[0], of_big[1], of_small[0], of_small[1]]
    );
    bed.edit_run(big, |run| run.active_tasks = 6).await;
    assert_eq!(candidates(&bed, 100).await, of_small);
}

pub async fn a_full_pool_hides_nothing<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    set_used(&bed, LimitKey::pool("full"), 3, 3).await;
    set_used(&bed, LimitKey::pool("empty"), 3, 0).await;
    let dag = bed.dag("d").await;
    let mut tis = mapped(0, 300, |ti| {
        ti.pool = "full".to_owned();
        ti.priority_weight = 100;
    });
    tis.extend(mapped(1, 1, |ti| ti.pool = "empty".to_owned()));
    tis.extend(mapped(2, 1, |ti| ti.pool = "does not exist".to_owned()));
    let (_, keys) = bed.running(&dag, "r", tis).await;
    assert_eq!(candidates(&bed, 10).await, [keys[300]]);
}

pub async fn a_pool_is_shared_by_its_slots<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    set_used(&bed, LimitKey::pool("p"), 5, 2).await;
    let dag = bed.dag("d").await;
    let heavy = mapped(0, 20, |ti| {
        (ti.pool, ti.pool_slots, ti.priority_weight) = ("p".to_owned(), 4, 9);
    });
    let light = mapped(1, 20, |ti| (ti.pool, ti.pool_slots) = ("p".to_owned(), 1));
    let other = mapped(2, 2, |_| {});
    let (_, keys) = bed.running(&dag, "r", [heavy, light, other].concat()).await;
    let found = candidates(&bed, 100).await;
    assert!(
        !found.iter().any(|ti| keys[..20].contains(ti)),
        "4 slots do not fit into 3"
    );
    for ti in [keys[20], keys[40], keys[41]] {
        assert!(found.contains(&ti), "{ti} fits: {found:?}");
    }
}

pub async fn paused_and_full_queues_wait<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    bed.set_queue_paused("paused", true).await.unwrap();
    set_used(&bed, LimitKey::queue("full"), 2, 2).await;
    set_used(&bed, LimitKey::queue("open"), 2, 1).await;
    let dag = bed.dag("d").await;
    let queued = |idx, name: &str| {
        mapped(idx, 20, |ti| {
            ti.queue = name.to_owned();
            ti.priority_weight = 9;
        })
    };
    let mut tis = queued(0, "paused");
    tis.extend(queued(1, "full"));
    tis.extend(mapped(2, 1, |ti| ti.queue = "open".to_owned()));
    let (_, keys) = bed.running(&dag, "r", tis).await;
    let unknown = mapped(0, 1, |ti| ti.queue = "without a row".to_owned());
    let (_, more) = bed.running(&dag, "s", unknown).await;
    assert_eq!(candidates(&bed, 10).await, [keys[40], more[0]]);
    bed.set_queue_paused("paused", false).await.unwrap();
    assert_eq!(candidates(&bed, 100).await[0], keys[0]);
}

pub async fn limits_of_tasks_hold<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let mut limited = spec("d", &["t0", "t1", "t2"]);
    limited.tasks[0].max_active_tis_per_dag = Some(3);
    limited.tasks[1].max_active_tis_per_dagrun = Some(2);
    let (dag, _) = bed.deploy(&version_of(limited)).await;
    let tis = || {
        [
            mapped(0, 30, |ti| ti.priority_weight = 9),
            mapped(1, 30, |ti| ti.priority_weight = 8),
            mapped(2, 1, |_| {}),
        ]
        .concat()
    };
    let (a, of_a) = bed.running(&dag, "a", tis()).await;
    let (b, of_b) = bed.running(&dag, "b", tis()).await;
    for run in [a, b] {
        bed.edit_run(run, |run| run.max_active_tasks = 100).await;
    }
    let per_dag = LimitKey::Task {
        dag_id: "d".to_owned(),
        task_id: "t0".to_owned(),
    };
    let in_a = LimitKey::TaskInRun {
        run: a,
        task_id: "t1".to_owned(),
    };
    set_used(&bed, per_dag, 3, 3).await;
    set_used(&bed, in_a, 2, 2).await;
    let found = candidates(&bed, 100).await;
    for keys in [&of_a, &of_b] {
        assert!(
            !found.iter().any(|ti| keys[..30].contains(ti)),
            "t0 is exhausted in the whole DAG"
        );
        assert!(found.contains(&keys[60]), "t2 has no limit");
    }
    assert!(
        !found.iter().any(|ti| of_a[30..60].contains(ti)),
        "t1 is exhausted in run a"
    );
    assert!(found.contains(&of_b[30]), "t1 has room in run b");
}

pub async fn only_running_runs_count<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (queued, _) = bed.running(&dag, "queued", vec![ready_ti(ANY, 0)]).await;
    bed.edit_run(queued, |run| {
        (run.state, run.started_at) = (RunState::Queued, None)
    })
    .await;
    let (ended, _) = bed.running(&dag, "ended", vec![ready_ti(ANY, 0)]).await;
    bed.end_run(ended, after(0)).await;
    let waiting = TiRow {
        state: TaskState::None,
        scheduled_at: None,
        ..ready_ti(ANY, 1)
    };
    let (_, keys) = bed
        .running(&dag, "running", vec![ready_ti(ANY, 0), waiting])
        .await;
    assert_eq!(candidates(&bed, 10).await, keys[..1]);
}

/// Dispatches round by round, as schedulers do, until nothing is given: whatever fits is reached, and no limit is passed.
pub async fn every_instance_is_reached_round_by_round<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    set_used(&bed, LimitKey::pool("tight"), 7, 0).await;
    let mut keys = Vec::new();
    for n in 0..4 {
        let tight = mapped(0, 6, |ti| {
            (ti.pool, ti.pool_slots, ti.priority_weight) = ("tight".to_owned(), 2, 9);
        });
        let tight_and_light = mapped(1, 3, |ti| ti.pool = "tight".to_owned());
        let wide = mapped(2, 3, |_| {});
        let tis = [tight, tight_and_light, wide].concat();
        keys.extend(bed.running(&dag, &format!("r{n}"), tis).await.1);
    }
    let mut taken = 0;
    let mut rounds = 0;
    loop {
        let found = candidates(&bed, 5).await;
        if found.is_empty() {
            break;
        }
        rounds += 1;
        assert!(
            rounds < 40,
            "candidates that fit nothing are given again and again: {found:?}"
        );
        for ti in found {
            let mut tx = bed.tx().await;
            let row = tx.load_tis(&[ti]).await.unwrap().pop().unwrap();
            let pool = LimitKey::pool(&row.pool);
            let limit = tx
                .lock_limits(std::slice::from_ref(&pool))
                .await
                .unwrap()
                .pop()
                .unwrap();
            if limit.free() < i64::from(row.pool_slots) {
                continue;
            }
            tx.spend_limits(&[(pool, row.pool_slots.into())])
                .await
                .unwrap();
            tx.commit().await.unwrap();
            bed.edit_ti(ti, |ti| super::bed::make_queued(ti, after(60)))
                .await;
            bed.edit_run(row.run, |run| {
                (run.active_tasks, run.ready_tasks) = (run.active_tasks + 1, run.ready_tasks - 1)
            })
            .await;
            taken += 1;
        }
    }
    // 7 slots: three times 2 and once 1. The wide ones all.
    assert_eq!(taken, 4 + 12, "in {rounds} rounds");
}

pub async fn others_wait_outside_the_excepted<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (a, _) = bed.running(&dag, "a", vec![ready_ti(ANY, 0)]).await;
    let (b, _) = bed.running(&dag, "b", vec![ready_ti(ANY, 0)]).await;
    let mut tx = bed.tx().await;
    assert!(tx.others_wait(&[]).await.unwrap());
    assert!(tx.others_wait(&[a]).await.unwrap());
    assert!(!tx.others_wait(&[a, b]).await.unwrap());
    drop(tx);
    bed.edit_run(b, |run| run.max_active_tasks = run.active_tasks)
        .await;
    assert!(
        !bed.tx().await.others_wait(&[a]).await.unwrap(),
        "b has no room"
    );
    bed.edit_run(a, |run| run.stop_reason = Some("cancelled".to_owned()))
        .await;
    assert!(
        !bed.tx().await.others_wait(&[]).await.unwrap(),
        "a is being stopped"
    );
    assert!(candidates(&bed, 10).await.is_empty());
}

pub async fn a_queue_without_tokens_hides_nothing<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    bed.set_queue_rate("paced", "3/d".parse().ok())
        .await
        .unwrap();
    let dag = bed.dag("d").await;
    let mut tis = mapped(0, 30, |ti| {
        (ti.queue, ti.priority_weight) = ("paced".to_owned(), 9);
    });
    tis.extend(mapped(1, 2, |_| {}));
    let (_, keys) = bed.running(&dag, "r", tis).await;
    let mut tx = bed.tx().await;
    tx.lock_limits(&[LimitKey::queue("paced")]).await.unwrap();
    tx.take_tokens(&[("paced".to_owned(), 1)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        candidates(&bed, 100).await,
        [keys[0], keys[1], keys[30], keys[31]]
    );
    let mut tx = bed.tx().await;
    tx.take_tokens(&[("paced".to_owned(), 2)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(candidates(&bed, 100).await, keys[30..]);
}
