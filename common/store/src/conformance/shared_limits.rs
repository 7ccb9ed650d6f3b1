//! Limits that task instances share by key, and pools in which counts what waits.

use super::bed::{Bed, after, make_running, ready_ti};
use crate::{Backend, DueWait, LimitKey, SharedLimitTx, Tx, WaitTx};
use gristmill_common::{
    ids::{RunPk, TiPk},
    row::{SharedKey, TiRow, Wait},
    spec::Strategy,
    state::TaskState,
};

const ANY: RunPk = RunPk(0);

fn key(name: &str, limit: i32, strategy: Strategy) -> Option<SharedKey> {
    Some(SharedKey {
        key: name.to_owned(),
        limit,
        strategy,
    })
}

fn limit(name: &str) -> LimitKey {
    LimitKey::TaskKey {
        key: name.to_owned(),
    }
}

/// `n` ready instances of the task at `idx`, the first the oldest.
fn ready(idx: i32, n: i32, edit: impl Fn(&mut TiRow)) -> Vec<TiRow> {
    (0..n)
        .map(|map_index| {
            let mut row = TiRow {
                map_index,
                scheduled_at: Some(after(i64::from(map_index) - 1000)),
                ..ready_ti(ANY, idx)
            };
            edit(&mut row);
            row
        })
        .collect()
}

async fn candidates<B: Backend>(bed: &Bed<B>, max: i64) -> Vec<TiPk> {
    let found = bed.tx().await.ready_candidates(max).await.unwrap();
    found.into_iter().map(|(ti, _)| ti).collect()
}

async fn set_used<B: Backend>(bed: &Bed<B>, key: LimitKey, cap: i64, used: i64) {
    let mut tx = bed.tx().await;
    tx.ensure_limits(&[(key.clone(), cap)], true).await.unwrap();
    tx.lock_limits(std::slice::from_ref(&key)).await.unwrap();
    tx.spend_limits(&[(key, used)]).await.unwrap();
    tx.commit().await.unwrap();
}

pub async fn a_full_key_hides_no_other<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    // One task: twenty of a key that is full and more urgent, then one of a key without a row, and two of none.
    let mut tis = ready(0, 20, |ti| {
        (ti.shared, ti.priority_weight) = (key("kim", 2, Strategy::Queue), 9);
    });
    for (n, shared) in [key("lee", 1, Strategy::Queue), None, None]
        .into_iter()
        .enumerate()
    {
        tis.push(TiRow {
            map_index: 20 + n as i32,
            shared,
            ..ready_ti(ANY, 0)
        });
    }
    let (_, keys) = bed.running(&dag, "r", tis).await;
    set_used(&bed, limit("kim"), -1, 2).await;
    let mut found = candidates(&bed, 10).await;
    found.sort_unstable();
    assert_eq!(found, keys[20..]);
    let mut tx = bed.tx().await;
    tx.lock_limits(&[limit("kim")]).await.unwrap();
    tx.spend_limits(&[(limit("kim"), -1)]).await.unwrap();
    tx.commit().await.unwrap();
    let found = candidates(&bed, 10).await;
    assert_eq!(found[0], keys[0], "one fits now");
    assert!(!found.contains(&keys[1]), "and only one");
}

pub async fn a_key_is_shared_across_dags<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let mut keys = Vec::new();
    for dag in ["a", "b"] {
        let dag = bed.dag(dag).await;
        let tis = ready(0, 3, |ti| ti.shared = key("kim", 2, Strategy::Queue));
        keys.extend(bed.running(&dag, "r", tis).await.1);
    }
    let found = candidates(&bed, 10).await;
    assert_eq!(found.len(), 2, "two in all: {found:?} of {keys:?}");
    set_used(&bed, limit("kim"), -1, 1).await;
    assert_eq!(candidates(&bed, 10).await.len(), 1);
}

pub async fn who_pushes_and_who_holds<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let strategies = [
        ("kim", Strategy::CancelNew),
        ("kim", Strategy::CancelRunning),
        ("kim", Strategy::Queue),
        ("lee", Strategy::CancelNew),
    ];
    let mut tis: Vec<TiRow> = Vec::new();
    for (n, (name, strategy)) in strategies.into_iter().enumerate() {
        tis.push(TiRow {
            map_index: n as i32,
            shared: key(name, 1, strategy),
            scheduled_at: Some(after(n as i64 - 100)),
            ..ready_ti(ANY, 0)
        });
    }
    let (run, keys) = bed.running(&dag, "r", tis).await;
    let other = bed.dag("o").await;
    let holding = ready(1, 1, |ti| {
        ti.shared = key("kim", 1, Strategy::Queue);
        make_running(ti, "w");
    });
    let (other_run, held) = bed.running(&other, "r", holding).await;
    let mut tx = bed.tx().await;
    assert_eq!(tx.pushing(10).await.unwrap(), [], "nothing is full");
    drop(tx);
    assert!(!bed.to_do(std::time::Duration::ZERO).await.unwrap().pushing);
    set_used(&bed, limit("kim"), -1, 1).await;
    assert!(bed.to_do(std::time::Duration::ZERO).await.unwrap().pushing);
    let mut tx = bed.tx().await;
    let pushing = tx.pushing(10).await.unwrap();
    let found: Vec<_> = pushing.iter().map(|one| (one.ti, one.run)).collect();
    assert_eq!(found, [(keys[0], run), (keys[1], run)]);
    assert_eq!(pushing[1].dag_id, "d");
    assert_eq!(
        pushing[1].shared,
        key("kim", 1, Strategy::CancelRunning).unwrap()
    );
    assert_eq!(tx.pushing(1).await.unwrap().len(), 1);
    let holders = tx
        .key_holders(&["kim".to_owned(), "nobody".to_owned()])
        .await
        .unwrap();
    let [holder] = holders.as_slice() else {
        panic!("{holders:?}")
    };
    assert_eq!((holder.ti, holder.run), (held[0], other_run));
    assert_eq!((holder.dag_id.as_str(), holder.stopping), ("o", false));
    drop(tx);
    bed.edit_ti(held[0], |ti| ti.state = TaskState::Restarting)
        .await;
    let mut tx = bed.tx().await;
    assert!(tx.key_holders(&["kim".to_owned()]).await.unwrap()[0].stopping);
}

/// An instance in the pool `w` that waits; `begun`: the wait has begun.
fn waiting(map_index: i32, state: TaskState, begun: bool) -> TiRow {
    TiRow {
        map_index,
        state,
        pool: "w".to_owned(),
        pool_slots: 2,
        next_at: Some(after(-10)),
        wait: begun.then(|| Wait {
            since: after(-20),
            looks: 1,
            open: true,
            run: None,
        }),
        ..ready_ti(ANY, 0)
    }
}

pub async fn what_waits_counts_in_its_pool<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    bed.put_pool("w", 7, None, false).await.unwrap();
    let tis = vec![
        waiting(0, TaskState::UpForReschedule, true),
        waiting(1, TaskState::AwaitingInput, true),
        waiting(2, TaskState::Deferred, false),
        TiRow {
            pool: "w".to_owned(),
            pool_slots: 2,
            map_index: 3,
            ..ready_ti(ANY, 0)
        },
    ];
    let (run, keys) = bed.running(&dag, "r", tis).await;
    let due = |n: usize, admit| DueWait {
        ti: keys[n],
        run,
        admit,
    };
    let looks = async || {
        let mut found = bed.tx().await.due_waits(10).await.unwrap();
        found.sort_by_key(|due| due.ti);
        found
    };
    // Waits do not count: nobody asks for room.
    assert_eq!(looks().await, [due(0, false), due(1, false), due(2, false)]);
    assert_eq!(bed.pool_use("w").await.unwrap().deferred_slots, 4);
    set_used(&bed, LimitKey::pool("w"), 7, 2).await;
    assert_eq!(candidates(&bed, 10).await, [keys[3]]);
    // They do: 2 slots are taken by dispatches, 4 by waits; the next needs 2, and 1 is left.
    let pool = bed.put_pool("w", 7, None, true).await.unwrap();
    assert!(pool.include_deferred && bed.pools().await.unwrap().contains(&pool));
    let row = bed.limits(&[LimitKey::pool("w")]).await.unwrap().remove(0);
    assert!(row.include_deferred);
    assert_eq!(looks().await, [due(0, false), due(1, false)]);
    assert_eq!(candidates(&bed, 10).await, []);
    let pools = ["w".to_owned(), "default_pool".to_owned()];
    let mut tx = bed.tx().await;
    let slots = tx.waiting_slots(&pools, &[]).await.unwrap();
    assert_eq!(slots, [("w".to_owned(), 4)]);
    let slots = tx.waiting_slots(&pools, &[keys[0]]).await.unwrap();
    assert_eq!(slots, [("w".to_owned(), 2)]);
    drop(tx);
    // One slot more is room for one, whoever takes it.
    bed.put_pool("w", 8, None, true).await.unwrap();
    assert_eq!(looks().await, [due(0, false), due(1, false), due(2, true)]);
    assert_eq!(candidates(&bed, 10).await, [keys[3]]);
    // Without an end there is always room.
    bed.put_pool("w", -1, None, true).await.unwrap();
    assert_eq!(looks().await[2], due(2, true));
    assert_eq!(candidates(&bed, 10).await, [keys[3]]);
}
