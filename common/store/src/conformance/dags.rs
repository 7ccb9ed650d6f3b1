//! DAGs and their versions.

use super::bed::{Bed, after, manual_run, ready_ti, spec, version_of};
use crate::{Backend, LimitKey, Reads, StoreError, Tx};
use futures::future::join_all;
use gristmill_common::ids::RunPk;

pub async fn a_version_is_deployed_once<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let mut first = spec("d", &["a", "b"]);
    first.description = Some("what it does".to_owned());
    first.owner = Some("ada".to_owned());
    first.tags = vec!["x".to_owned(), "y".to_owned()];
    first.max_active_runs = 4;
    let mut new = version_of(first.clone());
    new.schedule = Some("0 2 * * *".to_owned());
    let (v1, is_new) = bed.deploy(&new).await;
    assert!(is_new);
    assert_eq!(
        (v1.version_number, &v1.spec, v1.dag_id.as_str()),
        (1, &first, "d")
    );
    let (again, is_new) = bed.deploy(&new).await;
    assert!(!is_new);
    assert_eq!((again.pk, again.id), (v1.pk, v1.id));

    let dag = bed.dag("d").await;
    drop(dag);
    let row = Reads::dag(&*bed, "d").await.unwrap().unwrap();
    assert_eq!(row.version_number, 2, "other tasks make another version");
    let (back, is_new) = bed.deploy(&new).await;
    assert!(is_new, "only the newest version counts");
    assert_eq!(back.version_number, 3);
    let mut bundled = version_of(first);
    bundled.bundle = Some("sha256:1".to_owned());
    let (v4, is_new) = bed.deploy(&bundled).await;
    assert_eq!(
        (is_new, v4.version_number, v4.bundle.as_deref()),
        (true, 4, Some("sha256:1"))
    );

    let row = Reads::dag(&*bed, "d").await.unwrap().unwrap();
    assert_eq!((row.version, row.version_number), (v4.pk, 4));
    assert_eq!(
        (row.description.as_deref(), row.owner.as_deref()),
        (Some("what it does"), Some("ada"))
    );
    assert_eq!(row.tags, ["x", "y"]);
    assert_eq!((row.max_active_runs, row.max_active_tasks), (4, 16));
    assert_eq!(bed.version(v1.pk).await.unwrap().unwrap().spec, v1.spec);
    assert_eq!(
        bed.tx().await.version(v4.pk).await.unwrap().unwrap().source,
        v4.source
    );
    let page = bed.versions("d", 2, 1).await.unwrap();
    let numbers: Vec<i32> = page.rows.iter().map(|v| v.version_number).collect();
    assert_eq!((page.total, numbers), (4, vec![3, 2]));

    let key = LimitKey::DagRuns {
        dag_id: "d".to_owned(),
    };
    assert_eq!(bed.limits(&[key]).await.unwrap()[0].cap, 4);
}

pub async fn deploying_keeps_the_pause<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let mut paused = spec("d", &["a"]);
    paused.is_paused_upon_creation = true;
    bed.deploy(&version_of(paused.clone())).await;
    assert!(Reads::dag(&*bed, "d").await.unwrap().unwrap().is_paused);
    assert!(!bed.set_paused("d", false).await.unwrap().is_paused);
    bed.mark_stale("dags/", &[]).await.unwrap();
    assert!(Reads::dag(&*bed, "d").await.unwrap().unwrap().is_stale);
    paused.description = Some("changed".to_owned());
    bed.deploy(&version_of(paused)).await;
    let row = Reads::dag(&*bed, "d").await.unwrap().unwrap();
    assert!(!row.is_paused && !row.is_stale);
    let missing = bed.set_paused("none", true).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");
}

pub async fn due_dags_are_locked_once<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    for n in 0..8 {
        let id = format!("d{n}");
        bed.dag(&id).await;
        bed.edit_dag(&id, |dag| dag.next_run_after = Some(after(-100 + n)))
            .await;
    }
    let mut tx = bed.tx().await;
    let oldest: Vec<String> = tx
        .lock_due_dags(2)
        .await
        .unwrap()
        .into_iter()
        .map(|d| d.dag_id)
        .collect();
    assert_eq!(oldest, ["d0", "d1"]);
    drop(tx);
    let schedulers = (0..4).map(|_| {
        let bed = bed.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let mut tx = bed.tx().await;
                let due = tx.lock_due_dags(2).await.unwrap();
                if due.is_empty() {
                    return mine;
                }
                for mut dag in due {
                    dag.next_run_after = Some(after(3600));
                    tx.update_dag(&dag).await.unwrap();
                    mine.push(dag.dag_id);
                }
                tx.commit().await.unwrap();
            }
        })
    });
    let mut all: Vec<String> = join_all(schedulers)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    all.sort();
    // Each once: a row that another has locked is left out, not waited for and taken again.
    let expected: Vec<String> = (0..8).map(|n| format!("d{n}")).collect();
    assert_eq!(all, expected);
}

pub async fn paused_and_stale_dags_are_not_due<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    for id in ["due", "later", "paused", "stale", "never"] {
        bed.dag(id).await;
        bed.edit_dag(id, |dag| {
            dag.next_run_after = match id {
                "later" => Some(after(3600)),
                "never" => None,
                _ => Some(after(-1)),
            };
            dag.is_paused = id == "paused";
            dag.is_stale = id == "stale";
        })
        .await;
    }
    let mut tx = bed.tx().await;
    let due = tx.lock_due_dags(10).await.unwrap();
    assert_eq!(
        due.iter().map(|d| d.dag_id.as_str()).collect::<Vec<_>>(),
        ["due"]
    );
}

pub async fn schedule_state_is_written<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    bed.dag("d").await;
    let written = bed
        .edit_dag("d", |dag| {
            dag.next_run_after = Some(after(60));
            dag.next_logical_date = Some(after(-60));
            dag.next_interval_start = Some(after(-60));
            dag.next_interval_end = Some(after(60));
            dag.last_run_after = Some(after(-61));
            dag.is_paused = true;
        })
        .await;
    let read = Reads::dag(&*bed, "d").await.unwrap().unwrap();
    assert_eq!(
        crate::DagRow {
            updated_at: written.updated_at,
            ..read
        },
        written
    );
    assert!(bed.tx().await.lock_dag("none").await.unwrap().is_none());
}

pub async fn a_dag_with_unfinished_runs_stays<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    bed.dag("e").await;
    let (run, tis) = bed.running(&dag, "r", vec![ready_ti(RunPk(0), 0)]).await;
    let queued = bed.insert_run(&manual_run(&dag, "waiting")).await;
    let refused = bed.delete_dag("d").await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
    bed.end_run(run, after(0)).await;
    bed.end_run(queued, after(0)).await;
    bed.delete_dag("d").await.unwrap();
    assert!(Reads::dag(&*bed, "d").await.unwrap().is_none());
    assert!(bed.version(dag.pk).await.unwrap().is_none());
    assert!(bed.run_by_pk(run).await.unwrap().is_none());
    assert!(bed.tx().await.load_tis(&tis).await.unwrap().is_empty());
    let keys = ["d", "e"].map(|id| LimitKey::DagRuns {
        dag_id: id.to_owned(),
    });
    assert_eq!(
        bed.limits(&keys).await.unwrap().len(),
        1,
        "e's limit is left"
    );
    assert!(matches!(
        bed.delete_dag("d").await,
        Err(StoreError::NotFound { .. })
    ));
    assert_eq!(bed.dag("d").await.version_number, 1);
}

pub async fn files_that_are_gone_make_dags_stale<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    for (id, fileloc) in [
        ("a", "team/a.yaml"),
        ("b", "team/b.yaml"),
        ("c", "other/c.yaml"),
    ] {
        let mut new = version_of(spec(id, &["t"]));
        new.fileloc = fileloc.to_owned();
        bed.deploy(&new).await;
    }
    assert_eq!(bed.mark_stale("team/", &["a".to_owned()]).await.unwrap(), 1);
    assert_eq!(bed.mark_stale("team/", &["a".to_owned()]).await.unwrap(), 0);
    for (id, stale) in [("a", false), ("b", true), ("c", false)] {
        assert_eq!(
            Reads::dag(&*bed, id).await.unwrap().unwrap().is_stale,
            stale,
            "{id}"
        );
    }
}

pub async fn import_errors_are_replaced_by_prefix<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let error = |file: &str, text: &str| (file.to_owned(), text.to_owned());
    bed.put_import_errors(
        "team/",
        &[error("team/a.yaml", "1"), error("team/b_%.yaml", "2")],
    )
    .await
    .unwrap();
    bed.put_import_errors("other/", &[error("other/c.yaml", "3")])
        .await
        .unwrap();
    bed.put_import_errors("team/", &[error("team/b_%.yaml", "4")])
        .await
        .unwrap();
    let mut rows: Vec<_> = bed
        .import_errors()
        .await
        .unwrap()
        .into_iter()
        .map(|e| (e.filename, e.error))
        .collect();
    rows.sort();
    assert_eq!(
        rows,
        [error("other/c.yaml", "3"), error("team/b_%.yaml", "4")]
    );
    bed.put_import_errors("team/", &[]).await.unwrap();
    assert_eq!(bed.import_errors().await.unwrap().len(), 1);
}
