//! Backfills: runs of the past, made at once and started as their own limit allows.

use super::deploy::timetable;
use crate::{
    Backend, LimitKey, StoreError, StoreResult, Tx,
    records::{BackfillPlan, NewBackfill, NewRun, Reprocess, VersionRow},
};
use chrono::{DateTime, SecondsFormat, Utc};
use gristmill_common::{
    ids::BackfillPk,
    row::RunType,
    state::RunState,
    timetable::{NextRun, Timetable},
};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Runs of one backfill at most.
const MAX_RUNS: usize = 10_000;

pub(crate) async fn create_backfill<B: Backend>(
    store: &B,
    new: &NewBackfill,
    dry_run: bool,
) -> StoreResult<BackfillPlan> {
    let mut tx = store.begin().await?;
    let dag_id = &new.dag_id;
    let no_dag = || StoreError::NotFound {
        what: "DAG",
        name: dag_id.clone(),
    };
    // Two backfills of one DAG take turns.
    let dag = tx.lock_dag(dag_id).await?.ok_or_else(no_dag)?;
    let version = tx.version(dag.version).await?.ok_or_else(|| {
        StoreError::Corrupt(format!("DAG {dag_id} has no version {}", dag.version))
    })?;
    let timetable = timetable(&dag, &version.spec)?
        .filter(Timetable::is_periodic)
        .ok_or_else(|| {
            StoreError::Refused(format!(
                "the DAG {dag_id:?} has no schedule of dates, so there is nothing to fill in; trigger runs of it instead"
            ))
        })?;
    let dates = dates(new, &timetable, tx.now())?;
    let taken: HashMap<DateTime<Utc>, RunState> = tx
        .newest_runs(dag_id, new.from_date, new.to_date)
        .await?
        .into_iter()
        .collect();
    let (mut runs, left_out): (Vec<NextRun>, Vec<NextRun>) = dates
        .into_iter()
        .partition(|run| is_wanted(new.reprocess, taken.get(&run.logical_date)));
    if new.run_backwards
        && let Some(task) = version.spec.tasks.iter().find(|task| task.looks_back())
    {
        return Err(StoreError::Refused(format!(
            "the task {:?} of the DAG {dag_id:?} has depends_on_past, so its runs cannot go backwards: leave run_backwards out",
            task.task_id
        )));
    }
    if new.run_backwards {
        runs.reverse();
    }
    let mut plan = BackfillPlan {
        id: None,
        runs,
        left_out: left_out.iter().map(|run| run.logical_date).collect(),
    };
    if dry_run {
        return Ok(plan);
    }
    if let Some(active) = tx.active_backfill(dag_id).await? {
        return Err(StoreError::Exists {
            what: "active backfill",
            name: active.to_string(),
        });
    }
    let left_out = i32::try_from(plan.left_out.len()).unwrap_or(i32::MAX);
    let id = tx.insert_backfill(new, left_out).await?;
    let limit = (LimitKey::Backfill { id }, i64::from(new.max_active_runs));
    tx.ensure_limits(&[limit], true).await?;
    let rows: Vec<NewRun> = plan
        .runs
        .iter()
        .map(|run| {
            new_run(
                new,
                id,
                &version,
                run,
                taken.contains_key(&run.logical_date),
            )
        })
        .collect();
    tx.insert_runs(&rows).await?;
    tx.commit().await?;
    plan.id = Some(id);
    Ok(plan)
}

/// The runs of the range whose time has come.
fn dates(
    new: &NewBackfill,
    timetable: &Timetable,
    now: DateTime<Utc>,
) -> StoreResult<Vec<NextRun>> {
    let NewBackfill {
        dag_id,
        from_date,
        to_date,
        ..
    } = new;
    if from_date > to_date {
        return Err(StoreError::Refused(format!(
            "from {from_date} is after to {to_date}: a backfill goes from the older date to the newer one (run_backwards turns the order of its runs)"
        )));
    }
    let dates: Vec<NextRun> = timetable
        .runs_between(*from_date, *to_date)
        .take_while(|run| run.interval_end <= now)
        .take(MAX_RUNS + 1)
        .collect();
    match dates.len() {
        0 => Err(StoreError::Refused(format!(
            "the schedule of {dag_id:?} has no run from {from_date} to {to_date} that is over by now ({now})"
        ))),
        n if n > MAX_RUNS => Err(StoreError::Refused(format!(
            "from {from_date} to {to_date} the DAG {dag_id:?} has more than {MAX_RUNS} runs: make several backfills, one after the other"
        ))),
        _ => Ok(dates),
    }
}

fn is_wanted(reprocess: Reprocess, newest: Option<&RunState>) -> bool {
    match (newest, reprocess) {
        (None, _) | (Some(RunState::Success), Reprocess::Completed) => true,
        (Some(RunState::Failed), Reprocess::Failed | Reprocess::Completed) => true,
        (Some(_), _) => false,
    }
}

fn new_run(
    new: &NewBackfill,
    id: BackfillPk,
    version: &VersionRow,
    run: &NextRun,
    again: bool,
) -> NewRun {
    let spec = &version.spec;
    let date = run
        .logical_date
        .to_rfc3339_opts(SecondsFormat::AutoSi, false);
    let known = |(name, _): &(&String, &Value)| spec.params.contains_key(*name);
    let mut params: Map<String, Value> = spec.param_defaults();
    params.extend(
        new.conf
            .iter()
            .filter(known)
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    NewRun {
        dag_id: new.dag_id.clone(),
        // The first of a date may have been another backfill's.
        run_id: match again {
            false => format!("backfill__{date}"),
            true => format!("backfill__{date}__{id}"),
        },
        version: version.pk,
        run_type: RunType::Backfill,
        triggered_by: "backfill".to_owned(),
        backfill: Some(id),
        logical_date: Some(run.logical_date),
        data_interval_start: Some(run.interval_start),
        data_interval_end: Some(run.interval_end),
        run_after: run.interval_end,
        conf: new.conf.clone(),
        params,
        note: None,
        max_active_tasks: i32::try_from(spec.max_active_tasks).unwrap_or(i32::MAX),
        timeout_ms: spec.dagrun_timeout.map(|t| t.millis()),
        // It is late by design.
        next_deadline: None,
        idempotency: None,
    }
}

fn no_backfill(id: BackfillPk) -> StoreError {
    StoreError::NotFound {
        what: "backfill",
        name: id.to_string(),
    }
}

pub(crate) async fn pause_backfill<B: Backend>(
    store: &B,
    id: BackfillPk,
    paused: bool,
) -> StoreResult<()> {
    let mut tx = store.begin().await?;
    if !tx.pause_backfill(id, paused).await? {
        return Err(no_backfill(id));
    }
    tx.commit().await
}

pub(crate) async fn cancel_backfill<B: Backend>(store: &B, id: BackfillPk) -> StoreResult<i64> {
    let mut tx = store.begin().await?;
    let cancelled = tx
        .cancel_backfill(id, "its backfill was cancelled")
        .await?
        .ok_or_else(|| no_backfill(id))?;
    tx.commit().await?;
    Ok(cancelled)
}
