//! Listings: filters, pages, totals, counts.

use super::bed::{Bed, after, make_queued, make_running, manual_run, ready_ti};
use crate::{Backend, QueueCounts, RunFilter, TiFilter, Tx};
use gristmill_common::{ids::RunPk, row::TiRow, state::TaskState};

const ANY: RunPk = RunPk(0);

pub async fn dags_by_pattern_and_page<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    for id in [
        "sales_daily",
        "sales_hourly",
        "sales%x",
        "other",
        "sales_old",
    ] {
        bed.dag(id).await;
    }
    bed.edit_dag("sales_old", |dag| dag.is_stale = true).await;
    let ids = |page: crate::Page<crate::DagRow>| {
        (
            page.total,
            page.rows.into_iter().map(|d| d.dag_id).collect::<Vec<_>>(),
        )
    };
    let strings = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let all = bed.dags(None, false, 10, 0).await.unwrap();
    assert_eq!(
        ids(all),
        (
            4,
            strings(&["other", "sales%x", "sales_daily", "sales_hourly"])
        )
    );
    let page = bed.dags(Some("sales_"), true, 2, 1).await.unwrap();
    assert_eq!(
        ids(page),
        (3, strings(&["sales_hourly", "sales_old"])),
        "a substring, not a pattern"
    );
    assert_eq!(
        ids(bed.dags(Some("%"), true, 9, 0).await.unwrap()),
        (1, strings(&["sales%x"]))
    );
    assert_eq!(
        ids(bed.dags(None, true, 9, 99).await.unwrap()),
        (5, Vec::new())
    );
}

pub async fn runs_newest_first<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let (d, e) = (bed.dag("d").await, bed.dag("e").await);
    let mut runs = Vec::new();
    for n in 0..4 {
        runs.push(bed.insert_run(&manual_run(&d, &format!("r{n}"))).await);
    }
    let other = bed.insert_run(&manual_run(&e, "r0")).await;
    bed.end_run(runs[1], after(0)).await;
    let find = |filter: RunFilter| {
        let bed = bed.clone();
        async move {
            let page = bed.runs(&filter).await.unwrap();
            (
                page.total,
                page.rows.into_iter().map(|r| r.pk).collect::<Vec<_>>(),
            )
        }
    };
    let all = RunFilter {
        limit: 10,
        ..RunFilter::default()
    };
    assert_eq!(
        find(all.clone()).await,
        (5, vec![other, runs[3], runs[2], runs[1], runs[0]])
    );
    let of_d = RunFilter {
        dag_id: Some("d".to_owned()),
        ..all.clone()
    };
    assert_eq!(
        find(RunFilter {
            limit: 2,
            offset: 1,
            ..of_d.clone()
        })
        .await,
        (4, vec![runs[2], runs[1]])
    );
    assert_eq!(
        find(RunFilter {
            states: vec!["success".to_owned()],
            ..of_d.clone()
        })
        .await,
        (1, vec![runs[1]])
    );
    assert_eq!(
        find(RunFilter {
            run_id: Some("r0".to_owned()),
            ..all
        })
        .await,
        (2, vec![other, runs[0]])
    );
    assert_eq!(
        find(RunFilter {
            states: vec!["success".to_owned(), "queued".to_owned()],
            ..of_d
        })
        .await
        .0,
        4
    );
}

pub async fn task_instances_by_filter<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let hidden = TiRow {
        state: TaskState::None,
        scheduled_at: None,
        expanded_len: Some(2),
        ..ready_ti(ANY, 1)
    };
    let tis = vec![
        TiRow {
            queue: "gpu".to_owned(),
            ..ready_ti(ANY, 0)
        },
        hidden,
        TiRow {
            map_index: 0,
            pool: "api".to_owned(),
            ..ready_ti(ANY, 1)
        },
        TiRow {
            map_index: 1,
            state: TaskState::Success,
            ended_at: Some(after(0)),
            ..ready_ti(ANY, 1)
        },
    ];
    let (run, keys) = bed.running(&dag, "r", tis).await;
    let other = bed.dag("e").await;
    bed.running(&other, "r", vec![ready_ti(ANY, 0)]).await;
    let find = |filter: TiFilter| {
        let bed = bed.clone();
        async move {
            let page = bed.task_instances(&filter).await.unwrap();
            (
                page.total,
                page.rows.into_iter().map(|t| t.pk).collect::<Vec<_>>(),
            )
        }
    };
    let any = TiFilter {
        limit: 10,
        ..TiFilter::default()
    };
    let of_run = TiFilter {
        run: Some(run),
        ..any.clone()
    };
    assert_eq!(
        find(of_run.clone()).await,
        (3, vec![keys[0], keys[2], keys[3]]),
        "the hidden node is left out"
    );
    assert_eq!(
        find(TiFilter {
            limit: 1,
            offset: 1,
            ..of_run.clone()
        })
        .await,
        (3, vec![keys[2]])
    );
    assert_eq!(
        find(TiFilter {
            task_id: Some("t1".to_owned()),
            map_index: Some(1),
            ..of_run.clone()
        })
        .await,
        (1, vec![keys[3]])
    );
    assert_eq!(
        find(TiFilter {
            states: vec!["scheduled".to_owned()],
            ..of_run.clone()
        })
        .await,
        (2, vec![keys[0], keys[2]])
    );
    assert_eq!(
        find(TiFilter {
            queue: Some("gpu".to_owned()),
            ..any.clone()
        })
        .await,
        (1, vec![keys[0]])
    );
    assert_eq!(
        find(TiFilter {
            pool: Some("api".to_owned()),
            ..any.clone()
        })
        .await,
        (1, vec![keys[2]])
    );
    assert_eq!(
        find(TiFilter {
            dag_id: Some("d".to_owned()),
            ..any.clone()
        })
        .await
        .0,
        3
    );
    assert_eq!(find(any).await.0, 4);
    let counts = bed.state_counts(run).await.unwrap();
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [("scheduled".to_owned(), 2), ("success".to_owned(), 1)]
    );
    assert_eq!(
        bed.task_instance(run, "t1", 0).await.unwrap().unwrap().pk,
        keys[2]
    );
    assert!(bed.task_instance(run, "t1", 9).await.unwrap().is_none());
}

pub async fn queues_are_counted<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let oldest = after(-500);
    let on = |queue: &str, map_index: i32, edit: &dyn Fn(&mut TiRow)| {
        let mut ti = TiRow {
            map_index,
            queue: queue.to_owned(),
            pool: "api".to_owned(),
            ..ready_ti(ANY, 0)
        };
        edit(&mut ti);
        ti
    };
    let dead = |ti: &mut TiRow| {
        (ti.state, ti.ended_at, ti.infra_losses) = (TaskState::Failed, Some(after(-1)), 3)
    };
    let tis = vec![
        on("q", 0, &|ti| ti.scheduled_at = Some(oldest)),
        on("q", 1, &|_| {}),
        on("q", 2, &|ti| make_queued(ti, after(60))),
        on("q", 3, &|ti| make_running(ti, "w")),
        on("q", 4, &|ti| {
            (ti.state, ti.ended_at) = (TaskState::Failed, Some(after(-1)))
        }),
        on("q", 5, &dead),
        on("waiting", 6, &|ti| {
            (ti.state, ti.scheduled_at) = (TaskState::None, None)
        }),
        on("ended", 7, &|ti| {
            (ti.state, ti.ended_at) = (TaskState::Success, Some(after(-1)))
        }),
    ];
    let (_, keys) = bed.running(&dag, "r", tis).await;
    bed.set_queue_paused("paused", true).await.unwrap();
    let counts = bed.queue_counts().await.unwrap();
    let of = |name: &str| counts.iter().find(|c| c.queue == name);
    let expected = QueueCounts {
        queue: "q".to_owned(),
        scheduled: 2,
        queued: 1,
        running: 1,
        oldest_ready_at: Some(oldest),
        paused: false,
        rate_limit: None,
        dead: 1,
    };
    assert_eq!(of("q"), Some(&expected));
    assert!(
        of("waiting").is_some(),
        "an instance that has not ended waits in it"
    );
    assert!(of("paused").is_some_and(|c| c.paused));
    assert!(of("ended").is_none());
    let names = bed.queues().await.unwrap();
    assert!(
        ["q", "waiting", "paused"]
            .iter()
            .all(|n| names.contains(&(*n).to_owned())),
        "{names:?}"
    );
    let used = bed.pool_use("api").await.unwrap();
    assert_eq!((used.queued, used.running, used.scheduled), (1, 1, 2));
    let dead: Vec<_> = bed
        .dead_tasks(10)
        .await
        .unwrap()
        .into_iter()
        .map(|t| t.pk)
        .collect();
    assert_eq!(dead, [keys[5]]);
}

pub async fn statements_are_counted<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let before = bed.statements();
    let run = bed.insert_run(&manual_run(&dag, "r")).await;
    let after = bed.statements();
    assert!(after.0 > before.0, "{before:?} {after:?}");
    // Whatever a backend does by itself now and then may come on top.
    assert!(after.1 > before.1);
    let many: Vec<TiRow> = (0..100)
        .map(|map_index| TiRow {
            map_index,
            ..ready_ti(ANY, 0)
        })
        .collect();
    let tis = bed.insert_tis(run, many).await;
    let before = bed.statements();
    let mut tx = bed.tx().await;
    assert_eq!(tx.load_tis(&tis).await.unwrap().len(), 100);
    tx.commit().await.unwrap();
    assert!(
        bed.statements().0 - before.0 < 10,
        "set-based, whatever the number of rows"
    );
}
