//! Which queued runs may start.

use super::bed::{Bed, after, manual_run, spec, version_of};
use crate::{Backend, LimitKey, NewRun, RunKeyNote, Tx};
use gristmill_common::{ids::RunPk, state::RunState};

async fn startable<B: Backend>(bed: &Bed<B>, max: i64) -> Vec<RunPk> {
    bed.tx().await.startable_runs(max).await.unwrap()
}

pub async fn runs_start_oldest_first_within_room<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let mut narrow = spec("narrow", &["t0"]);
    narrow.max_active_runs = 3;
    let (narrow, _) = bed.deploy(&version_of(narrow)).await;
    let wide = bed.dag("wide").await;
    let mut runs = Vec::new();
    for n in 0..5 {
        for dag in [&narrow, &wide] {
            // The later it was inserted, the older it is.
            let new = NewRun {
                run_after: after(-100 * (n + 1)),
                ..manual_run(dag, &format!("r{n}"))
            };
            runs.push(bed.insert_run(&new).await);
        }
    }
    let (of_narrow, of_wide): (Vec<RunPk>, Vec<RunPk>) =
        runs.chunks(2).map(|pair| (pair[0], pair[1])).unzip();
    let key = LimitKey::DagRuns {
        dag_id: "narrow".to_owned(),
    };
    let mut tx = bed.tx().await;
    tx.spend_limits(&[(key.clone(), 1)]).await.unwrap();
    tx.commit().await.unwrap();
    let found = startable(&bed, 100).await;
    assert_eq!(found.len(), 2 + 5, "narrow has room for two: {found:?}");
    let only = |of: &[RunPk]| {
        found
            .iter()
            .filter(|run| of.contains(run))
            .copied()
            .collect::<Vec<_>>()
    };
    assert_eq!(only(&of_narrow), [of_narrow[4], of_narrow[3]]);
    let mut oldest_first = of_wide.clone();
    oldest_first.reverse();
    assert_eq!(only(&of_wide), oldest_first);
    assert_eq!(startable(&bed, 2).await, found[..2]);

    let mut tx = bed.tx().await;
    tx.spend_limits(&[(key, 2)]).await.unwrap();
    tx.commit().await.unwrap();
    let mut found = startable(&bed, 100).await;
    found.sort();
    assert_eq!(found, of_wide, "a full DAG gives none and hides none");
}

pub async fn paused_dags_and_later_runs_wait<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let (dag, paused) = (bed.dag("d").await, bed.dag("paused").await);
    bed.set_paused("paused", true).await.unwrap();
    bed.insert_run(&manual_run(&paused, "r")).await;
    bed.insert_run(&NewRun {
        run_after: after(3600),
        ..manual_run(&dag, "later")
    })
    .await;
    let (running, _) = bed.running(&dag, "running", Vec::new()).await;
    let now = bed.insert_run(&manual_run(&dag, "now")).await;
    assert_eq!(startable(&bed, 10).await, [now]);
    bed.end_run(running, after(0)).await;
    bed.set_paused("paused", false).await.unwrap();
    assert_eq!(startable(&bed, 10).await.len(), 2);
}

pub async fn a_full_key_hides_no_other_run<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let mut runs = Vec::new();
    for name in ["a", "b", "c"] {
        runs.push(bed.insert_run(&manual_run(&dag, name)).await);
    }
    let limit = LimitKey::RunKey {
        dag_id: "d".to_owned(),
        key: "k_m/1".to_owned(),
    };
    let note = |run, key: &str, waits| RunKeyNote {
        run,
        key: key.to_owned(),
        waits,
    };
    let mut tx = bed.tx().await;
    tx.ensure_limits(&[(limit.clone(), 1)], false)
        .await
        .unwrap();
    tx.spend_limits(&[(limit.clone(), 1)]).await.unwrap();
    let notes = [
        note(runs[0], "k_m/1", true),
        note(runs[1], "k_m/1", false),
        note(runs[2], "other", true),
    ];
    tx.set_run_keys(&notes).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(startable(&bed, 10).await, [runs[1], runs[2]]);
    let row = bed.run("d", "a").await.unwrap().unwrap();
    assert_eq!(row.concurrency_key.as_deref(), Some("k_m/1"));

    // More room, for this DAG's keys only, lets it go on.
    let mut tx = bed.tx().await;
    tx.cap_run_keys("d_", 9).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(startable(&bed, 10).await, [runs[1], runs[2]]);
    let mut tx = bed.tx().await;
    tx.cap_run_keys("d", 2).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(startable(&bed, 10).await, runs);

    // Who runs with a key, oldest first.
    bed.edit_run(runs[1], |run| {
        run.state = RunState::Running;
        run.started_at = Some(after(-10));
    })
    .await;
    bed.edit_run(runs[0], |run| {
        run.state = RunState::Running;
        run.started_at = Some(after(-5));
        run.stop_reason = Some("cancelled".to_owned());
    })
    .await;
    let mut tx = bed.tx().await;
    let running = tx.running_with_key("d", "k_m/1").await.unwrap();
    assert_eq!(running, [(runs[1], false), (runs[0], true)]);
}
