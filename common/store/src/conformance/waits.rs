//! Waits without a worker.

use super::bed::{Bed, after, manual_run, ready_ti};
use crate::{ApprovalFilter, ApprovalRow, AwaitedEnd, Backend, DueWait, NewRun, Tx, WaitTx};
use gristmill_common::{
    ids::{RunPk, TiPk},
    row::TiRow,
    state::{RunState, TaskState},
};
use std::collections::BTreeMap;

const ANY: RunPk = RunPk(0);

fn waiting(idx: i32, state: TaskState, due: Option<i64>) -> TiRow {
    TiRow {
        state,
        next_at: due.map(after),
        ..ready_ti(ANY, idx)
    }
}

pub async fn due_waits_come_oldest_first<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let tis = vec![
        waiting(0, TaskState::UpForReschedule, Some(-10)),
        waiting(1, TaskState::Deferred, Some(-30)),
        waiting(2, TaskState::AwaitingInput, Some(-20)),
        TiRow {
            map_index: 1,
            ..waiting(0, TaskState::Deferred, Some(60))
        },
        TiRow {
            map_index: 2,
            ..waiting(0, TaskState::AwaitingInput, None)
        },
        TiRow {
            map_index: 3,
            ..waiting(0, TaskState::UpForRetry, Some(-90))
        },
    ];
    let (run, keys) = bed.running(&dag, "r", tis).await;
    let mut tx = bed.tx().await;
    let due = |ti| DueWait {
        ti,
        run,
        admit: false,
    };
    let all = tx.due_waits(10).await.unwrap();
    assert_eq!(all, [keys[1], keys[2], keys[0]].map(due));
    assert_eq!(tx.due_waits(1).await.unwrap(), [due(keys[1])]);
    drop(tx);
    let to_do = bed.to_do(std::time::Duration::ZERO).await.unwrap();
    assert!(to_do.waits);
}

pub async fn ended_runs_name_who_waits_for_them<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let (run, keys) = bed
        .running(&dag, "parent", vec![waiting(0, TaskState::Deferred, None)])
        .await;
    let child = bed.insert_run(&manual_run(&dag, "child")).await;
    let orphan = bed.insert_run(&manual_run(&dag, "orphan")).await;
    let mut tx = bed.tx().await;
    assert_eq!(tx.trigger_depth(child).await.unwrap(), Some(0));
    tx.note_trigger(child, 3, Some(keys[0])).await.unwrap();
    tx.note_trigger(orphan, 1, Some(TiPk(i64::MAX)))
        .await
        .unwrap();
    assert_eq!(tx.trigger_depth(child).await.unwrap(), Some(3));
    assert_eq!(tx.trigger_depth(RunPk(i64::MAX)).await.unwrap(), None);
    assert!(
        tx.awaited_ends(10).await.unwrap().is_empty(),
        "none has ended"
    );
    tx.commit().await.unwrap();
    bed.end_run(child, after(-1)).await;
    bed.end_run(orphan, after(-1)).await;
    assert!(bed.to_do(std::time::Duration::ZERO).await.unwrap().waits);
    let mut tx = bed.tx().await;
    let expected = [
        AwaitedEnd {
            run: child,
            waiter: keys[0],
            waiting_run: Some(run),
        },
        AwaitedEnd {
            run: orphan,
            waiter: TiPk(i64::MAX),
            waiting_run: None,
        },
    ];
    assert_eq!(tx.awaited_ends(10).await.unwrap(), expected);
    tx.forget_waiters(&[child, orphan]).await.unwrap();
    assert!(tx.awaited_ends(10).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    assert!(!bed.to_do(std::time::Duration::ZERO).await.unwrap().waits);
}

pub async fn other_dags_are_looked_up_by_date<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("other").await;
    let date = after(-3600);
    let dated = |run_id: &str| NewRun {
        logical_date: Some(date),
        ..manual_run(&dag, run_id)
    };
    bed.insert_run(&dated("older")).await;
    let run = bed.insert_run(&dated("newer")).await;
    bed.edit_run(run, |row| {
        row.state = RunState::Running;
        row.started_at = Some(after(-60));
    })
    .await;
    let mapped = |map_index, state| TiRow {
        map_index,
        expanded_len: (map_index < 0).then_some(3),
        ended_at: Some(after(-5)),
        ..waiting(0, state, None)
    };
    bed.insert_tis(
        run,
        vec![
            TiRow {
                ended_at: None,
                ..mapped(-1, TaskState::None)
            },
            mapped(0, TaskState::Success),
            mapped(1, TaskState::Success),
            mapped(2, TaskState::Failed),
        ],
    )
    .await;
    let mut tx = bed.tx().await;
    let wanted = [
        ("other".to_owned(), after(-7200)),
        ("other".to_owned(), date),
        ("missing".to_owned(), date),
        ("other".to_owned(), date),
    ];
    let found = tx.runs_of_dates(&wanted).await.unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|run| run.map(|run| (run.run, run.version, run.state)))
        .collect();
    let newest = Some((run, dag.pk, RunState::Running));
    assert_eq!(seen, [None, newest, None, newest]);
    let states = tx.task_states(&[(run, 1), (run, 0)]).await.unwrap();
    let of_task = BTreeMap::from([(TaskState::Success, 2), (TaskState::Failed, 1)]);
    assert_eq!(states, [BTreeMap::new(), of_task]);
    assert_eq!(tx.dag("other").await.unwrap().unwrap().version, dag.pk);
    assert_eq!(tx.dag("missing").await.unwrap(), None);
}

pub async fn approvals_are_asked_listed_and_answered_once<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let dag = bed.dag("d").await;
    let tis = vec![
        waiting(0, TaskState::AwaitingInput, None),
        waiting(1, TaskState::AwaitingInput, None),
    ];
    let (run, keys) = bed.running(&dag, "r", tis).await;
    let asked = |ti: TiPk, task_id: &str, try_number: i32| ApprovalRow {
        run,
        ti,
        task_id: task_id.to_owned(),
        map_index: -1,
        try_number,
        prompt: "Go \"on\"?\nReally".to_owned(),
        options: vec!["approve".to_owned(), "rej,ect".to_owned()],
        who: vec!["op".to_owned()],
        default: Some("approve".to_owned()),
        created_at: after(i64::from(try_number)),
        due_at: Some(after(60)),
        answer: None,
        answered_by: None,
        answered_at: None,
    };
    let rows = [
        asked(keys[0], "t0", 1),
        asked(keys[0], "t0", 2),
        asked(keys[1], "t1", 3),
    ];
    let mut tx = bed.tx().await;
    for row in &rows {
        tx.put_approval(row).await.unwrap();
    }
    assert_eq!(tx.approval(keys[0]).await.unwrap().as_ref(), Some(&rows[1]));
    assert_eq!(tx.approval(TiPk(i64::MAX)).await.unwrap(), None);
    let at = after(0);
    let answered = tx.put_answer(keys[0], 2, "approve", "ann", at).await;
    assert!(answered.unwrap());
    let again = tx.put_answer(keys[0], 2, "rej,ect", "ben", at).await;
    assert!(!again.unwrap(), "an answer stands");
    tx.commit().await.unwrap();
    let listed = async |filter: ApprovalFilter| {
        let page = bed
            .approvals(&ApprovalFilter {
                limit: 10,
                ..filter
            })
            .await
            .unwrap();
        assert_eq!(page.total, page.rows.len() as i64);
        let key = |row: &ApprovalRow| (row.ti, row.try_number);
        page.rows.iter().map(key).collect::<Vec<_>>()
    };
    let none = ApprovalFilter::default();
    let all = [(keys[1], 3), (keys[0], 2), (keys[0], 1)];
    assert_eq!(listed(none.clone()).await, all);
    let open = ApprovalFilter {
        answered: Some(false),
        run: Some(run),
        dag_id: Some("d".to_owned()),
        ..none.clone()
    };
    assert_eq!(listed(open).await, [(keys[1], 3), (keys[0], 1)]);
    let of_one = ApprovalFilter {
        ti: Some(keys[0]),
        answered: Some(true),
        ..none.clone()
    };
    assert_eq!(listed(of_one).await, [(keys[0], 2)]);
    let elsewhere = ApprovalFilter {
        dag_id: Some("e".to_owned()),
        ..none
    };
    assert_eq!(listed(elsewhere).await, []);
}
