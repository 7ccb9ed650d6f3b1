//! What is deleted, and what goes with it.

use super::bed::{Bed, after, ready_ti};
use crate::{Backend, LimitKey, NewRun, StoreError, Tx, VersionRow};
use gristmill_common::{
    ids::{Dispatch, Fence, RunPk, TiPk},
    row::{AttemptRow, OutboxRow, RETURN_VALUE, XcomRow, XcomValue},
};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// A running run with an instance, and with a row of every kind that belongs to a run.
async fn furnished<B: Backend>(bed: &Bed<B>, dag: &VersionRow, run_id: &str) -> (RunPk, TiPk) {
    let (run, tis) = bed.running(dag, run_id, vec![ready_ti(RunPk(0), 0)]).await;
    let ti = tis[0];
    let mut tx = bed.tx().await;
    tx.insert_attempts(&[AttemptRow {
        ti,
        try_number: 1,
        attempt: Uuid::now_v7(),
        fence: Fence(1),
        ending: "success".to_owned(),
        started_at: None,
        ended_at: after(0),
        worker: None,
        hostname: None,
        pid: None,
        exit_code: None,
        reason: None,
    }])
    .await
    .unwrap();
    tx.put_xcoms(&[XcomRow {
        run,
        ti,
        task_idx: 0,
        map_index: -1,
        key: RETURN_VALUE.to_owned(),
        fence: Fence(1),
        value: XcomValue::Inline(json!(1)),
    }])
    .await
    .unwrap();
    tx.insert_outbox(&[OutboxRow {
        run,
        dispatch: Dispatch {
            ti,
            fence: Fence(1),
        },
        queue: "default".to_owned(),
        body: "{}".to_owned(),
        epoch: 1,
        claim_by: after(60),
        priority: 0,
    }])
    .await
    .unwrap();
    tx.ensure_limits(&[(in_run(run), 1)], false).await.unwrap();
    tx.commit().await.unwrap();
    (run, ti)
}

fn in_run(run: RunPk) -> LimitKey {
    LimitKey::TaskInRun {
        run,
        task_id: "t0".to_owned(),
    }
}

async fn is_gone<B: Backend>(bed: &Bed<B>, run: RunPk, ti: TiPk) -> bool {
    let traces = [
        bed.run_by_pk(run).await.unwrap().is_some(),
        !bed.tx().await.load_tis(&[ti]).await.unwrap().is_empty(),
        !bed.attempts(ti).await.unwrap().is_empty(),
        !bed.xcoms(run, None, None).await.unwrap().is_empty(),
        bed.unpublished(Duration::ZERO, 100)
            .await
            .unwrap()
            .iter()
            .any(|m| m.dispatch.ti == ti),
        !bed.limits(&[in_run(run)]).await.unwrap().is_empty(),
    ];
    assert!(
        traces.iter().all(|t| *t == traces[0]),
        "a part of run {run} is left: {traces:?}"
    );
    !traces[0]
}

pub async fn old_runs_go_with_all_they_have<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let mut runs = Vec::new();
    for n in 0..4 {
        runs.push(furnished(&bed, &dag, &format!("r{n}")).await);
    }
    let keyed = NewRun {
        idempotency: Some(("key".to_owned(), "hash".to_owned())),
        ..super::bed::manual_run(&dag, "keyed")
    };
    let keyed = bed.insert_run(&keyed).await;
    bed.end_run(keyed, after(-5000)).await;
    bed.end_run(runs[0].0, after(-3000)).await;
    bed.end_run(runs[1].0, after(-4000)).await;
    bed.end_run(runs[2].0, after(-10)).await;
    let delete = |max| {
        let bed = bed.clone();
        async move {
            let mut tx = bed.tx().await;
            let deleted = tx.delete_old(after(-1000), max).await.unwrap();
            tx.commit().await.unwrap();
            deleted.len()
        }
    };
    assert_eq!(delete(2).await, 2);
    assert!(bed.run_by_pk(keyed).await.unwrap().is_none());
    assert_eq!(
        bed.tx()
            .await
            .run_by_idempotency_key("d", "key")
            .await
            .unwrap(),
        None
    );
    assert!(
        is_gone(&bed, runs[1].0, runs[1].1).await,
        "the oldest first"
    );
    assert!(!is_gone(&bed, runs[0].0, runs[0].1).await);
    assert_eq!(delete(10).await, 1);
    assert!(is_gone(&bed, runs[0].0, runs[0].1).await);
    assert!(!is_gone(&bed, runs[2].0, runs[2].1).await, "it ended later");
    assert!(
        !is_gone(&bed, runs[3].0, runs[3].1).await,
        "it has not ended"
    );
    assert_eq!(delete(10).await, 0);
}

pub async fn a_run_is_deleted_after_its_end<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (run, ti) = furnished(&bed, &dag, "r").await;
    let (other, of_other) = furnished(&bed, &dag, "s").await;
    let refused = bed.delete_run(run).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
    bed.end_run(run, after(0)).await;
    bed.delete_run(run).await.unwrap();
    assert!(is_gone(&bed, run, ti).await);
    assert!(!is_gone(&bed, other, of_other).await);
    let missing = bed.delete_run(run).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");
    // Keys are never used again.
    let (next, next_ti) = furnished(&bed, &dag, "r").await;
    assert!(next > other && next_ti > of_other);
}
