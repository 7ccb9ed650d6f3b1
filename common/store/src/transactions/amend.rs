//! Clear and mark.

use super::{
    finish::{Candidates, finish},
    lock_and_load,
    past::wake_runs_after,
};
use crate::{
    Backend, StoreError, StoreResult, Tx,
    store::{Amend, Amended, Change, DispatchContext},
};
use gristmill_common::{
    engine::{
        AmendError, DECISION_KEY, Picked, Plan, Selection, Wish, WorkingSet, decision_skips,
        is_picked,
    },
    ids::{RunPk, TaskIdx, TiPk},
    row::{TiRow, XcomValue},
    state::{RunState, TaskState},
};
use std::collections::{BTreeMap, HashSet};

/// What failed because of what is marked now.
const FAILED: [TaskState; 2] = [TaskState::Failed, TaskState::UpstreamFailed];

pub(crate) async fn amend<B: Backend>(
    store: &B,
    request: &Amend,
    context: &DispatchContext,
) -> StoreResult<Amended> {
    let mut tx = store.begin().await?;
    let mut ws = lock_and_load(&mut tx, &[request.run], &[], &context.plans).await?;
    let plan = ws
        .plan_of(request.run)
        .cloned()
        .ok_or_else(|| StoreError::NotFound {
            what: "run",
            name: request.run.to_string(),
        })?;
    load_nodes(&mut tx, &mut ws, request.run, &plan).await?;
    let targets = targets(&mut tx, &mut ws, request, &plan).await?;
    if request.refuse_running {
        refuse_running(&ws, &targets)?;
    }
    if request.dry_run {
        return Ok(answer(&ws, request, &targets));
    }
    let tally = tx.tally(request.run).await?;
    let amended = ws
        .amend(request.run, &targets, &request.by, tally)
        .map_err(|error| match error {
            AmendError::BeingStopped(_) => StoreError::Refused(error.to_string()),
            AmendError::NotLoaded => StoreError::Corrupt(error.to_string()),
        })?;
    change_run(&mut ws, request, !amended.cleared.is_empty());
    if !amended.cleared.is_empty() {
        tx.delete_xcoms(request.run, &amended.cleared).await?;
    }
    if let (Some(note), Some(row)) = (&request.note, ws.run_for_writing(request.run)) {
        row.note = Some(note.clone());
    }
    if let Some(row) = ws.run(request.run) {
        tx.announce_run(row).await?;
    }
    let answer = answer(&ws, request, &targets);
    let mut applied = finish(&mut tx, ws, Candidates::Own, &[], context).await?;
    if let Some(audit) = &request.audit {
        tx.put_audits(std::slice::from_ref(audit)).await?;
    }
    tx.commit().await?;
    // What this makes ready, schedulers find; as they do for the run itself.
    wake_runs_after(store, &mut applied, context).await;
    Ok(answer)
}

async fn load_nodes<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    run: RunPk,
    plan: &Plan,
) -> StoreResult<()> {
    let nodes: Vec<(RunPk, TaskIdx)> = (0..plan.spec.tasks.len() as TaskIdx)
        .map(|idx| (run, idx))
        .collect();
    for row in tx.load_nodes(&nodes).await? {
        ws.add_ti(row);
    }
    Ok(())
}

/// The instances that the request is about, now that the run is locked, and what is to become of each.
async fn targets<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    request: &Amend,
    plan: &Plan,
) -> StoreResult<Vec<(TiPk, Wish)>> {
    let (selection, wish) = match &request.change {
        Change::Clear(selection) => (selection.clone(), Wish::Clear),
        Change::Mark(selection, state) => (selection.clone(), Wish::Mark(*state)),
        Change::MarkRun(RunState::Success) => {
            (Selection::default(), Wish::Mark(TaskState::Success))
        }
        Change::MarkRun(_) | Change::Note => return Ok(Vec::new()),
    };
    let picked = selection.tasks(plan);
    let tasks: Vec<TaskIdx> = picked.keys().copied().collect();
    let remembered = match wish {
        Wish::Clear => remembered_skips(tx, request.run, plan, &picked).await?,
        Wish::Mark(_) => HashSet::new(),
    };
    let mut targets = Vec::new();
    for row in tx
        .load_tasks(request.run, &tasks, &selection.states)
        .await?
    {
        let (pk, is_picked) = (row.pk, selection.picks(&picked, &row));
        let unchanged = match wish {
            Wish::Clear if row.state == TaskState::Skipped => remembered.contains(&row.task_idx),
            Wish::Clear => row.state == TaskState::None,
            Wish::Mark(state) => row.state == state,
        };
        if is_picked && !unchanged {
            ws.add_ti(row);
            targets.push((pk, wish));
        }
    }
    if matches!(wish, Wish::Mark(_)) && !targets.is_empty() {
        // What failed for the sake of what is marked is decided anew.
        let below = selection.below(plan);
        let tasks: Vec<TaskIdx> = below.keys().copied().collect();
        let failed = tx.load_tasks(request.run, &tasks, &FAILED).await?;
        for row in failed.into_iter().filter(|row| is_picked(&below, row)) {
            targets.push((row.pk, Wish::Clear));
            ws.add_ti(row);
        }
    }
    Ok(targets)
}

/// Tasks that a branch or the like has skipped which is not cleared itself: its decision stands, and they stay skipped.
async fn remembered_skips<T: Tx>(
    tx: &mut T,
    run: RunPk,
    plan: &Plan,
    picked: &BTreeMap<TaskIdx, Picked>,
) -> StoreResult<HashSet<TaskIdx>> {
    let decides = |idx: &TaskIdx| {
        plan.task(*idx)
            .is_some_and(|task| task.kind.decider().is_some())
    };
    let deciders: Vec<TaskIdx> = (0..plan.spec.tasks.len() as TaskIdx)
        .filter(|idx| decides(idx) && !picked.contains_key(idx))
        .collect();
    if deciders.is_empty() {
        return Ok(HashSet::new());
    }
    let mut skipped = HashSet::new();
    for xcom in tx
        .xcoms_of_tasks(run, &deciders, &[DECISION_KEY.to_owned()])
        .await?
    {
        let XcomValue::Inline(record) = xcom.value else {
            continue;
        };
        // A branch skips direct downstreams only, a short circuit names all that it skips.
        let direct = plan.graph.downstream(xcom.task_idx);
        skipped.extend(
            plan.graph
                .all_downstream(xcom.task_idx)
                .into_iter()
                .filter(|idx| direct.contains(idx) || record.get("skipped").is_some())
                .filter(|idx| {
                    plan.task(*idx)
                        .is_some_and(|task| decision_skips(&record, &task.task_id))
                }),
        );
    }
    Ok(skipped)
}

fn refuse_running(ws: &WorkingSet, targets: &[(TiPk, Wish)]) -> StoreResult<()> {
    let running: Vec<String> = targets
        .iter()
        .filter_map(|(ti, _)| ws.ti(*ti))
        .filter(|row| row.state.is_dispatched())
        .take(5)
        .map(|row| match row.map_index {
            index if index < 0 => row.task_id.clone(),
            index => format!("{}[{index}]", row.task_id),
        })
        .collect();
    if running.is_empty() {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "{} is running, and prevent_running_task was asked for: wait for its end, or clear without it",
        running.join(", ")
    )))
}

/// What is asked of the run itself.
fn change_run(ws: &mut WorkingSet, request: &Amend, has_cleared: bool) {
    let run = request.run;
    match &request.change {
        // A run that was stopped before it started has no instances: it starts like a new one.
        Change::Clear(Selection {
            tasks: None,
            states,
            ..
        }) if !has_cleared && states.is_empty() => {
            if ws.run(run).is_some_and(|row| row.started_at.is_none()) {
                ws.requeue_run(run);
            }
        }
        Change::MarkRun(RunState::Queued | RunState::Running) => {
            ws.requeue_run(run);
        }
        Change::MarkRun(state) => {
            ws.set_outcome(run, *state, &format!("marked {state} by {}", request.by));
        }
        Change::Clear(_) | Change::Mark(..) | Change::Note => {}
    }
}

/// The instances as they are in the set.
fn answer(ws: &WorkingSet, request: &Amend, targets: &[(TiPk, Wish)]) -> Amended {
    let distinct: HashSet<TiPk> = targets.iter().map(|(ti, _)| *ti).collect();
    let rows: Vec<TiRow> = targets
        .iter()
        .take(request.list)
        .filter_map(|(ti, _)| ws.ti(*ti).cloned())
        .collect();
    Amended {
        rows,
        total: distinct.len(),
    }
}
