//! Looks at what waits without a worker.
//!
//! One pass takes what is due: sensors whose next poke a worker makes become ready; everything else is looked at here, in
//! the transaction that also writes what comes of it. So a triggered run and the instance that triggered it, or an answer
//! and the ending that it leads to, are there together or not at all. Runs that ended while an instance waits for them
//! name it themselves: whoever waits is not looked at in between.

use super::{
    admit::admit,
    assets,
    finish::{Candidates, finish, pulled_values},
    lock_and_load, plan,
};
use crate::{
    ApprovalRow, AwaitedEnd, Backend, DueWait, StoreError, StoreResult, Tx, WaitTx,
    records::{Answer, NewRun, TiWrite},
    store::{Applied, DispatchContext},
};
use chrono::{DateTime, SecondsFormat, Utc};
use gristmill_common::{
    deadline,
    engine::{self, Command, RenderedTrigger, Waiting, WorkingSet},
    ids::{RunPk, TaskIdx, TiPk, valid_run_id},
    message::{Ending, XcomOut},
    params::{MAX_CONF, check_params},
    row::{RunRow, RunType, TiRow, XcomValue},
    spec::{ApprovalTask, OnReject, OtherDag, REJECT, TaskKind, TriggerDagTask},
    state::{RunState, TaskState},
    timetable::Timetable,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use uuid::Uuid;

/// Instances that one pass takes.
const PASS: i64 = 500;
/// Runs that may make each other in a row: a cycle of DAGs that trigger each other ends there.
const DEEPEST: i32 = 32;
/// Kept for runs that the scheduler makes.
const RESERVED: [&str; 2] = ["scheduled__", "backfill__"];

pub(crate) async fn look_at_waits<B: Backend>(
    store: &B,
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut tx = store.begin().await?;
    let due = tx.due_waits(PASS).await?;
    let ends = tx.awaited_ends(PASS).await?;
    if due.is_empty() && ends.is_empty() {
        return Ok(Applied::default());
    }
    let (admitted, due): (Vec<DueWait>, Vec<DueWait>) = due.into_iter().partition(|due| due.admit);
    if !admitted.is_empty() {
        // In a transaction of its own: its pools' locks come before those that endings need. What is due otherwise is looked
        // at right after it.
        if admit(tx, &admitted, context).await? {
            return Ok(Applied {
                waits: true,
                touched: admitted.len(),
                ..Applied::default()
            });
        }
        tx = store.begin().await?;
    }
    let waiting = ends.iter().filter_map(|end| end.waiting_run);
    let runs: BTreeSet<RunPk> = due
        .iter()
        .map(|due| due.run)
        .chain(ends.iter().map(|end| end.run))
        .chain(waiting)
        .collect();
    let tis: BTreeSet<TiPk> = due
        .iter()
        .map(|due| due.ti)
        .chain(ends.iter().map(|end| end.waiter))
        .collect();
    let (runs, tis): (Vec<_>, Vec<_>) = (runs.into_iter().collect(), tis.into_iter().collect());
    let mut ws = lock_and_load(&mut tx, &runs, &tis, &context.plans).await?;
    tell_waiters(&mut tx, &mut ws, &ends).await?;
    let mut later = ToLookUp::default();
    for DueWait { ti, run, .. } in &due {
        let now = ws.now;
        let Some(row) = ws.ti(*ti).filter(|row| is_due(row, now)) else {
            continue;
        };
        if row.waits_for_past() {
            ws.look_back_again(*ti);
        } else if row.state == TaskState::UpForReschedule {
            ws.apply(&Command::RetryDue { run: *run, ti: *ti });
        } else if ws.run(*run).is_some_and(|run| run.stop_reason.is_none()) {
            look(&mut tx, &mut ws, *ti, &mut later, context).await?;
        }
    }
    look_at_dags(&mut tx, &mut ws, later.dags, context).await?;
    look_at_assets(&mut tx, &mut ws, later.assets).await?;
    let full = due.len().max(ends.len()) as i64 >= PASS;
    let mut applied = finish(&mut tx, ws, Candidates::Own, &[], context).await?;
    tx.commit().await?;
    applied.touched = due.len() + ends.len();
    applied.waits |= full;
    Ok(applied)
}

/// Another scheduler may have looked since it was found.
pub(super) fn is_due(row: &TiRow, now: DateTime<Utc>) -> bool {
    let waits = matches!(
        row.state,
        TaskState::UpForReschedule | TaskState::Deferred | TaskState::AwaitingInput
    );
    (waits || row.waits_for_past()) && row.next_at.is_some_and(|at| at <= now)
}

/// A sensor that waits for another DAG.
struct OfDag {
    ti: TiPk,
    other: Box<OtherDag>,
    date: DateTime<Utc>,
}

/// A sensor that waits for an update of an asset.
struct OfAsset {
    ti: TiPk,
    name: String,
    since: DateTime<Utc>,
}

/// Sensors whose answers are looked up together.
#[derive(Default)]
struct ToLookUp {
    dags: Vec<OfDag>,
    assets: Vec<OfAsset>,
}

/// Looks at one deferred instance.
async fn look<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    ti: TiPk,
    later: &mut ToLookUp,
    context: &DispatchContext,
) -> StoreResult<()> {
    ws.begin_wait(ti, Uuid::now_v7());
    let xcoms = pulled_values(tx, ws, ti).await?;
    match ws.waiting(ti, Arc::new(xcoms)) {
        Err(reason) => ws.end_wait(ti, Ending::FailedForGood, Some(reason), Vec::new()),
        Ok(Waiting::Until(at)) => ws.wait_for_time(ti, at),
        Ok(Waiting::Dag { other, date }) => {
            later.dags.push(OfDag { ti, other, date });
            None
        }
        Ok(Waiting::Asset { name, since }) => {
            later.assets.push(OfAsset { ti, name, since });
            None
        }
        Ok(Waiting::Trigger(trigger)) => match make_run(tx, ws, ti, &trigger, context).await? {
            Ok(made) => triggered(tx, ws, ti, &trigger, made).await?,
            Err((ending, reason)) => ws.end_wait(ti, ending, Some(reason), Vec::new()),
        },
        Ok(Waiting::Run(run)) => match tx.trigger_depth(run).await? {
            Some(_) => ws.wait_for_run(ti, run, wait_reason(ws, ti)),
            None => {
                let reason = "the run that it waited for was deleted".to_owned();
                ws.end_wait(ti, Ending::Failed, Some(reason), Vec::new())
            }
        },
        Ok(Waiting::Answer { prompt }) => answered_or_due(tx, ws, ti, prompt).await?,
    };
    Ok(())
}

fn wait_reason(ws: &WorkingSet, ti: TiPk) -> String {
    ws.ti(ti)
        .and_then(|row| row.reason.clone())
        .unwrap_or_default()
}

// ---- Triggered DAGs

/// A run that was made.
struct Made {
    run: RunPk,
    dag_id: String,
    run_id: String,
    depth: i32,
}

/// Makes the run that a task triggers; or how the task ends instead.
async fn make_run<T: Tx>(
    tx: &mut T,
    ws: &WorkingSet,
    ti: TiPk,
    trigger: &RenderedTrigger,
    context: &DispatchContext,
) -> StoreResult<Result<Made, (Ending, String)>> {
    let Some(row) = ws.ti(ti) else {
        return Err(StoreError::Corrupt(format!("{ti} is not loaded")));
    };
    let again = |reason: String| Ok(Err((Ending::Failed, reason)));
    let for_good = |reason: String| Ok(Err((Ending::FailedForGood, reason)));
    let id = &trigger.dag_id;
    let Some(dag) = tx.dag(id).await?.filter(|dag| !dag.is_stale) else {
        return again(format!(
            "there is no DAG {id:?} to trigger: deploy it, or correct dag_id"
        ));
    };
    if dag.is_paused {
        return again(format!(
            "the DAG {id:?} is paused: its run would not start; unpause it with `gristmill dags unpause {id}`"
        ));
    }
    let depth = tx.trigger_depth(row.run).await?.unwrap_or_default() + 1;
    if depth > DEEPEST {
        return for_good(format!(
            "{DEEPEST} runs have triggered each other in a row: do DAGs trigger each other in a circle?"
        ));
    }
    let plan = plan(tx, dag.version, &context.plans).await?;
    let conf = trigger.conf.clone();
    let size = serde_json::to_vec(&conf).map_or(usize::MAX, |text| text.len());
    if size > MAX_CONF {
        return for_good(format!(
            "conf has {size} bytes; it may have {MAX_CONF}: pass large data by reference"
        ));
    }
    let params = if plan.spec.params.is_empty() {
        serde_json::Map::new()
    } else {
        match check_params(&plan.spec, &conf) {
            Ok(params) => params,
            Err(violations) => {
                let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
                return for_good(format!(
                    "the DAG {id:?} refuses these params: {}",
                    all.join("; ")
                ));
            }
        }
    };
    let now = ws.now;
    let date = trigger.logical_date.unwrap_or(now);
    let run_id = match &trigger.run_id {
        Some(given) if !valid_run_id(given) => {
            return for_good(format!(
                "{given:?} cannot be a run's id: it has 1 to 250 letters, digits and characters of _.~:+-"
            ));
        }
        Some(given) if RESERVED.iter().any(|kept| given.starts_with(kept)) => {
            return for_good(format!(
                "{given:?} begins as the ids of runs that the scheduler makes"
            ));
        }
        Some(given) => given.clone(),
        None => format!(
            "triggered__{}__{ti}.{}",
            date.to_rfc3339_opts(SecondsFormat::AutoSi, false),
            row.try_number
        ),
    };
    let timetable = Timetable::of(&plan.spec, dag.created_at)
        .map_err(|error| StoreError::Refused(error.to_string()))?;
    let (start, end) = timetable.map_or((date, date), |t| t.manual_interval(date));
    let new = NewRun {
        dag_id: dag.dag_id.clone(),
        run_id: run_id.clone(),
        version: dag.version,
        run_type: RunType::OperatorTriggered,
        triggered_by: "operator".to_owned(),
        backfill: None,
        logical_date: Some(date),
        data_interval_start: Some(start),
        data_interval_end: Some(end),
        run_after: now,
        conf,
        params,
        note: None,
        max_active_tasks: i32::try_from(plan.spec.max_active_tasks).unwrap_or(i32::MAX),
        timeout_ms: plan.spec.dagrun_timeout.map(|t| t.millis()),
        next_deadline: deadline::of_new(&plan.spec, Some(date), now),
        idempotency: None,
    };
    let inserted = tx.insert_runs(std::slice::from_ref(&new)).await?;
    match inserted.into_iter().flatten().next() {
        Some(run) => Ok(Ok(Made {
            run,
            dag_id: dag.dag_id,
            run_id,
            depth,
        })),
        None => for_good(format!("the DAG {id:?} has a run {run_id:?} already")),
    }
}

/// What becomes of the task once its run is made.
async fn triggered<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    ti: TiPk,
    trigger: &RenderedTrigger,
    made: Made,
) -> StoreResult<Option<()>> {
    tx.note_trigger(made.run, made.depth, trigger.wait.then_some(ti))
        .await?;
    let Made {
        run,
        dag_id,
        run_id,
        ..
    } = made;
    if trigger.wait {
        let what = format!("waits for the run {run_id} of {dag_id}");
        return Ok(ws.wait_for_run(ti, run, what));
    }
    let xcoms = run_xcoms(&dag_id, &run_id, None);
    Ok(ws.end_wait(ti, Ending::Success, None, xcoms))
}

/// The values of a `trigger_dag` task: what it returns, and the run's id under Airflow's name.
fn run_xcoms(dag_id: &str, run_id: &str, state: Option<RunState>) -> Vec<XcomOut> {
    let mut value = json!({ "dag_id": dag_id, "run_id": run_id });
    if let Some(state) = state {
        value["state"] = json!(state.as_str());
    }
    let mut xcoms = engine::returned(value);
    xcoms.push(XcomOut {
        key: "trigger_run_id".to_owned(),
        value: XcomValue::Inline(json!(run_id)),
    });
    xcoms
}

/// Ends the waits for runs that have ended.
async fn tell_waiters<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    ends: &[AwaitedEnd],
) -> StoreResult<()> {
    let mut told = Vec::with_capacity(ends.len());
    for end in ends {
        // It may run again since it was found.
        let Some(run) = ws.run(end.run).filter(|run| run.state.is_finished()) else {
            continue;
        };
        told.push(end.run);
        let (ending, reason, xcoms) = outcome_of(ws, end.waiter, run);
        let waits = |row: &TiRow| row.wait.as_ref().and_then(|wait| wait.run) == Some(end.run);
        if ws.ti(end.waiter).is_some_and(waits) {
            ws.end_wait(end.waiter, ending, reason, xcoms);
        }
    }
    tx.forget_waiters(&told).await
}

fn outcome_of(
    ws: &WorkingSet,
    waiter: TiPk,
    run: &RunRow,
) -> (Ending, Option<String>, Vec<XcomOut>) {
    let xcoms = run_xcoms(&run.dag_id, &run.run_id, Some(run.state));
    let propagates = trigger_of(ws, waiter).is_none_or(|task| task.propagate_failure);
    if run.state == RunState::Failed && propagates {
        let why = run
            .stop_reason
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        let reason = format!("the run {} of {} failed{why}", run.run_id, run.dag_id);
        return (Ending::Failed, Some(reason), xcoms);
    }
    (Ending::Success, None, xcoms)
}

fn kind_of(ws: &WorkingSet, ti: TiPk) -> Option<&TaskKind> {
    let row = ws.ti(ti)?;
    Some(&ws.plan_of(row.run)?.task(row.task_idx)?.kind)
}

fn trigger_of(ws: &WorkingSet, ti: TiPk) -> Option<&TriggerDagTask> {
    match kind_of(ws, ti)? {
        TaskKind::TriggerDag(task) => Some(task),
        _ => None,
    }
}

// ---- Other DAGs

/// Looks for the runs that sensors wait for: two statements, however many they are.
async fn look_at_dags<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    sensors: Vec<OfDag>,
    context: &DispatchContext,
) -> StoreResult<()> {
    let wanted: Vec<(String, DateTime<Utc>)> = sensors
        .iter()
        .map(|sensor| (sensor.other.dag_id.clone(), sensor.date))
        .collect();
    let found = tx.runs_of_dates(&wanted).await?;
    let mut of_tasks: Vec<(OfDag, (RunPk, TaskIdx))> = Vec::new();
    for (sensor, run) in sensors.into_iter().zip(found) {
        let dag_id = &sensor.other.dag_id;
        let Some(run) = run else {
            let date = sensor.date.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            let reason = format!("{dag_id} has no run with the logical date {date} yet");
            ws.look_again(sensor.ti, reason);
            continue;
        };
        let Some(task_id) = &sensor.other.task_id else {
            let state = BTreeMap::from([(task_state(run.state), 1)]);
            conclude(ws, &sensor, &state);
            continue;
        };
        let plan = plan(tx, run.version, &context.plans).await?;
        match plan.spec.idx(task_id) {
            Some(idx) => of_tasks.push((sensor, (run.run, idx))),
            None => {
                let reason = format!("the run of {dag_id} has no task {task_id:?}");
                ws.end_wait(sensor.ti, Ending::FailedForGood, Some(reason), Vec::new());
            }
        }
    }
    let wanted: Vec<(RunPk, TaskIdx)> = of_tasks.iter().map(|(_, task)| *task).collect();
    let states = tx.task_states(&wanted).await?;
    for ((sensor, _), states) in of_tasks.into_iter().zip(states) {
        conclude(ws, &sensor, &states);
    }
    Ok(())
}

async fn look_at_assets<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    sensors: Vec<OfAsset>,
) -> StoreResult<()> {
    let wanted: Vec<(String, DateTime<Utc>)> = sensors
        .iter()
        .map(|sensor| (sensor.name.clone(), sensor.since))
        .collect();
    let found = tx.newest_asset_events(&wanted).await?;
    for (sensor, event) in sensors.into_iter().zip(found) {
        match event {
            Some(event) => {
                let value = assets::description(&event);
                ws.end_wait(sensor.ti, Ending::Success, None, engine::returned(value));
            }
            None => {
                let since = sensor.since.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                let reason = format!("{} was not updated since {since} yet", sensor.name);
                ws.look_again(sensor.ti, reason);
            }
        }
    }
    Ok(())
}

/// A run's state by the name that a task's has.
fn task_state(state: RunState) -> TaskState {
    match state {
        RunState::Queued => TaskState::Queued,
        RunState::Running => TaskState::Running,
        RunState::Success => TaskState::Success,
        RunState::Failed => TaskState::Failed,
    }
}

fn conclude(ws: &mut WorkingSet, sensor: &OfDag, states: &BTreeMap<TaskState, i64>) {
    let OtherDag {
        dag_id,
        task_id,
        allowed_states,
        failed_states,
        ..
    } = &*sensor.other;
    let what = match task_id {
        Some(task) => format!("{dag_id}.{task}"),
        None => format!("the run of {dag_id}"),
    };
    let seen: Vec<&str> = states.keys().map(|state| state.as_str()).collect();
    let seen = if seen.is_empty() {
        "not started".to_owned()
    } else {
        seen.join(", ")
    };
    if states.keys().any(|state| failed_states.contains(state)) {
        let reason = format!("{what} is {seen}");
        ws.end_wait(sensor.ti, Ending::Failed, Some(reason), Vec::new());
    } else if !states.is_empty() && states.keys().all(|state| allowed_states.contains(state)) {
        ws.end_wait(sensor.ti, Ending::Success, None, Vec::new());
    } else {
        ws.look_again(sensor.ti, format!("{what} is {seen}"));
    }
}

// ---- Approvals

fn approval_of(ws: &WorkingSet, ti: TiPk) -> Option<&ApprovalTask> {
    match kind_of(ws, ti)? {
        TaskKind::Approval(task) => Some(task),
        _ => None,
    }
}

/// Asks, if it was not asked yet; ends the wait if there is an answer or its time is over.
async fn answered_or_due<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    ti: TiPk,
    prompt: String,
) -> StoreResult<Option<()>> {
    let now = ws.now;
    let Some((row, task)) = ws.ti(ti).zip(approval_of(ws, ti).cloned()) else {
        return Ok(None);
    };
    let try_number = row.try_number;
    let asked = tx
        .approval(ti)
        .await?
        .filter(|asked| asked.try_number == try_number);
    let Some(mut asked) = asked else {
        let asked = ApprovalRow {
            run: row.run,
            ti,
            task_id: row.task_id.clone(),
            map_index: row.map_index,
            try_number,
            prompt,
            options: task.options.clone(),
            who: task.who.clone(),
            default: task.default.clone(),
            created_at: now,
            due_at: task.timeout.map(|timeout| now + timeout.chrono()),
            answer: None,
            answered_by: None,
            answered_at: None,
        };
        tx.put_approval(&asked).await?;
        ws.call_for_answer(ti, &asked.prompt);
        let why = format!("waits for an answer of {}", asked.who.join(", "));
        return Ok(ws.wait_until(ti, asked.due_at, Some(why)));
    };
    if asked.answer.is_none() {
        if asked.due_at.is_none_or(|due| due > now) {
            return Ok(ws.wait_until(ti, asked.due_at, Some(wait_reason(ws, ti))));
        }
        let Some(default) = asked.default.clone() else {
            let reason = "nobody answered in time".to_owned();
            return Ok(ws.end_wait(ti, Ending::FailedForGood, Some(reason), Vec::new()));
        };
        let by = "timeout";
        tx.put_answer(ti, try_number, &default, by, now).await?;
        asked.answer = Some(default);
        asked.answered_by = Some(by.to_owned());
        asked.answered_at = Some(now);
    }
    Ok(conclude_approval(ws, ti, &task, &asked))
}

fn conclude_approval(
    ws: &mut WorkingSet,
    ti: TiPk,
    task: &ApprovalTask,
    asked: &ApprovalRow,
) -> Option<()> {
    let answer = asked.answer.clone()?;
    let by = asked.answered_by.clone().unwrap_or_default();
    let mut xcoms = engine::returned(json!(answer));
    xcoms.push(XcomOut {
        key: "approval".to_owned(),
        value: XcomValue::Inline(json!({
            "chosen_options": [answer],
            "responded_by": by,
            "responded_at": asked.answered_at,
        })),
    });
    let rejected = || Some(format!("rejected by {by}"));
    let (ending, reason) = match (answer.as_str() == REJECT, task.on_reject) {
        (true, OnReject::Skip) => (Ending::Skipped, rejected()),
        (true, OnReject::Fail) => (Ending::FailedForGood, rejected()),
        _ => (Ending::Success, None),
    };
    ws.end_wait(ti, ending, reason, xcoms)
}

/// Takes a person's answer; the next look at the instance, due at once, ends its wait.
pub(crate) async fn answer<B: Backend>(store: &B, answer: &Answer) -> StoreResult<()> {
    let mut tx = store.begin().await?;
    tx.lock_runs(&[answer.run]).await?;
    let Some(row) = tx.load_tis(&[answer.ti]).await?.pop() else {
        return Err(StoreError::NotFound {
            what: "task instance",
            name: answer.ti.to_string(),
        });
    };
    let asked = tx
        .approval(answer.ti)
        .await?
        .filter(|asked| asked.try_number == row.try_number && asked.answer.is_none());
    let Some(asked) = asked.filter(|_| row.state == TaskState::AwaitingInput) else {
        return Err(StoreError::Refused(format!(
            "{} awaits no answer: it is {}",
            row.task_id, row.state
        )));
    };
    if !asked.options.contains(&answer.option) {
        return Err(StoreError::Refused(format!(
            "{:?} is none of the options of {}: {}",
            answer.option,
            row.task_id,
            asked.options.join(", ")
        )));
    }
    let now = tx.now();
    tx.put_answer(answer.ti, asked.try_number, &answer.option, &answer.by, now)
        .await?;
    let write = TiWrite {
        expected_state: row.state,
        expected_fence: row.fence,
        row: TiRow {
            next_at: Some(now),
            ..row
        },
    };
    if tx.update_tis(&[write]).await?.is_empty() {
        return Err(StoreError::Conflict("it was written meanwhile".to_owned()));
    }
    if let Some(audit) = &answer.audit {
        tx.put_audits(std::slice::from_ref(audit)).await?;
    }
    tx.commit().await
}
