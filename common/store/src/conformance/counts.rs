//! What a hop and a fan-out cost in statements and transactions, without servers around: the figures of a regression gate,
//! which wall time could not be. Each backend asserts its own.

use super::bed::{Bed, after, version_of};
use crate::{Applied, Backend, DispatchContext, NewRun, Store};
use gristmill_common::{
    engine::Command,
    message::{Ending, Finished, Started},
    row::OutboxRow,
    spec::DagSpec,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Statements and transactions.
pub type Counts = (u64, u64);

pub(super) fn context() -> DispatchContext {
    DispatchContext {
        epoch: Some(1),
        claim_window: Duration::from_secs(60),
        batch: 500,
        plans: Arc::default(),
        published: Arc::default(),
        token: Arc::new(|_| "token".to_owned()),
    }
}

pub(super) async fn started_run<B: Backend>(
    bed: &Bed<B>,
    tasks: Value,
    context: &DispatchContext,
) -> Applied {
    let spec: DagSpec = serde_json::from_value(
        json!({ "dag_id": "counted", "max_active_tasks": 1000, "tasks": tasks }),
    )
    .unwrap();
    let (version, _) = bed.deploy(&version_of(spec)).await;
    let run = NewRun {
        max_active_tasks: 1000,
        ..super::bed::manual_run(&version, "r")
    };
    bed.insert_run(&run).await;
    bed.start_runs(context).await.unwrap()
}

fn start(row: &OutboxRow) -> Command {
    Command::Started(Started {
        run: row.run,
        dispatch: row.dispatch,
        worker: "w".to_owned(),
        hostname: "h".to_owned(),
        pid: Some(1),
        at: after(-1),
    })
}

pub(super) fn ending(row: &OutboxRow) -> Command {
    Command::Finished(Box::new(Finished {
        run: row.run,
        dispatch: row.dispatch,
        worker: "w".to_owned(),
        hostname: "h".to_owned(),
        started_at: after(-1),
        ended_at: after(0),
        ending: Ending::Success,
        exit_code: Some(0),
        pid: Some(1),
        reason: None,
        xcoms: Vec::new(),
    }))
}

/// What one hop of a chain costs: a start that comes alone, and the ending that dispatches the next task and takes the last
/// message out of the outbox. The least of several: whatever a backend does by itself may come on top of one.
pub async fn of_a_hop<B: Backend>(store: B) -> Counts {
    let bed = Bed::new(store).await;
    let context = context();
    let tasks: Vec<Value> = (0..8)
        .map(|n| match n {
            0 => json!({ "task_id": "t0", "noop": {} }),
            n => json!({ "task_id": format!("t{n}"), "noop": {}, "depends_on": [format!("t{}", n - 1)] }),
        })
        .collect();
    let mut out = started_run(&bed, json!(tasks), &context).await.outbox;
    let mut least = (u64::MAX, u64::MAX);
    for _ in 1..tasks.len() {
        assert_eq!(out.len(), 1, "one task after the other");
        context.published.add(vec![out[0].dispatch]);
        let before = bed.statements();
        bed.apply(&[start(&out[0])], &[], &context).await.unwrap();
        let applied = bed.apply(&[ending(&out[0])], &[], &context).await.unwrap();
        let after = bed.statements();
        least = (
            least.0.min(after.0 - before.0),
            least.1.min(after.1 - before.1),
        );
        assert!(!applied.more_ready);
        out = applied.outbox;
    }
    let last = bed.apply(&[ending(&out[0])], &[], &context).await.unwrap();
    assert_eq!(last.ended_runs.len(), 1);
    let waiting = bed.unpublished(Duration::ZERO, 10).await.unwrap();
    assert_eq!(waiting.len(), 1, "all but the last message are deleted");
    least
}

/// What a fan-out of `tasks` mapped instances costs from its start to its end, in thousandths per instance, when events
/// come `batch` at a time.
pub async fn of_a_fan_out<B: Backend>(store: B, tasks: usize, batch: usize) -> Counts {
    let bed = Bed::new(store).await;
    let context = context();
    let mut tx = bed.tx().await;
    let wide = [(crate::LimitKey::pool("default_pool"), -1)];
    crate::Tx::ensure_limits(&mut tx, &wide, true)
        .await
        .unwrap();
    crate::Tx::commit(tx).await.unwrap();
    let mapped: Vec<usize> = (0..tasks).collect();
    let before = bed.statements();
    let node = json!([
        { "task_id": "m", "noop": {}, "expand": { "i": mapped } },
        { "task_id": "after", "empty": {}, "depends_on": ["m"] },
    ]);
    let mut out = started_run(&bed, node, &context).await.outbox;
    loop {
        let more = bed.dispatch_ready(&context).await.unwrap().outbox;
        if more.is_empty() {
            break;
        }
        out.extend(more);
    }
    assert_eq!(out.len(), tasks);
    context
        .published
        .add(out.iter().map(|row| row.dispatch).collect());
    let mut ended = 0;
    for some in out.chunks(batch) {
        let starts: Vec<Command> = some.iter().map(start).collect();
        bed.apply(&starts, &[], &context).await.unwrap();
        let endings: Vec<Command> = some.iter().map(ending).collect();
        ended += bed
            .apply(&endings, &[], &context)
            .await
            .unwrap()
            .ended_runs
            .len();
    }
    assert_eq!(ended, 1);
    let after = bed.statements();
    let per_thousand = |n: u64| n * 1000 / tasks as u64;
    (
        per_thousand(after.0 - before.0),
        per_thousand(after.1 - before.1),
    )
}
