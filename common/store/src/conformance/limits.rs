//! Limits, pools and queues.

use super::bed::Bed;
use crate::{Backend, LimitKey, LimitRow, StoreError, Tx};
use futures::future::join_all;
use gristmill_common::ids::RunPk;

fn all_kinds() -> Vec<(LimitKey, i64)> {
    let dag_id = || "d".to_owned();
    let task_id = || "t".to_owned();
    vec![
        (
            LimitKey::TaskInRun {
                run: RunPk(7),
                task_id: task_id(),
            },
            1,
        ),
        (
            LimitKey::Task {
                dag_id: dag_id(),
                task_id: task_id(),
            },
            2,
        ),
        (LimitKey::queue("q"), 3),
        (LimitKey::pool("p"), 4),
        (LimitKey::DagRuns { dag_id: dag_id() }, 5),
    ]
}

async fn ensure<B: Backend>(bed: &Bed<B>, limits: &[(LimitKey, i64)], overwrite: bool) {
    let mut tx = bed.tx().await;
    tx.ensure_limits(limits, overwrite).await.unwrap();
    tx.commit().await.unwrap();
}

async fn spend<B: Backend>(bed: &Bed<B>, key: &LimitKey, delta: i64) -> Result<(), StoreError> {
    let mut tx = bed.tx().await;
    tx.lock_limits(std::slice::from_ref(key)).await?;
    tx.spend_limits(&[(key.clone(), delta)]).await?;
    tx.commit().await
}

async fn row<B: Backend>(bed: &Bed<B>, key: &LimitKey) -> LimitRow {
    let rows = bed.limits(std::slice::from_ref(key)).await.unwrap();
    rows.into_iter().next().unwrap()
}

pub async fn rows_are_ensured_not_reset<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let limits = all_kinds();
    let keys: Vec<LimitKey> = limits.iter().map(|(key, _)| key.clone()).collect();
    {
        let mut tx = bed.tx().await;
        assert_eq!(
            tx.lock_limits(&keys).await.unwrap(),
            [],
            "missing ones are missing"
        );
    }
    ensure(&bed, &limits, false).await;
    let mut tx = bed.tx().await;
    let locked = tx.lock_limits(&keys).await.unwrap();
    drop(tx);
    let mut sorted = limits.clone();
    sorted.sort_by_key(|(key, _)| key.columns());
    let expected: Vec<LimitRow> = sorted
        .into_iter()
        .map(|(key, cap)| LimitRow {
            key,
            cap,
            used: 0,
            paused: false,
            rate: None,
            include_deferred: false,
        })
        .collect();
    assert_eq!(locked, expected, "in the order of their columns");

    let pool = LimitKey::pool("p");
    spend(&bed, &pool, 3).await.unwrap();
    ensure(&bed, &[(pool.clone(), 9)], false).await;
    assert_eq!(
        (row(&bed, &pool).await.cap, row(&bed, &pool).await.used),
        (4, 3)
    );
    ensure(&bed, &[(pool.clone(), 9)], true).await;
    assert_eq!(
        (row(&bed, &pool).await.cap, row(&bed, &pool).await.used),
        (9, 3)
    );
}

pub async fn spending_stops_at_the_cap<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let (pool, open) = (LimitKey::pool("p"), LimitKey::pool("open"));
    ensure(&bed, &[(pool.clone(), 2), (open.clone(), -1)], false).await;
    spend(&bed, &pool, 2).await.unwrap();
    let refused = spend(&bed, &pool, 1).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Corrupt(why) if why.contains('p')),
        "{refused}"
    );
    assert_eq!(row(&bed, &pool).await.used, 2);
    assert!(spend(&bed, &pool, -3).await.is_err(), "below nothing");
    spend(&bed, &pool, -2).await.unwrap();
    assert_eq!(row(&bed, &pool).await.used, 0);
    assert!(
        spend(&bed, &LimitKey::pool("none"), 1).await.is_err(),
        "a limit that does not exist"
    );
    spend(&bed, &open, 1000).await.unwrap();

    // A lowered cap holds from then on; what is over it may still be given back.
    spend(&bed, &pool, 2).await.unwrap();
    ensure(&bed, &[(pool.clone(), 1)], true).await;
    assert!(spend(&bed, &pool, 1).await.is_err());
    spend(&bed, &pool, -1).await.unwrap();

    // One refusal undoes its whole transaction.
    let mut tx = bed.tx().await;
    let deltas = [(open.clone(), 1), (pool.clone(), 1)];
    assert!(tx.spend_limits(&deltas).await.is_err());
    drop(tx);
    assert_eq!(row(&bed, &open).await.used, 1000);
}

pub async fn fifty_spenders_never_exceed_the_cap<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let key = LimitKey::pool("narrow");
    ensure(&bed, &[(key.clone(), 20)], false).await;
    let spenders = (0..50).map(|_| {
        let (bed, key) = (bed.clone(), key.clone());
        tokio::spawn(async move {
            let mut tx = bed.tx().await;
            let row = tx
                .lock_limits(std::slice::from_ref(&key))
                .await
                .unwrap()
                .pop()
                .unwrap();
            assert!(row.used <= row.cap, "{row:?}");
            if row.free() == 0 {
                return 0;
            }
            tx.spend_limits(&[(key, 1)]).await.unwrap();
            tx.commit().await.unwrap();
            1
        })
    });
    let spent: i64 = join_all(spenders)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    assert_eq!(spent, 20);
    assert_eq!(row(&bed, &key).await.used, 20);
}

pub async fn limits_locked_in_any_order_do_not_deadlock<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let limits: Vec<_> = (0..6)
        .map(|n| (LimitKey::pool(&format!("p{n}")), -1))
        .collect();
    ensure(&bed, &limits, false).await;
    let keys: Vec<LimitKey> = limits.into_iter().map(|(key, _)| key).collect();
    let tasks = (0..12).map(|n| {
        let (bed, mut keys) = (bed.clone(), keys.clone());
        keys.rotate_left(n % 6);
        if n % 2 == 0 {
            keys.reverse();
        }
        tokio::spawn(async move {
            for _ in 0..5 {
                let mut tx = bed.tx().await;
                assert_eq!(tx.lock_limits(&keys).await.unwrap().len(), 6);
                let deltas: Vec<_> = keys.iter().map(|key| (key.clone(), 1)).collect();
                tx.spend_limits(&deltas).await.unwrap();
                tx.commit().await.unwrap();
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    for limit in bed.limits(&keys).await.unwrap() {
        assert_eq!(limit.used, 60, "{limit:?}");
    }
}

pub async fn pools_are_put_and_deleted<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    assert_eq!(bed.pools().await.unwrap()[0].name, "default_pool");
    let pool = bed.put_pool("api", 4, Some("shop"), false).await.unwrap();
    assert_eq!(
        (pool.slots, pool.occupied, pool.description.as_deref()),
        (4, 0, Some("shop"))
    );
    let key = LimitKey::pool("api");
    spend(&bed, &key, 3).await.unwrap();
    let pool = bed.put_pool("api", 2, None, false).await.unwrap();
    assert_eq!((pool.slots, pool.occupied, pool.description), (2, 3, None));
    assert!(matches!(
        bed.delete_pool("api").await,
        Err(StoreError::Refused(_))
    ));
    spend(&bed, &key, -3).await.unwrap();
    bed.delete_pool("api").await.unwrap();
    assert!(matches!(
        bed.delete_pool("api").await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        bed.delete_pool("default_pool").await,
        Err(StoreError::Refused(_))
    ));
    assert_eq!(bed.pools().await.unwrap().len(), 1);
}

pub async fn queues_are_paused_and_capped<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    bed.set_queue_paused("gpu", true).await.unwrap();
    let key = LimitKey::queue("gpu");
    let paused = row(&bed, &key).await;
    assert_eq!((paused.paused, paused.free()), (true, 0));
    bed.set_queue_caps(&[("gpu".to_owned(), 1500), ("cpu".to_owned(), 1200)])
        .await
        .unwrap();
    assert!(row(&bed, &key).await.paused, "a new cap does not resume");
    bed.set_queue_paused("gpu", false).await.unwrap();
    assert_eq!(row(&bed, &key).await.free(), 1500);
    assert_eq!(row(&bed, &LimitKey::queue("cpu")).await.cap, 1200);
    let queues = bed.queues().await.unwrap();
    assert!(
        queues.contains(&"cpu".to_owned()) && queues.contains(&"gpu".to_owned()),
        "{queues:?}"
    );
    // A queue that nobody knew is made with the default cap.
    bed.set_queue_paused("new", false).await.unwrap();
    assert_eq!(row(&bed, &LimitKey::queue("new")).await.cap, 1000);
}

pub async fn a_rate_is_spent_by_token<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let key = LimitKey::queue("paced");
    let take = async |n: i64| {
        let mut tx = bed.tx().await;
        let locked = tx.lock_limits(std::slice::from_ref(&key)).await.unwrap();
        tx.take_tokens(&[("paced".to_owned(), n)]).await.unwrap();
        tx.commit().await.unwrap();
        locked[0].rate.map(|rate| rate.tokens)
    };
    bed.set_queue_rate("paced", "10/d".parse().ok())
        .await
        .unwrap();
    let fresh = row(&bed, &key).await;
    assert_eq!((fresh.cap, fresh.free()), (1000, 10));
    // Less than a token flows in while this runs.
    assert_eq!(take(4).await, Some(10));
    assert_eq!(take(6).await, Some(6));
    assert_eq!(take(1).await, Some(0));
    let spent = row(&bed, &key).await;
    assert_eq!((spent.free(), spent.room()), (0, 1000));
    let counts = bed.queue_counts().await.unwrap();
    let listed = counts.iter().find(|counts| counts.queue == "paced");
    let rate = listed.and_then(|counts| counts.rate_limit).unwrap();
    assert_eq!(rate.to_string(), "10/d");

    // A new rate acts at once, and none means none.
    bed.set_queue_rate("paced", "7/s".parse().ok())
        .await
        .unwrap();
    assert_eq!(row(&bed, &key).await.free(), 7);
    bed.set_queue_rate("paced", None).await.unwrap();
    let lifted = row(&bed, &key).await;
    assert_eq!((lifted.rate, lifted.free()), (None, 1000));
    assert_eq!(take(1).await, None);
}

pub async fn fifty_takers_never_exceed_the_rate<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    bed.set_queue_rate("paced", "20/d".parse().ok())
        .await
        .unwrap();
    let takers = (0..50).map(|_| {
        let bed = bed.clone();
        tokio::spawn(async move {
            let mut tx = bed.tx().await;
            let key = LimitKey::queue("paced");
            let locked = tx.lock_limits(&[key]).await.unwrap();
            if locked[0].free() == 0 {
                return 0;
            }
            tx.take_tokens(&[("paced".to_owned(), 1)]).await.unwrap();
            tx.commit().await.unwrap();
            1
        })
    });
    let taken: i64 = join_all(takers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(taken, 20);
}

pub async fn parallelism_counts_all_runs<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    assert_eq!(bed.parallelism().await.unwrap(), (None, 0));
    let dag = bed.dag("d").await;
    let (first, _) = bed.running(&dag, "a", vec![]).await;
    let (second, _) = bed.running(&dag, "b", vec![]).await;
    bed.edit_run(first, |run| run.active_tasks = 3).await;
    bed.edit_run(second, |run| run.active_tasks = 4).await;
    bed.set_parallelism(Some(9)).await.unwrap();
    assert_eq!(bed.parallelism().await.unwrap(), (Some(9), 7));
    bed.set_parallelism(Some(0)).await.unwrap();
    assert_eq!(bed.parallelism().await.unwrap(), (Some(0), 7));
    let mut tx = bed.tx().await;
    let locked = tx.lock_limits(&[LimitKey::Parallelism]).await.unwrap();
    assert_eq!((locked[0].cap, locked[0].used), (0, 0));
    assert_eq!(tx.active_tasks(&[]).await.unwrap(), 7);
    assert_eq!(tx.active_tasks(&[first]).await.unwrap(), 4);
    drop(tx);
    bed.set_parallelism(None).await.unwrap();
    assert_eq!(bed.parallelism().await.unwrap(), (None, 7));
}
