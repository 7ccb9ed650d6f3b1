//! Deadlines: armed when a run is accepted and when it starts, looked at when they have come.
//!
//! Runs of backfills have none: they are late by design. A run has one time in its row, that of its earliest deadline which nobody has looked at; it stays there beyond the run's end,
//! so a run that ended late is found even if no scheduler was there in time.

use super::lock_and_load;
use crate::{
    Backend, CallTx, MissedDeadline, StoreResult, Tx,
    store::{Applied, DispatchContext},
};
use gristmill_common::{
    deadline::{self, Due, Known},
    engine::WorkingSet,
    ids::RunPk,
};

/// Runs that one pass looks at.
const PASS: i64 = 100;

/// Arms the deadlines that count from the start of runs that start.
pub(super) async fn arm<T: Tx>(tx: &mut T, ws: &WorkingSet, runs: &[RunPk]) -> StoreResult<()> {
    let mut next = Vec::new();
    for run in runs {
        let Some(plan) = ws.plan_of(*run) else {
            continue;
        };
        if ws.run(*run).is_none_or(|row| row.backfill.is_some()) {
            continue;
        }
        // Those that counted from elsewhere and were looked at are looked at once more, and known as such.
        if deadline::needs(&plan.spec).0
            && let Some(known) = known(tx, ws, *run).await?
        {
            next.push((*run, deadline::first(&plan.spec, &known)));
        }
    }
    tx.set_next_deadlines(&next).await
}

async fn known<T: Tx>(tx: &mut T, ws: &WorkingSet, run: RunPk) -> StoreResult<Option<Known>> {
    let Some((row, plan)) = ws.run(run).zip(ws.plan_of(run)) else {
        return Ok(None);
    };
    let average = match deadline::needs(&plan.spec).1 {
        true => tx.average_runtime(&row.dag_id).await?,
        false => None,
    };
    Ok(Some(Known::of(row, average)))
}

pub(crate) async fn look_at_deadlines<B: Backend>(
    store: &B,
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let mut runs = tx.due_deadlines(PASS).await?;
    if runs.is_empty() {
        return Ok(Applied::default());
    }
    runs.sort_unstable();
    let mut ws = lock_and_load(&mut tx, &runs, &[], &context.plans).await?;
    let now = ws.now;
    let mut next = Vec::with_capacity(runs.len());
    for run in &runs {
        let Some((plan, known)) = ws
            .plan_of(*run)
            .cloned()
            .zip(known(&mut tx, &ws, *run).await?)
        else {
            continue;
        };
        let all = deadline::all(&plan.spec, &known);
        for due in all.iter().filter(|due| due.at <= now) {
            look(&mut tx, &mut ws, *run, due).await?;
        }
        let later = all.iter().map(|due| due.at).filter(|at| *at > now).min();
        next.push((*run, later));
    }
    tx.put_calls(&ws.calls).await?;
    tx.set_next_deadlines(&next).await?;
    let called = !ws.calls.is_empty();
    tx.commit().await?;
    Ok(Applied {
        touched: runs.len(),
        calls: called,
        ..Applied::default()
    })
}

/// Notes a deadline that has come as missed, and calls, unless all had ended by then.
async fn look<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    run: RunPk,
    due: &Due<'_>,
) -> StoreResult<()> {
    let Some(row) = ws.run(run) else {
        return Ok(());
    };
    if row.ended_at.is_some_and(|at| at <= due.at) {
        return Ok(());
    }
    let late = match due.task {
        None => true,
        // One that has no instances has not started.
        Some(_) if row.started_at.is_none() => true,
        Some(task) => {
            let rows = tx.load_tasks(run, &[task], &[]).await?;
            rows.iter()
                .filter(|row| row.is_visible())
                .any(|row| !row.state.is_finished() || row.ended_at.is_none_or(|at| at > due.at))
        }
    };
    if !late {
        return Ok(());
    }
    let task_id = due
        .task
        .and_then(|idx| Some(ws.plan_of(run)?.task(idx)?.task_id.clone()));
    let missed = MissedDeadline {
        run,
        task_id: task_id.clone(),
        position: due.position,
        due_at: due.at,
        missed_at: ws.now,
    };
    if tx.put_missed(&missed).await? {
        ws.call_for_deadline(run, task_id.as_deref(), due);
    }
    Ok(())
}
