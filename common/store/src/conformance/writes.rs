//! What is loaded, written or noted in one go, against the single steps that it stands for.

use super::bed::{Bed, after, make_queued, ready_ti};
use crate::{Backend, LimitKey, StoreError, TiWrite, Tx, Writes};
use gristmill_common::{
    ids::{Dispatch, Fence, RunPk, TiPk},
    message::Started,
    row::{AttemptRow, OutboxRow, TiRow, XcomRow, XcomValue},
    state::TaskState,
};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

const ANY: RunPk = RunPk(0);

pub async fn runs_are_locked_with_their_instances<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (a, of_a) = bed
        .running(&dag, "a", (0..3).map(|n| ready_ti(ANY, n)).collect())
        .await;
    let (b, of_b) = bed.running(&dag, "b", vec![ready_ti(ANY, 0)]).await;
    let (c, _) = bed.running(&dag, "c", vec![ready_ti(ANY, 0)]).await;
    let wanted = [of_b[0], of_a[2], of_a[0], TiPk(of_b[0].0 + 1000)];
    let runs = [c, b, a, RunPk(c.0 + 1000)];
    let mut tx = bed.tx().await;
    let mut expected = (
        tx.lock_runs(&runs).await.unwrap(),
        tx.load_tis(&wanted).await.unwrap(),
    );
    drop(tx);
    let mut tx = bed.tx().await;
    let mut loaded = tx.lock_and_load(&runs, &wanted).await.unwrap();
    for (runs, tis) in [&mut expected, &mut loaded] {
        runs.sort_by_key(|run| run.pk);
        tis.sort_by_key(|ti| ti.pk);
    }
    assert_eq!(loaded.0.len(), 3);
    assert_eq!(loaded.1.len(), 3);
    assert_eq!(loaded, expected);
    let (runs, tis) = tx.lock_and_load(&[a], &[]).await.unwrap();
    assert_eq!((runs.len(), tis.len()), (1, 0));
}

fn attempt(row: &TiRow) -> AttemptRow {
    AttemptRow {
        ti: row.pk,
        try_number: 1,
        attempt: Uuid::now_v7(),
        fence: Fence(1),
        ending: "success".to_owned(),
        started_at: Some(after(-2)),
        ended_at: after(-1),
        worker: Some("w".to_owned()),
        hostname: None,
        pid: Some(7),
        exit_code: Some(0),
        reason: None,
    }
}

fn message(ti: TiPk, run: RunPk, fence: i64) -> OutboxRow {
    OutboxRow {
        run,
        dispatch: Dispatch {
            ti,
            fence: Fence(fence),
        },
        queue: "default".to_owned(),
        body: "{}".to_owned(),
        epoch: 1,
        claim_by: after(60),
        priority: 1,
    }
}

pub async fn every_part_is_written_in_one_go<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (run, tis) = bed
        .running(&dag, "r", vec![ready_ti(ANY, 0), ready_ti(ANY, 1)])
        .await;
    bed.running(&dag, "other", vec![ready_ti(ANY, 0)]).await;
    let before = bed.edit_ti(tis[0], |ti| make_queued(ti, after(60))).await;
    let mut tx = bed.tx().await;
    tx.insert_outbox(&[message(tis[0], run, 1)]).await.unwrap();
    tx.commit().await.unwrap();

    let ended = TiRow {
        state: TaskState::Success,
        ended_at: Some(after(-1)),
        occupies: false,
        claim_by: None,
        ..before.clone()
    };
    let mut run_row = bed.run_by_pk(run).await.unwrap().unwrap();
    run_row.unfinished_tasks = 1;
    run_row.ready_tasks = 0;
    run_row.active_tasks = 1;
    let xcom = XcomRow {
        run,
        ti: tis[0],
        task_idx: 0,
        map_index: -1,
        key: "return_value".to_owned(),
        fence: Fence(1),
        value: XcomValue::Inline(json!([1, "x"])),
    };
    let attempts = [attempt(&ended)];
    let outbox = [message(tis[1], run, 1)];
    let pool = LimitKey::pool("default_pool");
    let mut tx = bed.tx().await;
    let (limits, others) = tx
        .lock_limits_and_look(std::slice::from_ref(&pool), Some(&[run]))
        .await
        .unwrap();
    assert_eq!((limits.len(), others), (1, true));
    let (limits, others) = tx
        .lock_limits_and_look(std::slice::from_ref(&pool), None)
        .await
        .unwrap();
    assert_eq!((limits.len(), others), (1, false), "not asked");
    let fenced = TiWrite {
        row: ended.clone(),
        expected_state: TaskState::Queued,
        expected_fence: Fence(0),
    };
    let written = tx
        .write(&Writes {
            tis: &[TiWrite {
                expected_fence: Fence(1),
                ..fenced.clone()
            }],
            runs: std::slice::from_ref(&run_row),
            xcoms: std::slice::from_ref(&xcom),
            attempts: &attempts,
            limits: &[(pool.clone(), 2), (pool.clone(), 1)],
            outbox: &outbox,
            published: &[before.dispatch()],
            ask_others: Some(&[run]),
        })
        .await
        .unwrap();
    assert_eq!((written.tis, written.others_wait), (1, true));
    assert_eq!(tx.write(&Writes::default()).await.unwrap().tis, 0);
    let alone = Writes {
        tis: &[fenced],
        ..Writes::default()
    };
    let written = tx.write(&alone).await.unwrap();
    assert_eq!((written.tis, written.others_wait), (0, false), "fenced");
    tx.commit().await.unwrap();

    assert_eq!(bed.load(tis[0]).await, ended);
    assert_eq!(bed.run_by_pk(run).await.unwrap(), Some(run_row));
    assert_eq!(bed.xcoms(run, None, None).await.unwrap(), [xcom]);
    assert_eq!(bed.attempts(tis[0]).await.unwrap(), attempts);
    assert_eq!(
        bed.limits(std::slice::from_ref(&pool)).await.unwrap()[0].used,
        3
    );
    assert_eq!(bed.unpublished(Duration::ZERO, 10).await.unwrap(), outbox);
}

/// Each part keeps its refusals, and the transaction cannot be committed after one.
pub async fn a_refused_part_stops_the_whole<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (run, tis) = bed.running(&dag, "r", vec![ready_ti(ANY, 0)]).await;
    let row = bed.load(tis[0]).await;
    let attempts = [attempt(&row)];
    let mut tx = bed.tx().await;
    tx.insert_attempts(&attempts).await.unwrap();
    tx.commit().await.unwrap();
    let too_much = [(LimitKey::pool("default_pool"), 1000)];
    let outbox = [message(tis[0], run, 1)];
    let refused = [
        Writes {
            attempts: &attempts,
            outbox: &outbox,
            ..Writes::default()
        },
        Writes {
            limits: &too_much,
            outbox: &outbox,
            ..Writes::default()
        },
    ];
    for writes in refused {
        let mut tx = bed.tx().await;
        let error = tx.write(&writes).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
        if !writes.limits.is_empty() {
            assert!(error.to_string().contains("default_pool"), "{error}");
        }
        drop(tx);
        assert!(
            bed.unpublished(Duration::ZERO, 10)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

fn start(row: &TiRow, fence: i64) -> Started {
    Started {
        run: row.run,
        dispatch: Dispatch {
            ti: row.pk,
            fence: Fence(fence),
        },
        worker: "w1".to_owned(),
        hostname: "host".to_owned(),
        pid: Some(17),
        at: after(-3),
    }
}

pub async fn starts_are_noted_once<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let queue = LimitKey::queue("default");
    let (_, tis) = bed
        .running(&dag, "r", (0..3).map(|n| ready_ti(ANY, n)).collect())
        .await;
    let mut rows = Vec::new();
    for ti in &tis {
        rows.push(bed.edit_ti(*ti, |ti| make_queued(ti, after(60))).await);
    }
    let mut tx = bed.tx().await;
    tx.ensure_limits(&[(queue.clone(), 4)], true).await.unwrap();
    tx.spend_limits(&[(queue.clone(), 4)]).await.unwrap();
    tx.commit().await.unwrap();
    let used = async || bed.limits(std::slice::from_ref(&queue)).await.unwrap()[0].used;

    let (good, stale) = (start(&rows[0], 1), start(&rows[1], 7));
    let starts = bed.record_starts(&[&good, &stale]).await.unwrap();
    assert_eq!((starts.written, starts.made_room), (1, true));
    assert_eq!(used().await, 3);
    let noted = bed.load(tis[0]).await;
    let expected = TiRow {
        state: TaskState::Running,
        started_at: Some(good.at),
        worker: Some("w1".to_owned()),
        hostname: Some("host".to_owned()),
        pid: Some(17),
        ..rows[0].clone()
    };
    assert_eq!(noted, expected);
    assert_eq!(bed.load(tis[1]).await, rows[1]);

    // Again, and one that comes twice; the queue was not full any more.
    let other = start(&rows[2], 1);
    let starts = bed.record_starts(&[&good, &other, &other]).await.unwrap();
    assert_eq!((starts.written, starts.made_room), (1, false));
    assert_eq!(used().await, 2);
    assert_eq!(bed.load(tis[0]).await, expected);
    // Of a run that it is not of.
    let astray = Started {
        run: RunPk(rows[1].run.0 + 1000),
        ..start(&rows[1], 1)
    };
    assert_eq!(bed.record_starts(&[&astray]).await.unwrap().written, 0);
    assert_eq!(bed.record_starts(&[]).await.unwrap().written, 0);
    assert_eq!(used().await, 2);
}
